// Package storetest is the conformance suite of package store: every engine
// runs it, and what it holds is the contract.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/cordon-security/cordon/mitigator/endpoint"
	"github.com/cordon-security/cordon/mitigator/event"
	"github.com/cordon-security/cordon/mitigator/store"
	"github.com/cordon-security/cordon/mitigator/threat"
)

// Run runs the suite. open returns a store on the same data each time that it
// is called within one subtest's t, so that a second call is a restart.
func Run(t *testing.T, open func(t *testing.T, dir string) store.Store) {
	for name, test := range map[string]func(*testing.T, func() store.Store){
		"an error undoes its own update alone":  undo,
		"what is committed survives a restart":  restart,
		"one active quarantine an endpoint":     oneActive,
		"orders are a log that snapshots close": orders,
		"the same event comes in once":          once,
		"an address has one owner at a time":    owners,

		"unreadable records are kept, bounded and counted": rejects,
		"a cursor is stored with what it stands behind":    together,
		"one error in a shared commit":                     groupError,
		"a merge moves all that hangs on an endpoint":      merge,
		"a merge leaves one active quarantine":             mergeActive,
		"a revocation is final":                            agents,
		"a token is used once":                             tokens,
		"what is not there is not found":                   missing,
		"the log of orders ends in a snapshot":             trimmed,
		"a new epoch is above the last":                    newEpoch,
		"retention removes events":                         pruneEvents,
		"retention removes threats and quarantines":        pruneThreats,
		"retention removes endpoints and bindings":         pruneEndpoints,
		"bindings of one MAC and address are bounded":      boundedBindings,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			test(t, func() store.Store { return open(t, dir) })
		})
	}
}

var t0 = time.Date(2026, 3, 1, 12, 0, 0, 123456000, time.UTC)

func update(t *testing.T, s store.Store, fn func(store.Tx) error) {
	t.Helper()
	if err := s.Update(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}

func view(t *testing.T, s store.Store, fn func(store.View) error) {
	t.Helper()
	if err := s.View(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}

func mac(n byte) endpoint.MAC { return endpoint.MAC{2, 0, 0, 0, 0, n} }

func addEndpoint(tx store.Tx, n byte) (endpoint.Endpoint, error) {
	e := endpoint.Endpoint{Hostname: fmt.Sprintf("h%d", n), MACs: []endpoint.MAC{mac(n)}, FirstSeen: t0, LastSeen: t0}
	return e, tx.AddEndpoint(&e)
}

func undo(t *testing.T, open func() store.Store) {
	s := open()
	defer s.Close()
	failed := errors.New("no")
	var wg sync.WaitGroup
	for n := range byte(40) {
		wg.Go(func() {
			err := s.Update(context.Background(), func(tx store.Tx) error {
				if _, err := addEndpoint(tx, n); err != nil {
					return err
				}
				if n%2 == 1 {
					return failed
				}
				return nil
			})
			if want := n%2 == 1; errors.Is(err, failed) != want || (err != nil && !want) {
				t.Errorf("update %d: %v", n, err)
			}
		})
	}
	wg.Wait()
	view(t, s, func(v store.View) error {
		for n := range byte(40) {
			_, ok, err := v.EndpointByMAC(mac(n))
			if err != nil || ok != (n%2 == 0) {
				t.Errorf("endpoint %d is there: %v, %v", n, ok, err)
			}
		}
		return nil
	})
}

func restart(t *testing.T, open func() store.Store) {
	s := open()
	want := threat.Threat{
		Kind: "suricata:1:2", Signature: "sig", Severity: event.High, Role: event.Attacker, RoleReason: "it called out",
		Containable: true, State: threat.Assessing, EventCount: 3, FirstSeen: t0, LastSeen: t0.Add(time.Second), OpenedAt: t0, UpdatedAt: t0,
		Flows: []threat.Flow{{Proto: 6, Local: netip.MustParseAddrPort("[fd77::1]:5"), Remote: netip.MustParseAddrPort("192.0.2.1:443"), At: t0}},
	}
	task := threat.Task{ID: "t-1", AgentID: "a", Kind: threat.Assess, State: threat.TaskPending, CreatedAt: t0, HoldUntil: t0.Add(time.Hour), Limit: time.Minute}
	update(t, s, func(tx store.Tx) error {
		e, err := addEndpoint(tx, 1)
		if err != nil {
			return err
		}
		want.EndpointID = e.ID
		if err := tx.AddThreat(&want); err != nil {
			return err
		}
		task.ThreatID = want.ID
		return errors.Join(tx.AddTask(task),
			tx.AddTransition(threat.Transition{ThreatID: want.ID, To: threat.Detected, At: t0, Cause: "c", Actor: "a"}))
	})
	epoch := epochOf(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open()
	defer s.Close()
	if got := epochOf(t, s); got != epoch || got == 0 {
		t.Errorf("epoch %d after a restart, was %d", got, epoch)
	}
	view(t, s, func(v store.View) error {
		got, ok, err := v.LastThreat(want.EndpointID, want.Kind)
		if err != nil || !ok || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("threat after a restart: %v %v\n%v\nwant\n%v", ok, err, got, want)
		}
		tasks, err := v.OpenTasks("a")
		if err != nil || len(tasks) != 1 || fmt.Sprint(tasks[0]) != fmt.Sprint(task) {
			t.Errorf("open tasks after a restart: %v %v, want %v", tasks, err, task)
		}
		due, err := v.TasksDue(t0.Add(time.Hour), 0)
		if err != nil || len(due) != 1 {
			t.Errorf("tasks due: %v %v", due, err)
		}
		if _, err := v.Task("none"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("a task that is not there: %v", err)
		}
		line, err := v.Timeline(want.ID)
		if err != nil || len(line) != 1 || line[0].To != threat.Detected {
			t.Errorf("timeline: %v %v", line, err)
		}
		return nil
	})
}

func epochOf(t *testing.T, s store.Store) (epoch uint64) {
	view(t, s, func(v store.View) (err error) {
		epoch, err = v.Epoch()
		return err
	})
	return epoch
}

func quarantine(id string, endpointID int64, st threat.QuarantineState) threat.Quarantine {
	return threat.Quarantine{ID: id, EndpointID: endpointID, MACs: []endpoint.MAC{mac(1), mac(2)}, Access: threat.AccessLimited, CreatedAt: t0, State: st}
}

func oneActive(t *testing.T, open func() store.Store) {
	s := open()
	defer s.Close()
	var e endpoint.Endpoint
	update(t, s, func(tx store.Tx) (err error) {
		if e, err = addEndpoint(tx, 1); err != nil {
			return err
		}
		return tx.AddQuarantine(quarantine("q-1", e.ID, threat.QuarantineOrdered))
	})
	err := s.Update(context.Background(), func(tx store.Tx) error {
		return tx.AddQuarantine(quarantine("q-2", e.ID, threat.QuarantineHeld))
	})
	if err == nil {
		t.Error("a second active quarantine of one endpoint was stored")
	}
	update(t, s, func(tx store.Tx) error {
		return errors.Join(tx.SetQuarantine(quarantine("q-1", e.ID, threat.QuarantineEnded)),
			tx.AddQuarantine(quarantine("q-2", e.ID, threat.QuarantineOrdered)))
	})
}

func orders(t *testing.T, open func() store.Store) {
	s := open()
	defer s.Close()
	update(t, s, func(tx store.Tx) error {
		for n := range byte(3) {
			e, err := addEndpoint(tx, n)
			if err != nil {
				return err
			}
			id := fmt.Sprintf("q-%d", n)
			if err := tx.AddQuarantine(quarantine(id, e.ID, threat.QuarantineOrdered)); err != nil {
				return err
			}
			if _, err := tx.AddOrder(id); err != nil {
				return err
			}
		}
		q := quarantine("q-0", 1, threat.QuarantineReleasing)
		if err := tx.SetQuarantine(q); err != nil {
			return err
		}
		_, err := tx.AddOrder("q-0")
		return err
	})
	view(t, s, func(v store.View) error {
		all, head, ok, err := v.Orders(0, 0)
		if err != nil || !ok || head != 4 || len(all) != 3 || all[2].Quarantine.ID != "q-0" || all[2].Quarantine.State.Ordered() {
			t.Errorf("orders from the start: %v head %d %v %v", all, head, ok, err)
		}
		part, to, ok, err := v.Orders(1, 1)
		if err != nil || !ok || to != 2 || len(part) != 1 || part[0].Quarantine.ID != "q-1" {
			t.Errorf("one order after revision 1: %v to %d %v %v", part, to, ok, err)
		}
		if _, _, ok, err := v.Orders(9, 0); ok || err != nil {
			t.Errorf("orders after a revision that never was: %v %v", ok, err)
		}
		qs, head, err := v.Snapshot()
		if err != nil || head != 4 || len(qs) != 2 || len(qs[0].MACs) != 2 {
			t.Errorf("snapshot: %v head %d %v", qs, head, err)
		}
		return nil
	})
}

func once(t *testing.T, open func() store.Store) {
	s := open()
	defer s.Close()
	ev := event.Event{Source: "eve", Key: event.Key{1}, Time: t0, Received: t0, Signature: "s", Severity: event.Low, Proto: 17,
		Src: netip.MustParseAddrPort("10.0.0.1:53"), Raw: []byte("{}")}
	for i := range 2 {
		update(t, s, func(tx store.Tx) error {
			r := event.Record{Classified: event.Classified{Event: ev, Disposition: event.Kept, Reason: "neither"}}
			added, err := tx.AddEvent(&r)
			if added != (i == 0) {
				t.Errorf("event added %v at try %d", added, i)
			}
			return errors.Join(err, tx.SetCursor("eve", []byte{byte(i)}))
		})
	}
	view(t, s, func(v store.View) error {
		got, err := v.Events(0, 0)
		if err != nil || len(got) != 1 || got[0].Event.Src != ev.Src || got[0].Event.Dst.IsValid() || got[0].Disposition != event.Kept {
			t.Errorf("events: %v %v", got, err)
		}
		n, rejects, err := v.SourceCounts("eve")
		if err != nil || n != 1 || rejects != 0 {
			t.Errorf("counts %d, %d, %v", n, rejects, err)
		}
		c, err := v.Cursor("eve")
		if err != nil || len(c) != 1 || c[0] != 1 {
			t.Errorf("cursor %v, %v", c, err)
		}
		return nil
	})
}

func owners(t *testing.T, open func() store.Store) {
	s := open()
	defer s.Close()
	a := netip.MustParseAddr("10.0.0.9")
	update(t, s, func(tx store.Tx) error {
		first := endpoint.Binding{Addr: a, MAC: mac(1), From: t0, LastSeen: t0, Source: "device:d"}
		second := first
		second.MAC, second.From, second.LastSeen = mac(2), t0.Add(time.Minute), t0.Add(time.Minute)
		return errors.Join(tx.OpenBinding(first), tx.OpenBinding(first), tx.OpenBinding(second))
	})
	view(t, s, func(v store.View) error {
		all, err := v.Bindings(a)
		if err != nil || len(all) != 2 {
			t.Fatalf("bindings: %v %v", all, err)
		}
		for at, want := range map[time.Duration]byte{0: 1, 30 * time.Second: 1, 2 * time.Minute: 2} {
			if b, ok := endpoint.At(all, t0.Add(at)); !ok || b.MAC != mac(want) {
				t.Errorf("owner at %v: %v %v", at, b.MAC, ok)
			}
		}
		if _, ok := endpoint.At(all, t0.Add(-time.Hour)); ok {
			t.Error("an owner an hour before the first binding")
		}
		now, err := v.BindingsOfMAC(mac(1))
		if err != nil || len(now) != 0 {
			t.Errorf("the first owner still holds %v, %v", now, err)
		}
		return nil
	})
}
