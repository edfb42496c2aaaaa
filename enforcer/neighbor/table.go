// Package neighbor keeps which address belongs to which MAC, as dated bindings
// that sources report. One source is the kernel's neighbour tables; a source of
// another kind (snooped ARP, neighbour discovery and DHCP, a router's tables)
// is another file that implements Source.
package neighbor

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/cordon-security/cordon/internal/guard"
)

// Observation is what a source saw: that an address is a MAC's, or, when not
// Present, that it no longer answers as anybody's.
type Observation struct {
	Address netip.Addr
	MAC     guard.MAC
	Seen    time.Time
	Present bool
}

// Source reports observations until ctx ends. Those that it knows when it
// starts come first. It calls report from one goroutine at a time.
type Source interface {
	Run(ctx context.Context, report func(Observation)) error
}

// Times and bounds of the table.
const (
	// contest is how long an address that moved to another MAC is in dispute. How
	// long its former owner was silent does not matter: idle machines are.
	contest = 5 * time.Minute
	// maxEntries bounds what a flood of claims can cost.
	maxEntries = 1 << 17
)

type entry struct {
	mac     guard.MAC
	seen    time.Time
	present bool
	// contestedUntil is set when it was taken from another owner.
	contestedUntil time.Time
}

// Table holds the latest binding of each address. It is not safe for
// concurrent use.
type Table struct {
	entries map[netip.Addr]entry
}

// NewTable makes an empty table.
func NewTable() *Table { return &Table{entries: map[netip.Addr]entry{}} }

// Observe takes an observation in and returns what changed by it, oldest first:
// the end of a binding, the beginning of one, both, or nothing.
func (t *Table) Observe(o Observation) []Observation {
	o.Address = o.Address.Unmap().WithZone("")
	if !o.Address.IsValid() || o.Address.IsMulticast() || o.Address.IsUnspecified() || o.Address.IsLoopback() {
		return nil
	}
	old, known := t.entries[o.Address]
	if !o.Present {
		return t.leave(o, old, known)
	}
	if o.MAC.IsZero() || o.MAC.IsGroup() {
		return nil
	}
	if known && old.present && old.mac == o.MAC {
		old.seen = o.Seen
		t.entries[o.Address] = old
		return nil
	}
	var changes []Observation
	next := entry{mac: o.MAC, seen: o.Seen, present: true}
	if known && old.mac != o.MAC {
		next.contestedUntil = o.Seen.Add(contest)
	} else if known {
		// Silence does not settle it.
		next.contestedUntil = old.contestedUntil
	}
	if known && old.present {
		changes = append(changes, Observation{Address: o.Address, MAC: old.mac, Seen: o.Seen})
	}
	if !known {
		t.makeRoom()
	}
	t.entries[o.Address] = next
	return append(changes, o)
}

// leave marks a binding as ended; it stays known, since its MAC may merely be
// silent. An end reported for another MAC than the present one is stale.
func (t *Table) leave(o Observation, old entry, known bool) []Observation {
	if !known || !old.present || (!o.MAC.IsZero() && old.mac != o.MAC) {
		return nil
	}
	old.present = false
	old.seen = o.Seen
	t.entries[o.Address] = old
	return []Observation{{Address: o.Address, MAC: old.mac, Seen: o.Seen}}
}

// makeRoom drops the older half of a full table, what is gone first.
func (t *Table) makeRoom() {
	if len(t.entries) < maxEntries {
		return
	}
	all := slices.Collect(maps.Keys(t.entries))
	slices.SortFunc(all, func(a, b netip.Addr) int {
		x, y := t.entries[a], t.entries[b]
		if x.present != y.present {
			if y.present {
				return -1
			}
			return 1
		}
		return x.seen.Compare(y.seen)
	})
	for _, a := range all[:len(all)/2] {
		delete(t.entries, a)
	}
}

// Owner returns the MAC that an address is bound to now.
func (t *Table) Owner(a netip.Addr) (guard.MAC, bool) {
	e := t.entries[a]
	return e.mac, e.present
}

// Last returns the MAC that an address is or was bound to last.
func (t *Table) Last(a netip.Addr) (guard.MAC, bool) {
	e, ok := t.entries[a]
	return e.mac, ok
}

// Contested reports whether an address was taken from another owner, and until
// when that counts.
func (t *Table) Contested(a netip.Addr, now time.Time) (until time.Time, contested bool) {
	until = t.entries[a].contestedUntil
	return until, until.After(now)
}

// Settle ends the dispute about an address: its former owner has no claim.
func (t *Table) Settle(a netip.Addr) {
	if e, ok := t.entries[a]; ok {
		e.contestedUntil = time.Time{}
		t.entries[a] = e
	}
}

// Gone returns when a binding of this MAC ended, if that is the last that is
// known of the address.
func (t *Table) Gone(a netip.Addr, m guard.MAC) (since time.Time, gone bool) {
	e, ok := t.entries[a]
	return e.seen, ok && !e.present && e.mac == m
}

// Each calls f with every present binding.
func (t *Table) Each(f func(Observation)) {
	for a, e := range t.entries {
		if e.present {
			f(Observation{Address: a, MAC: e.mac, Seen: e.seen, Present: true})
		}
	}
}
