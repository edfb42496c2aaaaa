package storetest

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/cordon-security/cordon/mitigator/endpoint"
	"github.com/cordon-security/cordon/mitigator/event"
	"github.com/cordon-security/cordon/mitigator/store"
	"github.com/cordon-security/cordon/mitigator/threat"
)

// The times of these tests: what is old is due, what is recent is not.
var (
	old    = t0
	cutoff = t0.Add(24 * time.Hour)
	recent = t0.Add(48 * time.Hour)
)

// prune calls Prune until nothing is left to do, and checks that no call does
// more than it may.
func prune(t *testing.T, s store.Store, c store.Cutoffs) (total store.Pruned) {
	t.Helper()
	const limit = 40
	for range 1000 {
		var p store.Pruned
		update(t, s, func(tx store.Tx) (err error) {
			p, err = tx.Prune(c, limit)
			return err
		})
		if n := p.Events + p.Threats + p.Quarantines + p.Endpoints + p.Bindings; n > limit+2 {
			t.Errorf("one call removed %d: %+v", n, p)
		}
		total.Events += p.Events
		total.Threats += p.Threats
		total.Quarantines += p.Quarantines
		total.Endpoints += p.Endpoints
		total.Bindings += p.Bindings
		if !p.More {
			return total
		}
		c.From = p.Next
	}
	t.Fatal("pruning has no end")
	return total
}

func addEvents(tx store.Tx, first, n int, at time.Time, threatID int64) error {
	for i := first; i < first+n; i++ {
		r := event.Record{Classified: event.Classified{Disposition: event.Kept, Event: event.Event{Source: "eve", Key: event.Key{byte(i), byte(i >> 8)},
			Time: at, Received: at, Severity: event.Low}}}
		if _, err := tx.AddEvent(&r); err != nil {
			return err
		}
		if threatID == 0 {
			continue
		}
		if err := tx.SetEventThreat(r.ID, threatID); err != nil {
			return err
		}
	}
	return nil
}

// addThreat stores a threat of the endpoint; endedAt is zero for an open one.
func addThreat(tx store.Tx, endpointID int64, kind string, endedAt time.Time, quarantineID string) (threat.Threat, error) {
	th := threat.Threat{EndpointID: endpointID, Kind: kind, Severity: event.High, Role: event.Attacker, State: threat.Unresolved, FirstSeen: old,
		LastSeen: old, OpenedAt: old, UpdatedAt: old, EndedAt: endedAt, QuarantineID: quarantineID}
	if !endedAt.IsZero() {
		th.State = threat.Released
	}
	if err := tx.AddThreat(&th); err != nil {
		return th, err
	}
	for i := range 100 {
		if err := tx.AddTransition(threat.Transition{ThreatID: th.ID, To: threat.Detected, At: old, Cause: fmt.Sprint(i)}); err != nil {
			return th, err
		}
	}
	task := threat.Task{ID: fmt.Sprint("t-", th.ID), ThreatID: th.ID, AgentID: "a", Kind: threat.Assess, State: threat.TaskDone, CreatedAt: old,
		HoldUntil: old, EndedAt: endedAt}
	return th, tx.AddTask(task)
}

func pruneEvents(t *testing.T, open func() store.Store) {
	s := open()
	defer s.Close()
	var ended, live threat.Threat
	update(t, s, func(tx store.Tx) (err error) {
		e, err := addEndpoint(tx, 1)
		if err != nil {
			return err
		}
		if ended, err = addThreat(tx, e.ID, "ended", recent, ""); err != nil {
			return err
		}
		if live, err = addThreat(tx, e.ID, "live", time.Time{}, ""); err != nil {
			return err
		}
		return errors.Join(
			addEvents(tx, 0, 50, old, 0),
			addEvents(tx, 50, 50, old, ended.ID),
			addEvents(tx, 100, store.EvidenceEvents+60, old, live.ID),
			addEvents(tx, 1000, 30, recent, 0))
	})
	count := func(threatID int64) (all, of int) {
		view(t, s, func(v store.View) error {
			es, err := v.Events(0, 1e6)
			xs, err2 := v.EventsOfThreat(threatID, 1e6)
			all, of = len(es), len(xs)
			return errors.Join(err, err2)
		})
		return all, of
	}
	if p := prune(t, s, store.Cutoffs{Threats: cutoff, Bindings: cutoff, Endpoints: cutoff}); p.Events != 0 {
		t.Errorf("without a cutoff %d events went", p.Events)
	}
	if p := prune(t, s, store.Cutoffs{Events: cutoff}); p.Events != 50+50+60 {
		t.Errorf("%d events went, want those that nobody needs", p.Events)
	}
	all, of := count(live.ID)
	if all != store.EvidenceEvents+30 || of != store.EvidenceEvents {
		t.Errorf("%d events are left, %d of the open threat; want its first %d and the recent", all, of, store.EvidenceEvents)
	}
	if _, of := count(ended.ID); of != 0 {
		t.Errorf("%d old events of a threat that ended are left", of)
	}
	if p := prune(t, s, store.Cutoffs{MaxEvents: 10}); p.Events != 20 {
		t.Errorf("above the number %d events went, want 20", p.Events)
	}
	if all, _ := count(live.ID); all != store.EvidenceEvents+10 {
		t.Errorf("%d events are left", all)
	}
	view(t, s, func(v store.View) error {
		n, _, err := v.SourceCounts("eve")
		if n != 50+50+store.EvidenceEvents+60+30 {
			t.Errorf("the source delivered %d ever", n)
		}
		return err
	})
}

func pruneThreats(t *testing.T, open func() store.Store) {
	s := open()
	type entry struct {
		threat, quarantine time.Time
		state              threat.QuarantineState
		stays              bool
	}
	entries := map[string]entry{
		"both ended":             {old, old, threat.QuarantineEnded, false},
		"observed":               {old, time.Time{}, threat.QuarantineObserved, false},
		"recent":                 {recent, recent, threat.QuarantineEnded, true},
		"open":                   {time.Time{}, old, threat.QuarantineEnded, true},
		"its quarantine stands":  {old, time.Time{}, threat.QuarantineInForce, true},
		"its release is not out": {old, old, threat.QuarantineReleasing, true},
	}
	ids := map[string]int64{}
	update(t, s, func(tx store.Tx) error {
		n := byte(0)
		for name, en := range entries {
			n++
			e, err := addEndpoint(tx, n)
			if err != nil {
				return err
			}
			th, err := addThreat(tx, e.ID, "k", en.threat, "q-"+name)
			if err != nil {
				return err
			}
			ids[name] = th.ID
			q := quarantine("q-"+name, e.ID, en.state)
			q.ThreatID, q.EndedAt = th.ID, en.quarantine
			if err := tx.AddQuarantine(q); err != nil {
				return err
			}
			for range 100 {
				if _, err := tx.AddOrder(q.ID); err != nil {
					return err
				}
			}
		}
		return nil
	})
	// One quarantine stood for two threats, of which one ended of late.
	var first, joined, follower threat.Threat
	update(t, s, func(tx store.Tx) error {
		e, err := addEndpoint(tx, 90)
		if err != nil {
			return err
		}
		if first, err = addThreat(tx, e.ID, "first", old, "q-shared"); err != nil {
			return err
		}
		if _, err := addThreat(tx, e.ID, "second", recent, "q-shared"); err != nil {
			return err
		}
		q := quarantine("q-shared", e.ID, threat.QuarantineEnded)
		q.ThreatID, q.EndedAt = first.ID, old
		if err := tx.AddQuarantine(q); err != nil {
			return err
		}
		// One that was joined with another is still being lifted; the device's word
		// goes to its threat. And one stands for a threat that did not begin it.
		if joined, err = addThreat(tx, e.ID, "joined", old, ""); err != nil {
			return err
		}
		if follower, err = addThreat(tx, e.ID, "follower", old, "q-live"); err != nil {
			return err
		}
		lifting, live := quarantine("q-lifting", e.ID, threat.QuarantineReleasing), quarantine("q-live", e.ID, threat.QuarantineHeld)
		lifting.ThreatID, lifting.EndedAt = joined.ID, old
		return errors.Join(tx.AddQuarantine(lifting), tx.AddQuarantine(live))
	})
	epoch := epochOf(t, s)
	p := prune(t, s, store.Cutoffs{Threats: cutoff})
	if p.Threats != 2 || p.Quarantines != 2 {
		t.Errorf("%d threats and %d quarantines went, want two each", p.Threats, p.Quarantines)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open()
	defer s.Close()
	view(t, s, func(v store.View) error {
		for name, en := range entries {
			_, err := v.Threat(ids[name])
			_, qerr := v.Quarantine("q-" + name)
			line, terr := v.Timeline(ids[name])
			tasks, kerr := v.TasksOfThreat(ids[name])
			if errors.Is(err, store.ErrNotFound) == en.stays || errors.Is(qerr, store.ErrNotFound) == en.stays {
				t.Errorf("%s: threat %v, quarantine %v", name, err, qerr)
			}
			if want := map[bool]int{true: 100}[en.stays]; len(line) != want || (len(tasks) > 0) != en.stays {
				t.Errorf("%s: %d lines, %d tasks", name, len(line), len(tasks))
			}
			if err := errors.Join(terr, kerr); err != nil {
				t.Error(err)
			}
		}
		_, err := v.Threat(first.ID)
		_, err2 := v.Threat(joined.ID)
		_, err3 := v.Threat(follower.ID)
		_, err4 := v.Quarantine("q-shared")
		if err := errors.Join(err, err2, err3, err4); err != nil {
			t.Errorf("what a threat that is kept refers to: %v", err)
		}
		// The orders' contract: whoever may have missed a removal gets a snapshot.
		const head = 600
		if _, got, ok, err := v.Orders(0, 0); ok || err != nil || got != head {
			t.Errorf("after a revision from before: ok %v, head %d, %v", ok, got, err)
		}
		if _, got, ok, err := v.Orders(head, 0); !ok || err != nil || got != head {
			t.Errorf("after the head: ok %v, head %d, %v", ok, got, err)
		}
		qs, got, err := v.Snapshot()
		if err != nil || got != head || len(qs) != 1 || qs[0].ID != "q-its quarantine stands" {
			t.Errorf("snapshot at %d: %v, %v", got, qs, err)
		}
		return nil
	})
	if got := epochOf(t, s); got != epoch {
		t.Errorf("epoch %d, was %d", got, epoch)
	}
	// A device that follows gets what comes after.
	update(t, s, func(tx store.Tx) error {
		_, err := tx.AddOrder("q-its quarantine stands")
		return err
	})
	view(t, s, func(v store.View) error {
		got, to, ok, err := v.Orders(600, 0)
		if err != nil || !ok || to != 601 || len(got) != 1 {
			t.Errorf("the next order: %v to %d, %v %v", got, to, ok, err)
		}
		return nil
	})
}

func pruneEndpoints(t *testing.T, open func() store.Store) {
	s := open()
	defer s.Close()
	addr := func(n byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, n}) }
	unused := map[byte]bool{}
	ids := map[byte]int64{}
	update(t, s, func(tx store.Tx) error {
		for n := byte(1); n <= 60; n++ {
			e := endpoint.Endpoint{MACs: []endpoint.MAC{mac(n), {2, 1, 0, 0, 0, n}}, FirstSeen: old, LastSeen: old}
			b := endpoint.Binding{Addr: addr(n), MAC: mac(n), From: old, LastSeen: old, Source: "device:d"}
			switch n {
			case 1:
				e.AgentID = "a"
			case 2:
				b.LastSeen = recent // a device confirmed it
			case 5:
				e.LastSeen = recent
			}
			if n > 50 { // known by nothing but an address
				e.MACs, e.Address = nil, addr(n)
			}
			if err := tx.AddEndpoint(&e); err != nil {
				return err
			}
			if ids[n] = e.ID; n <= 50 {
				if err := tx.OpenBinding(b); err != nil {
					return err
				}
			}
			switch n {
			case 3:
				if _, err := addThreat(tx, e.ID, "k", old, ""); err != nil {
					return err
				}
			case 4:
				if err := tx.AddQuarantine(quarantine("q", e.ID, threat.QuarantineEnded)); err != nil {
					return err
				}
			}
			unused[n] = n > 5
		}
		return tx.CloseBinding(addr(2), mac(2), recent)
	})
	view(t, s, func(v store.View) error {
		n, err := v.CountUnknown(100)
		few, err2 := v.CountUnknown(3)
		all, err3 := v.CountEndpoints()
		if n != 10 || few != 3 || all != 60 {
			t.Errorf("%d unknown, %d of at most 3, %d in all; want 10, 3 and 60", n, few, all)
		}
		return errors.Join(err, err2, err3)
	})
	if p := prune(t, s, store.Cutoffs{Bindings: cutoff}); p.Bindings != 0 {
		t.Errorf("%d bindings went that hold or ended of late", p.Bindings)
	}
	update(t, s, func(tx store.Tx) error { return tx.CloseBinding(addr(1), mac(1), old) })
	if p := prune(t, s, store.Cutoffs{Bindings: cutoff}); p.Bindings != 1 {
		t.Errorf("%d bindings went, want the one that ended", p.Bindings)
	}
	if p := prune(t, s, store.Cutoffs{Endpoints: cutoff}); p.Endpoints != 55 || p.Bindings != 45 {
		t.Errorf("%d endpoints and %d bindings went, want 55 and 45", p.Endpoints, p.Bindings)
	}
	view(t, s, func(v store.View) error {
		for n, gone := range unused {
			if _, err := v.Endpoint(ids[n]); errors.Is(err, store.ErrNotFound) != gone {
				t.Errorf("endpoint %d: %v, want it gone: %v", n, err, gone)
			}
			if _, ok, err := v.EndpointByMAC(mac(n)); err != nil || ok == gone && n <= 50 {
				t.Errorf("by MAC %d: %v %v", n, ok, err)
			}
			bs, err := v.Bindings(addr(n))
			if err != nil || gone && len(bs) != 0 {
				t.Errorf("bindings of %d: %v %v", n, bs, err)
			}
		}
		return nil
	})
}

func boundedBindings(t *testing.T, open func() store.Store) {
	s := open()
	defer s.Close()
	addr := func(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 1, byte(n >> 8), byte(n)}) }
	at := func(n int) time.Time { return t0.Add(time.Duration(n) * time.Second) }
	const n = store.MaxBindingsOfMAC + store.MaxPastBindings + 44
	update(t, s, func(tx store.Tx) error {
		for i := range n { // one machine that goes through addresses
			if err := tx.OpenBinding(endpoint.Binding{Addr: addr(i), MAC: mac(1), From: at(i), LastSeen: at(i), Source: "device:d"}); err != nil {
				return err
			}
			// It keeps its first in use.
			if err := tx.OpenBinding(endpoint.Binding{Addr: addr(0), MAC: mac(1), From: at(i), LastSeen: at(i), Source: "device:d"}); err != nil {
				return err
			}
		}
		return nil
	})
	view(t, s, func(v store.View) error {
		open, err := v.BindingsOfMAC(mac(1))
		if err != nil || len(open) != store.MaxBindingsOfMAC {
			t.Errorf("%d addresses are one MAC's, %v; want %d", len(open), err, store.MaxBindingsOfMAC)
		}
		kept := 0
		for i := range n {
			bs, err := v.Bindings(addr(i))
			if err != nil {
				return err
			}
			kept += len(bs)
			if i == 0 || i == n-1 {
				if len(bs) != 1 || !bs[0].Until.IsZero() {
					t.Errorf("address %d, which is in use: %+v", i, bs)
				}
			}
		}
		if most := store.MaxBindingsOfMAC + store.MaxPastBindings; kept > most {
			t.Errorf("%d bindings of one MAC are kept, want %d at the most", kept, most)
		}
		return nil
	})
	update(t, s, func(tx store.Tx) error {
		for i := range n { // one address that goes through machines
			b := endpoint.Binding{Addr: addr(2000), MAC: endpoint.MAC{2, 2, 0, 0, byte(i >> 8), byte(i)}, From: at(i), LastSeen: at(i), Source: "device:d"}
			if err := tx.OpenBinding(b); err != nil {
				return err
			}
		}
		return nil
	})
	p := prune(t, s, store.Cutoffs{Bindings: at(10 * n)})
	if most := 2 * store.MaxPastBindings; p.Bindings > most || p.Bindings < store.MaxPastBindings {
		t.Errorf("%d bindings that ended were kept, want %d at the most", p.Bindings, most)
	}
}
