package storetest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/cordon-security/cordon/mitigator/endpoint"
	"github.com/cordon-security/cordon/mitigator/event"
	"github.com/cordon-security/cordon/mitigator/store"
	"github.com/cordon-security/cordon/mitigator/threat"
)

// merge holds that nothing that hangs on an endpoint is lost when it turns out
// to be another.
func merge(t *testing.T, open func() store.Store) {
	s := open()
	defer s.Close()
	var from, into endpoint.Endpoint
	th := threat.Threat{Kind: "k", Signature: "s", Severity: event.High, Role: event.Attacker, State: threat.Unresolved,
		FirstSeen: t0, LastSeen: t0, OpenedAt: t0, UpdatedAt: t0}
	addr := netip.MustParseAddr("10.0.0.9")
	update(t, s, func(tx store.Tx) (err error) {
		if from, err = addEndpoint(tx, 1); err != nil {
			return err
		}
		if into, err = addEndpoint(tx, 2); err != nil {
			return err
		}
		th.EndpointID = from.ID
		if err := tx.AddThreat(&th); err != nil {
			return err
		}
		r := event.Record{Classified: event.Classified{Event: event.Event{Source: "eve", Time: t0, Received: t0, Severity: event.High},
			Disposition: event.Threat}}
		if _, err := tx.AddEvent(&r); err != nil {
			return err
		}
		return errors.Join(
			tx.SetEventThreat(r.ID, th.ID),
			tx.AddTask(threat.Task{ID: "t-1", ThreatID: th.ID, AgentID: "a", Kind: threat.Clean, State: threat.TaskPending, CreatedAt: t0, HoldUntil: t0}),
			tx.AddTransition(threat.Transition{ThreatID: th.ID, To: threat.Detected, At: t0}),
			tx.AddQuarantine(quarantine("q-1", from.ID, threat.QuarantineInForce)),
			tx.AddQuarantine(quarantine("q-0", from.ID, threat.QuarantineEnded)),
			tx.OpenBinding(endpoint.Binding{Addr: addr, MAC: mac(1), From: t0, LastSeen: t0, Source: "device:d"}))
	})
	update(t, s, func(tx store.Tx) error { return tx.MergeEndpoint(from.ID, into.ID) })
	view(t, s, func(v store.View) error {
		if _, err := v.Endpoint(from.ID); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("the merged endpoint is still there: %v", err)
		}
		got, err := v.Endpoint(into.ID)
		if err != nil || got.Hostname != "h2" || !slices.Equal(got.MACs, []endpoint.MAC{mac(1), mac(2)}) {
			t.Errorf("the other: %+v %v; want the MACs of both", got, err)
		}
		open, err := v.ThreatsOfEndpoint(into.ID)
		if err != nil || len(open) != 1 || open[0].ID != th.ID {
			t.Errorf("open threats: %v %v", open, err)
		}
		events, err := v.EventsOfThreat(th.ID, 0)
		tasks, err2 := v.OpenTasks("a")
		line, err3 := v.Timeline(th.ID)
		if err := errors.Join(err, err2, err3); err != nil || len(events) != 1 || len(tasks) != 1 || len(line) != 1 {
			t.Errorf("%d events, %d tasks, %d lines, %v; want one each", len(events), len(tasks), len(line), err)
		}
		q, ok, err := v.ActiveQuarantine(into.ID)
		if err != nil || !ok || q.ID != "q-1" {
			t.Errorf("active quarantine: %v %v %v", q.ID, ok, err)
		}
		if q, err := v.Quarantine("q-0"); err != nil || q.EndpointID != into.ID {
			t.Errorf("the ended quarantine is endpoint %d's, %v", q.EndpointID, err)
		}
		bs, err := v.Bindings(addr)
		if err != nil || len(bs) != 1 {
			t.Fatalf("bindings: %v %v", bs, err)
		}
		if e, ok, err := v.EndpointByMAC(bs[0].MAC); err != nil || !ok || e.ID != into.ID {
			t.Errorf("the address is endpoint %d's, %v %v", e.ID, ok, err)
		}
		return nil
	})
}

func mergeActive(t *testing.T, open func() store.Store) {
	s := open()
	defer s.Close()
	var from, into endpoint.Endpoint
	update(t, s, func(tx store.Tx) (err error) {
		if from, err = addEndpoint(tx, 1); err != nil {
			return err
		}
		if into, err = addEndpoint(tx, 2); err != nil {
			return err
		}
		return errors.Join(tx.AddQuarantine(quarantine("q-1", from.ID, threat.QuarantineOrdered)),
			tx.AddQuarantine(quarantine("q-2", into.ID, threat.QuarantineHeld)))
	})
	mergeThem := func(tx store.Tx) error { return tx.MergeEndpoint(from.ID, into.ID) }
	if err := s.Update(context.Background(), mergeThem); err == nil {
		t.Error("two active quarantines came to be one endpoint's")
	}
	view(t, s, func(v store.View) error {
		for id, e := range map[string]endpoint.Endpoint{"q-1": from, "q-2": into} {
			if q, ok, err := v.ActiveQuarantine(e.ID); err != nil || !ok || q.ID != id {
				t.Errorf("after the refusal endpoint %d has %q, %v %v", e.ID, q.ID, ok, err)
			}
			if got, err := v.Endpoint(e.ID); err != nil || fmt.Sprint(got) != fmt.Sprint(e) {
				t.Errorf("after the refusal: %v %v, want %v", got, err, e)
			}
		}
		return nil
	})
	update(t, s, func(tx store.Tx) error {
		return errors.Join(tx.SetQuarantine(quarantine("q-2", into.ID, threat.QuarantineEnded)), mergeThem(tx))
	})
	bare := endpoint.Endpoint{Address: netip.MustParseAddr("10.0.0.7"), FirstSeen: t0, LastSeen: t0}
	update(t, s, func(tx store.Tx) error { return tx.AddEndpoint(&bare) })
	if err := s.Update(context.Background(), func(tx store.Tx) error { return tx.MergeEndpoint(bare.ID, bare.ID) }); err == nil {
		t.Error("an endpoint was merged into itself")
	}
}
