package nft

import (
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cordon-security/cordon/enforcer/desired"
	"github.com/cordon-security/cordon/enforcer/reconcile"
)

// TestListIsWholeOrAnError lists a set that others change meanwhile.
func TestListIsWholeOrAnError(t *testing.T) {
	m := clean(t)
	const size = 20000
	want := indexed{}
	for i := range uint32(size) {
		want[reconcile.Member{MAC: mac(i)}] = desired.AccessNone
	}
	if _, err := m.Prune(want, false); err != nil {
		t.Fatal(err)
	}
	other := newMethod(t)
	moving := []reconcile.Member{{MAC: mac(1 << 24), Access: desired.AccessNone}}
	for tries := 1; tries <= maxTries; tries++ {
		// It changes during the first so many listings, between two pieces of a dump.
		begun, changed := 0, 0
		seen := map[key]bool{}
		err := m.sock.list(place{inet, setMAC}, func() {
			begun++
			clear(seen)
		}, func(k key) {
			seen[k] = true
			if begun <= tries && changed < begun {
				changed = begun
				if err := errors.Join(other.Ensure(moving), other.Remove(moving)); err != nil {
					t.Fatal(err)
				}
			}
		})
		if want := tries == maxTries; errors.Is(err, errChanging) != want || !want && len(seen) != size {
			t.Errorf("changed during %d listings: %d of %d elements, %v", tries, len(seen), size, err)
		}
	}
	if n, err := m.Count(); err != nil || n != 2*size {
		t.Errorf("once it is quiet: %d elements, %v", n, err)
	}
}

// TestWatchOutlivesAnError makes poll(2) fail once, by a limit on descriptors
// below the number that it is given.
func TestWatchOutlivesAnError(t *testing.T) {
	m := clean(t)
	prune(t, m, members(), false)
	next, err := m.Watch()
	if err != nil {
		t.Fatal(err)
	}
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	_, failed := next()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(failed, unix.EINVAL) {
		t.Fatalf("poll did not fail: %v", failed)
	}
	nft(t, "delete", "element", "inet", "cordon", "ip4", "{ 10.0.0.11 }")
	c, err := next()
	if err != nil || len(c.Members) != 1 || c.Members[0].Address != netip.MustParseAddr("10.0.0.11") {
		t.Fatalf("after an error: %+v, %v", c, err)
	}
	_ = m.Close()
	for range 2 {
		if _, err := next(); !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
}
