package lifecycle

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
	"github.com/cordon-security/cordon/mitigator/endpoint"
	"github.com/cordon-security/cordon/mitigator/event"
	"github.com/cordon-security/cordon/mitigator/fleet"
	"github.com/cordon-security/cordon/mitigator/store"
	"github.com/cordon-security/cordon/mitigator/threat"
)

var (
	dock    = netip.MustParseAddr("10.77.0.50")
	dockMAC = endpoint.MAC{2, 0, 0, 0, 0, 50}
	bob     = netip.MustParseAddr("10.77.0.11")
	bobMAC  = endpoint.MAC{2, 0, 0, 0, 0, 11}
)

func (w *world) enrolled(id string) {
	w.t.Helper()
	w.must(w.store.Update(w.t.Context(), func(tx store.Tx) error { return tx.AddAgent(fleet.Agent{ID: id, EnrolledAt: start}) }))
}

// uncleanable makes alice's agent give up on a new threat, and returns it.
func (w *world) uncleanable() threat.Threat {
	w.t.Helper()
	w.alert(alice, event.Attacker, true)
	w.answer(&wirev1.TaskResult{Status: wirev1.TaskStatus_TASK_STATUS_FAILED})
	return w.threats()[0]
}

func TestSharedDockIsNoOneMachine(t *testing.T) {
	w := newWorld(t, nil)
	w.neighbor(dock, dockMAC)
	w.observe("agent-a", dock, nil)
	th := w.uncleanable()
	w.device(th.QuarantineID, inForce)
	w.enrolled("agent-b")
	w.neighbor(bob, bobMAC)
	w.observe("agent-b", bob, nil)
	w.observe("agent-b", dock, nil) // the dock went to bob's desk
	if q := w.quarantine(th.QuarantineID); slices.Contains(q.MACs, bobMAC) || !slices.Contains(q.MACs, aliceMAC) || !slices.Contains(q.MACs, dockMAC) {
		t.Errorf("the quarantine is of %v, want alice and the dock, and not bob", q.MACs)
	}
	if a, b := w.endpointOf(alice), w.endpointOf(bob); a.ID == b.ID || a.AgentID != "agent-a" || b.AgentID != "agent-b" {
		t.Errorf("alice is %+v, bob %+v", a, b)
	}
	if _, err := w.ReleaseByPerson(t.Context(), w.endpointOf(alice).ID, "eve", "clean"); err != nil {
		t.Errorf("alice cannot be released: %v", err)
	}
}

func TestEnrolledAnewStaysQuarantined(t *testing.T) {
	w := newWorld(t, nil)
	th := w.uncleanable()
	w.device(th.QuarantineID, inForce)
	w.enrolled("agent-new")
	w.observe("agent-new", alice, nil)
	ep := w.endpointOf(alice)
	if q := w.quarantine(th.QuarantineID); ep.AgentID != "agent-new" || q.EndpointID != ep.ID || q.State != threat.QuarantineInForce {
		t.Errorf("endpoint %+v, quarantine of endpoint %d %s", ep, q.EndpointID, q.State)
	}
}

func TestAgentsClaimsToAddresses(t *testing.T) {
	w := newWorld(t, nil)
	routed := netip.MustParseAddr("10.99.0.5")
	w.enrolled("victim")
	w.observe("victim", routed, nil) // no device sees it: known by its address
	free := netip.MustParseAddr("fd77::abcd")
	long := w.clock.Add(-time.Hour)
	claim := func(a netip.Addr) {
		w.must(w.Observe(t.Context(), "agent-a", alice, &wirev1.ObserveRequest{Hostname: "alice", Bindings: []*wirev1.AddressBinding{
			{Address: a.AsSlice(), Mac: aliceMAC[:], SeenAt: timestamppb.New(long), Present: true},
		}}))
	}
	claim(routed)
	if ep := w.endpointOf(routed); ep.AgentID != "victim" {
		t.Errorf("the routed host is %q's by a claim", ep.AgentID)
	}
	claim(printer) // a device sees it elsewhere
	if ep := w.endpointOf(printer); slices.Contains(ep.MACs, aliceMAC) {
		t.Error("the printer's address is alice's by a claim")
	}
	claim(free)
	if ep := w.endpointOf(free); ep.AgentID != "agent-a" {
		t.Errorf("alice's own further address is %+v", ep)
	}
	w.must(w.store.View(t.Context(), func(v store.View) error {
		bs, err := v.Bindings(free)
		if err == nil && (len(bs) != 1 || bs[0].From.Before(w.clock)) {
			t.Errorf("a claim reaches into the past: %v", bs)
		}
		return err
	}))
	w.clock = w.clock.Add(2 * time.Minute)
	w.neighbor(free, aliceMAC) // a device confirms it, and another agent cannot take it any more
	w.enrolled("agent-b")
	w.neighbor(bob, bobMAC)
	w.must(w.Observe(t.Context(), "agent-b", bob, &wirev1.ObserveRequest{Bindings: []*wirev1.AddressBinding{
		{Address: free.AsSlice(), Mac: bobMAC[:], Present: true},
	}}))
	if ep := w.endpointOf(free); ep.AgentID != "agent-a" {
		t.Errorf("an address that a device confirmed went to %q by a claim", ep.AgentID)
	}
	for n := range byte(200) {
		claim(netip.AddrFrom16([16]byte{0xfd, 0x77, 15: n}))
	}
	w.must(w.store.View(t.Context(), func(v store.View) error {
		bs, err := v.BindingsOfMAC(aliceMAC)
		if len(bs) > maxAgentBindings {
			t.Errorf("%d addresses on one MAC by an agent's word", len(bs))
		}
		return err
	}))
}

// twoQuarantines gives the dock, whose owner nobody knows, and alice one each.
func (w *world) twoQuarantines() (onDock, onAlice string) {
	w.t.Helper()
	w.neighbor(dock, dockMAC)
	onDock = w.alert(dock, event.Attacker, true).QuarantineID
	w.clock = w.clock.Add(time.Second)
	return onDock, w.uncleanable().QuarantineID
}

func TestJoinKeepsTheStrongerQuarantine(t *testing.T) {
	t.Run("a person's", func(t *testing.T) {
		w := newWorld(t, nil)
		w.neighbor(dock, dockMAC)
		q, err := w.QuarantineByPerson(t.Context(), w.endpointOf(dock).ID, threat.AccessNone, "seen it myself", "eve", 0)
		w.must(err)
		policys := w.uncleanable().QuarantineID
		w.observe("agent-a", dock, nil)
		got := w.quarantine(q.ID)
		if !got.State.Ordered() || got.Access != threat.AccessNone || got.Actor != "admin:eve" || !slices.Contains(got.MACs, aliceMAC) {
			t.Errorf("the person's quarantine: %+v", got)
		}
		if w.quarantine(policys).State.Active() {
			t.Error("policy's stands beside it")
		}
	})
	t.Run("the ordered one", func(t *testing.T) {
		w := newWorld(t, nil)
		for n := range byte(1) {
			w.neighbor(netip.AddrFrom4([4]byte{10, 77, 0, 20 + n}), endpoint.MAC{2, 0, 0, 0, 0, 20 + n})
			w.alert(netip.AddrFrom4([4]byte{10, 77, 0, 20 + n}), event.Attacker, true)
		}
		onDock, held := w.twoQuarantines()
		if got := w.quarantine(held).State; got != threat.QuarantineHeld {
			t.Fatalf("alice's is %s, want it held at the cap", got)
		}
		w.device(onDock, inForce)
		w.observe("agent-a", dock, nil)
		q := w.quarantine(onDock)
		if q.State != threat.QuarantineOrdered || !slices.Contains(q.MACs, aliceMAC) {
			t.Errorf("the one in force: %s of %v; want it ordered anew with both MACs", q.State, q.MACs)
		}
		if got := w.quarantine(held); got.State.Active() {
			t.Errorf("the held one: %s", got.State)
		}
	})
}

func TestAddedMACIsNotInForceYet(t *testing.T) {
	w := newWorld(t, nil)
	th := w.uncleanable()
	w.device(th.QuarantineID, inForce)
	w.neighbor(dock, dockMAC)
	w.observe("agent-a", dock, nil)
	if q := w.quarantine(th.QuarantineID); q.State != threat.QuarantineOrdered || len(q.MACs) != 2 {
		t.Errorf("%s of %v before a device read the new MAC back", q.State, q.MACs)
	}
	w.device(th.QuarantineID, inForce)
	if q := w.quarantine(th.QuarantineID); q.State != threat.QuarantineInForce {
		t.Errorf("%s after the read-back", q.State)
	}
}
