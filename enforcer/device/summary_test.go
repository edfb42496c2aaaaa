package device

import (
	"errors"
	"strings"
	"testing"
)

func TestSummary(t *testing.T) {
	f := newFixture(t).start()
	says := func(want string) {
		t.Helper()
		if got := f.device.Summary(); !strings.Contains(got, want) {
			t.Errorf("%q does not say %q", got, want)
		}
	}
	says("0 quarantines ordered")
	f.order(put(quarantine(1, "10.0.0.1")))
	if got, want := f.device.Summary(), "1 quarantines ordered"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if _, _, err := f.device.ReleaseAll("eve", "fire"); err != nil {
		t.Fatal(err)
	}
	says("all lifted: BREAK GLASS by eve")
	if err := f.device.Resume("eve"); err != nil {
		t.Fatal(err)
	}
	f.method.set(errors.New("kernel says no"))
	f.order(put(quarantine(2)))
	says("1 of their addresses not in force yet")
}
