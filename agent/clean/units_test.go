package clean

import "testing"

func TestATemplateStandsForItsInstances(t *testing.T) {
	for unit, want := range map[string]string{
		"x@.service": "x@*.service", "x@1.service": "x@1.service", "x.service": "x.service", "x@.timer": "x@*.timer",
	} {
		if got := instances(unit); got != want {
			t.Errorf("%s: %s, want %s", unit, got, want)
		}
	}
}
