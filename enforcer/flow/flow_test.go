package flow

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ip has the length of its family.
func ip(s string) net.IP { return netip.MustParseAddr(s).AsSlice() }

// track makes a connection of a host with another in the tables, which is all
// that a connection is to them.
func track(t *testing.T, family netlink.InetFamily, from, to, natted string) {
	t.Helper()
	f := &netlink.ConntrackFlow{
		FamilyType: uint8(family), TimeOut: 100,
		Forward:   netlink.IPTuple{SrcIP: ip(from), DstIP: ip(to), SrcPort: 4711, DstPort: 80, Protocol: unix.IPPROTO_TCP},
		Reverse:   netlink.IPTuple{SrcIP: ip(to), DstIP: ip(natted), SrcPort: 80, DstPort: 4711, Protocol: unix.IPPROTO_TCP},
		ProtoInfo: &netlink.ProtoInfoTCP{State: 3},
	}
	if err := netlink.ConntrackCreate(netlink.ConntrackTable, family, f); err != nil {
		t.Fatal(err)
	}
}

func left(t *testing.T) int {
	t.Helper()
	n := 0
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, family)
		if err != nil {
			t.Fatal(err)
		}
		n += len(flows)
	}
	return n
}

func TestEnd(t *testing.T) {
	track(t, unix.AF_INET, "10.0.0.1", "10.0.1.1", "10.0.0.1")
	track(t, unix.AF_INET, "10.0.0.2", "10.0.1.1", "10.0.9.9")
	track(t, unix.AF_INET, "10.0.1.3", "10.0.0.3", "10.0.1.3")
	track(t, unix.AF_INET6, "fd00::1", "fd01::1", "fd00::1")
	if n := left(t); n != 4 {
		t.Fatalf("%d connections to begin with", n)
	}
	for _, c := range []struct {
		address string
		left    int
	}{
		{"10.0.0.77", 4}, {"10.0.0.1", 3}, {"10.0.9.9", 2}, {"::ffff:10.0.0.3", 1}, {"fd00::2", 1}, {"fd01::1", 0}, {"fd01::1", 0},
	} {
		if err := (Tracking{}).End([]netip.Addr{netip.MustParseAddr(c.address)}); err != nil {
			t.Errorf("%s: %v", c.address, err)
		}
		if n := left(t); n != c.left {
			t.Errorf("after %s: %d connections are left, want %d", c.address, n, c.left)
		}
	}
	if err := (Tracking{}).End(nil); err != nil {
		t.Error(err)
	}
}

func TestInterruptedListingIsRepeated(t *testing.T) {
	other := errors.New("no")
	for name, c := range map[string]struct {
		interrupted, calls int
		then, want         error
	}{
		"at once":    {0, 1, nil, nil},
		"twice":      {2, 3, nil, nil},
		"fails":      {1, 2, other, other},
		"every time": {1 << 20, attempts, nil, netlink.ErrDumpInterrupted},
	} {
		calls := 0
		err := persist(func() error {
			if calls++; calls <= c.interrupted {
				return fmt.Errorf("list: %w", netlink.ErrDumpInterrupted)
			}
			return c.then
		})
		if calls != c.calls || !errors.Is(err, c.want) {
			t.Errorf("%s: %d calls, %v", name, calls, err)
		}
	}
}

func TestUntracked(t *testing.T) {
	for err, want := range map[error]bool{unix.EINVAL: true, unix.ENOENT: true, unix.EOPNOTSUPP: true, unix.EPERM: false, unix.ENOBUFS: false} {
		if untracked(fmt.Errorf("x: %w", err)) != want {
			t.Errorf("%v: %t", err, !want)
		}
	}
}
