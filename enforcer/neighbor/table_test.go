package neighbor

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/cordon-security/cordon/internal/guard"
)

var (
	start = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	addr  = netip.MustParseAddr("10.0.0.1")
)

func mac(n byte) guard.MAC { return guard.MAC{2, 0, 0, 0, 0, n} }

// seen is an observation of addr, so long after the start.
func seen(n byte, after time.Duration) Observation {
	return Observation{Address: addr, MAC: mac(n), Seen: start.Add(after), Present: true}
}

// gone is the end of what is bound to addr; of any MAC with n of 0.
func gone(n byte, after time.Duration) Observation {
	o := seen(n, after)
	o.Present = false
	if n == 0 {
		o.MAC = guard.MAC{}
	}
	return o
}

func TestTable(t *testing.T) {
	for _, c := range []struct {
		name      string
		events    []Observation
		changes   []Observation // of the last event
		owner     byte          // 0: nobody
		contested time.Duration // until when, after the start; 0: not
	}{
		{"the first", []Observation{seen(1, 0)}, []Observation{seen(1, 0)}, 1, 0},
		{"again", []Observation{seen(1, 0), seen(1, 9)}, nil, 1, 0},
		{"moved", []Observation{seen(1, 0), seen(2, time.Second)}, []Observation{gone(1, time.Second), seen(2, time.Second)}, 2, contest + time.Second},
		{"taken from one that is idle", []Observation{seen(1, 0), seen(2, 100*time.Hour)}, []Observation{gone(1, 100*time.Hour), seen(2, 100*time.Hour)}, 2, contest + 100*time.Hour},
		{"taken from one that left", []Observation{seen(1, 0), gone(1, 1), seen(2, time.Hour)}, []Observation{seen(2, time.Hour)}, 2, contest + time.Hour},
		{"left", []Observation{seen(1, 0), gone(1, 1)}, []Observation{gone(1, 1)}, 0, 0},
		{"left, whoever it was", []Observation{seen(1, 0), gone(0, 1)}, []Observation{gone(1, 1)}, 0, 0},
		{"another left, which is old news", []Observation{seen(1, 0), gone(2, 1)}, nil, 1, 0},
		{"left twice", []Observation{seen(1, 0), gone(1, 1), gone(1, 2)}, nil, 0, 0},
		{"left before it came", []Observation{gone(1, 0)}, nil, 0, 0},
		{"back again", []Observation{seen(1, 0), gone(1, 1), seen(1, 2)}, []Observation{seen(1, 2)}, 1, 0},
		{"silence settles nothing", []Observation{seen(1, 0), seen(2, 0), gone(2, 1), seen(2, 2)}, []Observation{seen(2, 2)}, 2, contest},
		{"back at its owner, who contests it too", []Observation{seen(1, 0), seen(2, 0), seen(1, 1)}, []Observation{gone(2, 1), seen(1, 1)}, 1, contest + 1},
		{"no MAC", []Observation{{Address: addr, Present: true}}, nil, 0, 0},
		{"a group MAC", []Observation{{Address: addr, MAC: guard.MAC{1}, Present: true}}, nil, 0, 0},
	} {
		tab := NewTable()
		var changes []Observation
		for _, o := range c.events {
			changes = tab.Observe(o)
		}
		if !slices.Equal(changes, c.changes) {
			t.Errorf("%s: changes %v, want %v", c.name, changes, c.changes)
		}
		owner, present := tab.Owner(addr)
		if present != (c.owner != 0) || present && owner != mac(c.owner) {
			t.Errorf("%s: owner %s, present %t", c.name, owner, present)
		}
		until, contested := tab.Contested(addr, start)
		if contested != (c.contested != 0) || contested && !until.Equal(start.Add(c.contested)) {
			t.Errorf("%s: contested %t until %s", c.name, contested, until)
		}
		if _, late := tab.Contested(addr, until); late {
			t.Errorf("%s: contested at its end", c.name)
		}
		tab.Settle(addr)
		if _, still := tab.Contested(addr, start); still {
			t.Errorf("%s: contested after it was settled", c.name)
		}
	}
}

func TestImpossibleAddresses(t *testing.T) {
	tab := NewTable()
	for _, a := range []netip.Addr{{}, netip.IPv4Unspecified(), netip.IPv6Unspecified(), netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1"),
		netip.MustParseAddr("224.0.0.1"), netip.MustParseAddr("ff02::1")} {
		if got := tab.Observe(Observation{Address: a, MAC: mac(1), Present: true}); got != nil {
			t.Errorf("%s: %v", a, got)
		}
	}
	// Mapped and scoped addresses are the plain ones.
	for raw, want := range map[string]string{"::ffff:10.0.0.7": "10.0.0.7", "fe80::1%eth0": "fe80::1"} {
		tab.Observe(Observation{Address: netip.MustParseAddr(raw), MAC: mac(1), Present: true})
		if owner, ok := tab.Owner(netip.MustParseAddr(want)); !ok || owner != mac(1) {
			t.Errorf("%s is not known as %s", raw, want)
		}
	}
}

func TestGoneAndLast(t *testing.T) {
	tab := NewTable()
	if _, known := tab.Last(addr); known {
		t.Error("known before it was seen")
	}
	tab.Observe(seen(1, 0))
	if _, left := tab.Gone(addr, mac(1)); left {
		t.Error("gone while it is there")
	}
	tab.Observe(gone(1, time.Minute))
	if since, left := tab.Gone(addr, mac(1)); !left || !since.Equal(start.Add(time.Minute)) {
		t.Errorf("gone %t since %s", left, since)
	}
	if _, left := tab.Gone(addr, mac(2)); left {
		t.Error("gone for another MAC")
	}
	if last, known := tab.Last(addr); !known || last != mac(1) {
		t.Errorf("last %s, %t", last, known)
	}
}

// TestFloodDropsTheOldest: a full table forgets what is gone, then what is oldest.
func TestFloodDropsTheOldest(t *testing.T) {
	tab := NewTable()
	at := func(i uint32) netip.Addr {
		return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 10<<24+i)))
	}
	for i := range uint32(maxEntries) {
		o := Observation{Address: at(i), MAC: mac(1), Seen: start.Add(time.Duration(i)), Present: true}
		tab.Observe(o)
		if i >= maxEntries-10 {
			o.Present = false
			tab.Observe(o)
		}
	}
	tab.Observe(Observation{Address: at(maxEntries), MAC: mac(2), Seen: start.Add(time.Hour), Present: true})
	n := 0
	tab.Each(func(Observation) { n++ })
	if n != maxEntries/2+1 {
		t.Errorf("%d entries are left", n)
	}
	for i, want := range map[uint32]bool{0: false, maxEntries/2 - 11: false, maxEntries/2 - 10: true, maxEntries - 11: true, maxEntries - 1: false, maxEntries: true} {
		if _, present := tab.Owner(at(i)); present != want {
			t.Errorf("entry %d: present %t, want %t", i, present, want)
		}
	}
}

func TestKernelEvents(t *testing.T) {
	m := mac(1)
	for _, c := range []struct {
		name    string
		kind    uint16
		family  int
		state   int
		ip, hw  []byte
		ok      bool
		present bool
	}{
		{"reachable", unix.RTM_NEWNEIGH, unix.AF_INET, unix.NUD_REACHABLE, addr.AsSlice(), m[:], true, true},
		{"stale", unix.RTM_NEWNEIGH, unix.AF_INET6, unix.NUD_STALE, netip.MustParseAddr("fd00::1").AsSlice(), m[:], true, true},
		{"static", unix.RTM_NEWNEIGH, unix.AF_INET, unix.NUD_PERMANENT, addr.AsSlice(), m[:], true, true},
		{"failed", unix.RTM_NEWNEIGH, unix.AF_INET, unix.NUD_FAILED, addr.AsSlice(), nil, true, false},
		{"deleted", unix.RTM_DELNEIGH, unix.AF_INET, unix.NUD_STALE, addr.AsSlice(), m[:], true, false},
		{"being resolved", unix.RTM_NEWNEIGH, unix.AF_INET, unix.NUD_INCOMPLETE, addr.AsSlice(), nil, false, false},
		{"needs no resolution", unix.RTM_NEWNEIGH, unix.AF_INET, unix.NUD_NOARP, addr.AsSlice(), m[:], false, false},
		{"a bridge's forwarding entry", unix.RTM_NEWNEIGH, unix.AF_BRIDGE, unix.NUD_REACHABLE, nil, m[:], false, false},
		{"a long hardware address", unix.RTM_NEWNEIGH, unix.AF_INET, unix.NUD_REACHABLE, addr.AsSlice(), make([]byte, 20), false, false},
	} {
		o, ok := observation(netlink.NeighUpdate{Type: c.kind, Neigh: netlink.Neigh{Family: c.family, State: c.state, IP: c.ip, HardwareAddr: c.hw}}, start)
		if ok != c.ok || o.Present != c.present {
			t.Errorf("%s: %+v, %t", c.name, o, ok)
		}
	}
}
