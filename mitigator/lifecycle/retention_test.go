package lifecycle

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
	"github.com/cordon-security/cordon/mitigator/endpoint"
	"github.com/cordon-security/cordon/mitigator/event"
	"github.com/cordon-security/cordon/mitigator/intake"
	"github.com/cordon-security/cordon/mitigator/store"
	"github.com/cordon-security/cordon/mitigator/threat"
)

func (w *world) retaining(change func(*store.Retention)) {
	w.t.Helper()
	r := store.DefaultRetention()
	change(&r)
	again, err := New(Options{Store: w.store, Policy: w.policy, Guard: w.guard, Retention: r, Now: func() time.Time { return w.clock },
		WakeAgent: w.wakeAgent, WakeDevices: w.wakeDevices, Log: w.log})
	w.must(err)
	w.Engine = again
}

type sizes struct{ events, endpoints, unknown, open int }

func (w *world) sizes() (s sizes) {
	w.t.Helper()
	w.must(w.store.View(w.t.Context(), func(v store.View) error {
		es, err := v.Events(0, 1e6)
		endpoints, err2 := v.CountEndpoints()
		unknown, err3 := v.CountUnknown(1e6)
		open, _, err4 := v.CountThreats()
		s = sizes{len(es), endpoints, unknown, open}
		return errors.Join(err, err2, err3, err4)
	}))
	return s
}

// forged is a batch of alerts, each from an address of its own that no device sees.
func (w *world) forged(first, n int) intake.Batch {
	b := intake.Batch{Source: "eve", Cursor: fmt.Append(nil, first+n)}
	for i := first; i < first+n; i++ {
		a := netip.AddrFrom4([4]byte{10, 78, byte(i >> 8), byte(i)})
		l := event.Local{Addr: a, Port: 4711, Remote: netip.MustParseAddrPort("198.51.100.66:53"), Outbound: true, Role: event.Attacker,
			RoleReason: "test", Proto: event.ProtoUDP}
		ev := event.Event{Source: "eve", Key: event.Key{9, byte(i), byte(i >> 8)}, Time: w.clock, Received: w.clock, Kind: "suricata:1:9", Signature: "forged",
			Severity: event.Critical, Proto: event.ProtoUDP, Src: netip.AddrPortFrom(a, 4711), Dst: l.Remote, Raw: []byte("{}")}
		b.Events = append(b.Events, event.Classified{Event: ev, Disposition: event.Threat, Locals: []event.Local{l}})
	}
	return b
}

func TestFloodOfForgedAddressesIsBounded(t *testing.T) {
	w := newWorld(t, nil)
	w.retaining(func(r *store.Retention) { r.MaxUnknown, r.MaxEvents = 300, 2000 })
	known := w.alert(printer, event.Attacker, true)
	for i := 0; i < floodSize; i += 250 {
		w.must(w.Deliver(t.Context(), w.forged(i, 250)))
		if i%5000 == 0 {
			w.must(w.retain(t.Context(), false))
		}
	}
	w.must(w.retain(t.Context(), false))
	got := w.sizes()
	if got.unknown != 300 || got.endpoints != 302 || got.open != 301 {
		t.Errorf("%+v after a flood, want 300 unknown endpoints, each with a threat, and the two that are known", got)
	}
	// What is open keeps its evidence: one event each.
	if most := 2000 + 301; got.events > most || got.events < 2000 {
		t.Errorf("%d events are kept, want 2000 and the evidence of open threats", got.events)
	}
	w.alarmed("300 addresses that no device sees have alerts")
	if !w.quarantine(known.QuarantineID).State.Ordered() {
		t.Error("the flood pushed a quarantine out")
	}
	w.must(w.store.View(t.Context(), func(v store.View) error {
		es, err := v.EventsOfThreat(known.ID, 0)
		n, _, err2 := v.SourceCounts("eve")
		if len(es) != 1 || n != floodSize+1 {
			t.Errorf("%d events of the known threat, %d counted", len(es), n)
		}
		return errors.Join(err, err2)
	}))
	// A machine that a device sees is not held up by it.
	w.neighbor(bob, bobMAC)
	if th := w.alert(bob, event.Attacker, true); th.QuarantineID == "" {
		t.Errorf("after the flood: %+v", th)
	}
	// Closed and old, they make room again.
	var all []threat.Threat
	w.must(w.store.View(t.Context(), func(v store.View) (err error) {
		all, err = v.Threats(true, 0, 1000)
		return err
	}))
	for _, th := range all {
		if th.Kind == "suricata:1:9" {
			w.must(w.CloseByPerson(t.Context(), th.ID, "eve", "forged"))
		}
	}
	w.clock = w.clock.Add(401 * 24 * time.Hour)
	w.must(w.retain(t.Context(), true))
	if got := w.sizes(); got.unknown != 0 {
		t.Errorf("after they were closed and grew old: %+v", got)
	}
	w.must(w.Deliver(t.Context(), w.forged(30_000, 1)))
	if got := w.sizes(); got.unknown != 1 {
		t.Errorf("a new one with room again: %+v", got)
	}
}

func TestForgedMACsGoBeforeTheirTime(t *testing.T) {
	w := newWorld(t, nil)
	w.retaining(func(r *store.Retention) { r.MaxEndpoints = 100 })
	var made []*wirev1.AddressBinding
	for n := range 1000 {
		made = append(made, &wirev1.AddressBinding{Address: []byte{10, 79, byte(n >> 8), byte(n)}, Mac: []byte{2, 9, 0, 0, byte(n >> 8), byte(n)},
			SeenAt: timestamppb.New(w.clock), Present: true})
	}
	w.must(w.DeviceBindings(t.Context(), "local", made))
	th := w.alert(printer, event.Attacker, true)
	w.clock = w.clock.Add(2 * time.Hour)
	w.neighbor(bob, bobMAC) // of now
	w.must(w.retain(t.Context(), true))
	got := w.sizes()
	if got.endpoints != 3 {
		t.Errorf("%+v, want alice (an agent), the printer (a threat) and bob (seen now)", got)
	}
	if ep := w.endpointOf(bob); len(ep.MACs) != 1 {
		t.Errorf("bob: %+v", ep)
	}
	if !w.quarantine(th.QuarantineID).State.Ordered() {
		t.Error("a quarantine went")
	}
}

func TestMACsOfOneEndpointAreBounded(t *testing.T) {
	w := newWorld(t, nil)
	th := w.uncleanable()
	var last endpoint.MAC
	for n := range byte(maxQuarantineMACs + 6) {
		w.clock = w.clock.Add(time.Second)
		a := netip.AddrFrom4([4]byte{10, 77, 1, n})
		last = endpoint.MAC{2, 7, 0, 0, 0, n}
		w.neighbor(a, last)
		w.observe("agent-a", a, nil)
	}
	ep := w.mustEndpoint(last)
	if ep.AgentID != "agent-a" || len(ep.MACs) != maxMACs {
		t.Errorf("agent %q on %d MACs, want it on %d with the last one", ep.AgentID, len(ep.MACs), maxMACs)
	}
	q := w.quarantine(th.QuarantineID)
	if len(q.MACs) != maxQuarantineMACs || q.MACs[len(q.MACs)-1] != last || q.State != threat.QuarantineOrdered {
		t.Errorf("the quarantine covers %d MACs, the last %v; want %d and the newest", len(q.MACs), q.MACs[len(q.MACs)-1], maxQuarantineMACs)
	}
	if again := w.quarantine(th.QuarantineID); w.orders == 0 || len(again.MACs) != len(q.MACs) {
		t.Error("the devices were not told")
	}
	if _, err := w.ReleaseByPerson(t.Context(), ep.ID, "eve", "clean"); err != nil {
		t.Errorf("a release: %v", err)
	}
}

func TestRetentionLeavesWhatIsOpen(t *testing.T) {
	w := newWorld(t, nil)
	w.retaining(func(*store.Retention) {})
	th := w.uncleanable()
	w.device(th.QuarantineID, inForce)
	victim := w.alert(printer, event.Victim, true)
	w.clock = w.clock.Add(5 * 365 * 24 * time.Hour)
	w.must(w.retain(t.Context(), true))
	if got := w.sizes(); got.events != 2 || got.endpoints != 2 || got.open != 2 {
		t.Errorf("%+v after five years, want what is open and what it needs", got)
	}
	w.must(w.CloseByPerson(t.Context(), victim.ID, "eve", "patched"))
	_, err := w.ReleaseByPerson(t.Context(), th.EndpointID, "eve", "reinstalled")
	w.must(err)
	w.clock = w.clock.Add(401 * 24 * time.Hour)
	w.must(w.retain(t.Context(), true))
	if got := w.quarantine(th.QuarantineID).State; got != threat.QuarantineReleasing {
		t.Errorf("a release that no device confirmed: %s", got)
	}
	w.device(th.QuarantineID, removed)
	if got := w.threats()[0]; !got.EndedAt.Before(w.clock) {
		t.Errorf("a late note moved the threat's end to %v", got.EndedAt)
	}
	w.must(w.retain(t.Context(), true))
	if got := w.threats(); len(got) != 0 {
		t.Errorf("threats %+v after their time", got)
	}
	if got := w.sizes(); got.events != 0 || got.endpoints != 1 {
		t.Errorf("%+v after their time, want the endpoint with the agent alone", got)
	}
}

func TestClockThatWasSet(t *testing.T) {
	for name, c := range map[string]struct {
		wall, elapsed time.Duration
		want          bool
	}{
		"an hour went by":      {time.Hour, time.Hour, false},
		"set by a minute":      {time.Hour + time.Minute, time.Hour, false},
		"set a year ahead":     {365 * 24 * time.Hour, time.Minute, true},
		"set two hours behind": {-2 * time.Hour, time.Minute, true},
	} {
		if got := ahead(c.wall, c.elapsed).Abs() > clockSlack; got != c.want {
			t.Errorf("%s: jumped %v, want %v", name, got, c.want)
		}
	}
}

func TestRetentionValidate(t *testing.T) {
	if err := store.DefaultRetention().Validate(); err != nil {
		t.Error(err)
	}
	if err := (store.Retention{}).Validate(); err != nil {
		t.Errorf("for ever: %v", err)
	}
	err := store.Retention{Events: time.Minute, MaxUnknown: -1}.Validate()
	if err == nil || !strings.Contains(err.Error(), "retention.events") || !strings.Contains(err.Error(), "retention.max_unknown") {
		t.Errorf("a minute, and less than none: %v", err)
	}
}
