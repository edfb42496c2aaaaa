package lifecycle

import (
	"testing"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

// TestAgentDoesNotGoByAnothersName holds that an agent which calls its endpoint by
// another's address, MAC or number is not shown, and released, in its stead.
func TestAgentDoesNotGoByAnothersName(t *testing.T) {
	w := newWorld(t, nil)
	for said, want := range map[string]string{
		"bob": "bob", "web-1.example.org": "web-1.example.org", "WIN_7": "WIN_7", "bürö": "bürö",
		"10.77.0.12": "", "fe80::1": "", "02:00:00:00:00:0c": "", "0200.0000.000c": "", "7": "", "printer is released": "", "a\nb": "",
	} {
		w.must(w.Observe(t.Context(), "agent-a", alice, &wirev1.ObserveRequest{Hostname: said}))
		if got := w.endpointOf(alice).Hostname; got != want {
			t.Errorf("%q: it goes by %q, want %q", said, got, want)
		}
	}
}
