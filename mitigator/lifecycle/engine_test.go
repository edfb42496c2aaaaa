package lifecycle

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
	"github.com/cordon-security/cordon/mitigator/endpoint"
	"github.com/cordon-security/cordon/mitigator/event"
	"github.com/cordon-security/cordon/mitigator/fleet"
	"github.com/cordon-security/cordon/mitigator/intake"
	"github.com/cordon-security/cordon/mitigator/store"
	"github.com/cordon-security/cordon/mitigator/store/sqlite"
	"github.com/cordon-security/cordon/mitigator/threat"
	"google.golang.org/protobuf/types/known/timestamppb"
)

var errCap = errors.New("two quarantines stand")

// testGuard protects one MAC and lets two quarantines stand.
type testGuard struct{ protected endpoint.MAC }

func (g testGuard) Check(_ time.Time, e endpoint.Endpoint, _ []endpoint.Binding, _ []time.Time, active int) error {
	if slices.Contains(e.MACs, g.protected) {
		return errors.New("protected")
	}
	if active >= 2 {
		return errCap
	}
	return nil
}
func (testGuard) AtCap(err error) bool  { return errors.Is(err, errCap) }
func (testGuard) Window() time.Duration { return time.Hour }
func (testGuard) AtOnce() int           { return 2 }

// world is an engine on a real store, with a clock that the test moves.
type world struct {
	*Engine
	t     *testing.T
	clock time.Time
	kind  string // of the events
	woken []string
	// orders counts how often the devices were woken.
	orders int
}

var (
	start     = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	alice     = netip.MustParseAddr("10.77.0.10")
	printer   = netip.MustParseAddr("10.77.0.12")
	aliceMAC  = endpoint.MAC{2, 0, 0, 0, 0, 10}
	printMAC  = endpoint.MAC{2, 0, 0, 0, 0, 12}
	protected = endpoint.MAC{2, 0, 0, 0, 0, 1}
)

func newWorld(t *testing.T, change func(*threat.Policy)) *world {
	return newWorldIn(t, t.TempDir(), 0, change)
}

func newWorldIn(t *testing.T, dir string, reserve int64, change func(*threat.Policy)) *world {
	s, err := sqlite.OpenWith(t.Context(), filepath.Join(dir, "cordon.db"), sqlite.Options{Reserve: reserve})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	p := threat.DefaultPolicy()
	p.Mode = threat.Enforce
	if change != nil {
		change(&p)
	}
	w := &world{t: t, clock: start, kind: "suricata:1:1"}
	w.Engine, err = New(Options{
		Store: s, Policy: p, Guard: testGuard{protected}, Now: func() time.Time { return w.clock },
		WakeAgent: func(id string) { w.woken = append(w.woken, id) }, WakeDevices: func() { w.orders++ }, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	w.neighbor(alice, aliceMAC)
	w.neighbor(printer, printMAC)
	w.must(s.Update(t.Context(), func(tx store.Tx) error { return tx.AddAgent(fleet.Agent{ID: "agent-a", EnrolledAt: start}) }))
	w.must(w.Observe(t.Context(), "agent-a", alice, &wirev1.ObserveRequest{Hostname: "alice", Bindings: []*wirev1.AddressBinding{
		{Address: alice.AsSlice(), Mac: aliceMAC[:], Present: true},
	}}))
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) neighbor(a netip.Addr, m endpoint.MAC) {
	w.t.Helper()
	w.must(w.DeviceBindings(w.t.Context(), "local", []*wirev1.AddressBinding{
		{Address: a.AsSlice(), Mac: m[:], SeenAt: timestamppb.New(w.clock.Add(-time.Minute)), Present: true},
	}))
}

var keys byte

// alert brings an event of the address in and returns the threat that it fed.
func (w *world) alert(a netip.Addr, role event.Role, established bool) threat.Threat {
	w.t.Helper()
	keys++
	l := event.Local{Addr: a, Port: 4711, Remote: netip.MustParseAddrPort("198.51.100.66:443"), Outbound: true, Role: role,
		RoleReason: "test", Established: established, Proto: event.ProtoTCP}
	ev := event.Event{Source: "eve", Key: event.Key{keys}, Time: w.clock, Received: w.clock, Kind: w.kind, Signature: "C2",
		Severity: event.Critical, Proto: event.ProtoTCP, Src: netip.AddrPortFrom(a, 4711), Dst: l.Remote, Raw: []byte("{}")}
	b := intake.Batch{Source: "eve", Events: []event.Classified{{Event: ev, Disposition: event.Threat, Locals: []event.Local{l}}}, Cursor: []byte{keys}}
	w.must(w.Deliver(w.t.Context(), b))
	w.must(w.Deliver(w.t.Context(), b)) // the same batch again has no second effect
	return w.threats()[0]
}

func (w *world) threats() (ts []threat.Threat) {
	w.t.Helper()
	w.must(w.store.View(w.t.Context(), func(v store.View) (err error) {
		ts, err = v.Threats(false, 0, 0)
		return err
	}))
	return ts
}

func (w *world) quarantine(id string) (q threat.Quarantine) {
	w.t.Helper()
	w.must(w.store.View(w.t.Context(), func(v store.View) (err error) {
		q, err = v.Quarantine(id)
		return err
	}))
	return q
}

// answer reports on the agent's one open task.
func (w *world) answer(r *wirev1.TaskResult) {
	w.t.Helper()
	tasks, err := w.PendingTasks(w.t.Context(), "agent-a")
	if err != nil || len(tasks) != 1 {
		w.t.Fatalf("open tasks: %v, %v; want one", tasks, err)
	}
	r.TaskId = tasks[0].GetId()
	w.must(w.TaskDelivered(w.t.Context(), "agent-a", r.TaskId))
	if err := w.Report(w.t.Context(), "agent-b", r); !errors.Is(err, fleet.ErrNotYourTask) {
		w.t.Errorf("another agent's report: %v", err)
	}
	w.must(w.Report(w.t.Context(), "agent-a", r))
	w.must(w.Report(w.t.Context(), "agent-a", r)) // once more, as after a lost acknowledgement
}

func (w *world) device(id string, s wirev1.EnforcementState) {
	w.t.Helper()
	w.must(w.DeviceStatus(w.t.Context(), "local", []*wirev1.QuarantineStatus{{QuarantineId: id, State: s}}))
}

// wentThrough checks the newest threat's whole way, notes left out.
func (w *world) wentThrough(want ...threat.State) {
	w.t.Helper()
	var got []threat.State
	w.must(w.store.View(context.Background(), func(v store.View) error {
		line, err := v.Timeline(w.threats()[0].ID)
		for _, tr := range line {
			if tr.From != tr.To {
				got = append(got, tr.To)
			}
		}
		return err
	}))
	if !slices.Equal(got, want) {
		w.t.Errorf("the threat went through %v, want %v", got, want)
	}
}

const (
	inForce = wirev1.EnforcementState_ENFORCEMENT_STATE_IN_FORCE
	removed = wirev1.EnforcementState_ENFORCEMENT_STATE_REMOVED
)

func TestCleaned(t *testing.T) {
	w := newWorld(t, nil)
	w.alert(alice, event.Attacker, true)
	w.answer(&wirev1.TaskResult{Status: wirev1.TaskStatus_TASK_STATUS_DONE, Verdict: wirev1.Verdict_VERDICT_CONFIRMED})
	w.answer(&wirev1.TaskResult{Status: wirev1.TaskStatus_TASK_STATUS_DONE, Verdict: wirev1.Verdict_VERDICT_CONFIRMED})
	w.wentThrough(threat.Detected, threat.Assessing, threat.Confirmed, threat.Cleaning, threat.Resolved)
	if got := w.alert(alice, event.Attacker, true); got.State != threat.Resolved || got.EventCount != 2 {
		t.Errorf("an event from before the end: %s with %d events, want it counted with what ended", got.State, got.EventCount)
	}
	w.clock = w.clock.Add(time.Minute)
	if got := w.alert(alice, event.Attacker, true); got.State != threat.Assessing || len(w.threats()) != 2 {
		t.Errorf("an event after the end: %s, %d threats, want a new one", got.State, len(w.threats()))
	}
}

func TestUncleanableIsQuarantinedAndReleased(t *testing.T) {
	w := newWorld(t, nil)
	w.alert(alice, event.Attacker, true)
	w.answer(&wirev1.TaskResult{Status: wirev1.TaskStatus_TASK_STATUS_DONE, Verdict: wirev1.Verdict_VERDICT_CONFIRMED})
	w.answer(&wirev1.TaskResult{Status: wirev1.TaskStatus_TASK_STATUS_UNRESOLVED, Verdict: wirev1.Verdict_VERDICT_CONFIRMED, Reasons: []string{"it came back"}})
	th := w.threats()[0]
	if th.State != threat.Unresolved || w.quarantine(th.QuarantineID).State != threat.QuarantineOrdered {
		t.Fatalf("before the device answered: threat %s", th.State)
	}
	w.device(th.QuarantineID, inForce)
	w.wentThrough(threat.Detected, threat.Assessing, threat.Confirmed, threat.Cleaning, threat.Unresolved, threat.Quarantined)
	if _, err := w.ReleaseByPerson(t.Context(), th.EndpointID, "eve", "reinstalled"); err != nil {
		t.Fatal(err)
	}
	if got := w.quarantine(th.QuarantineID).State; got != threat.QuarantineReleasing {
		t.Errorf("released, not read back: %s", got)
	}
	w.device(th.QuarantineID, inForce) // an old status that crossed the release
	w.device(th.QuarantineID, removed)
	if q := w.quarantine(th.QuarantineID); q.State != threat.QuarantineEnded || q.EndedBy != "admin:eve" || q.Confirmation != "reinstalled" {
		t.Errorf("after the read-back: %+v", q)
	}
	if got := w.threats()[0].State; got != threat.Released {
		t.Errorf("threat %s, want released", got)
	}
}

func TestNobodyIsCutOffOnWeakEvidence(t *testing.T) {
	for name, c := range map[string]struct {
		role        event.Role
		established bool
		change      func(*threat.Policy)
	}{
		"a victim":                {event.Victim, true, nil},
		"a forged source":         {event.Attacker, false, nil},
		"an unknown role":         {event.Unknown, true, nil},
		"policy waits":            {event.Attacker, true, func(p *threat.Policy) { p.NoAgent = threat.ChooseWait }},
		"observe mode":            {event.Attacker, true, func(p *threat.Policy) { p.Mode = threat.Observe }},
		"contain first, a victim": {event.Victim, true, func(p *threat.Policy) { p.ContainFirst = []event.Severity{event.Critical} }},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, c.change)
			got := w.alert(printer, c.role, c.established)
			if got.State != threat.Unresolved || got.WaitingFor == "" {
				t.Errorf("state %s, waiting for %q; want it to wait for a person", got.State, got.WaitingFor)
			}
			w.must(w.store.View(t.Context(), func(v store.View) error {
				qs, head, err := v.Snapshot()
				if len(qs) != 0 || head != 0 {
					t.Errorf("the devices were ordered %v (revision %d)", qs, head)
				}
				return err
			}))
		})
	}
}

func TestContainFirstThenNotConfirmed(t *testing.T) {
	w := newWorld(t, func(p *threat.Policy) { p.ContainFirst = []event.Severity{event.Critical} })
	th := w.alert(alice, event.Attacker, true)
	if th.State != threat.Assessing || th.QuarantineID == "" {
		t.Fatalf("%s, quarantine %q; want it contained while assessed", th.State, th.QuarantineID)
	}
	w.device(th.QuarantineID, inForce)
	w.answer(&wirev1.TaskResult{Status: wirev1.TaskStatus_TASK_STATUS_DONE, Verdict: wirev1.Verdict_VERDICT_NOT_CONFIRMED})
	w.wentThrough(threat.Detected, threat.Assessing, threat.NotConfirmed)
	if got := w.quarantine(th.QuarantineID).State; got != threat.QuarantineReleasing {
		t.Errorf("quarantine %s after a clean assessment, want it released", got)
	}
}

func TestAgentAwayIsHeldAnHour(t *testing.T) {
	w := newWorld(t, nil)
	w.alert(alice, event.Attacker, true)
	w.clock = start.Add(59 * time.Minute)
	w.must(w.Sweep(t.Context()))
	w.wentThrough(threat.Detected, threat.Assessing)
	w.clock = start.Add(time.Hour)
	w.must(w.Sweep(t.Context()))
	w.wentThrough(threat.Detected, threat.Assessing, threat.Unresolved)
	if w.threats()[0].QuarantineID == "" {
		t.Error("policy did not quarantine an attacker whose agent was away")
	}
}

func TestGuard(t *testing.T) {
	w := newWorld(t, nil)
	for n := range byte(4) {
		w.clock = w.clock.Add(time.Second)
		w.neighbor(netip.AddrFrom4([4]byte{10, 77, 0, 20 + n}), endpoint.MAC{2, 0, 0, 0, 0, 20 + n})
		w.alert(netip.AddrFrom4([4]byte{10, 77, 0, 20 + n}), event.Attacker, true)
	}
	states := map[threat.QuarantineState]int{}
	ts := w.threats()
	for _, th := range ts {
		states[w.quarantine(th.QuarantineID).State]++
	}
	if states[threat.QuarantineOrdered] != 2 || states[threat.QuarantineHeld] != 2 {
		t.Errorf("quarantines %v, want two ordered and two held at the cap", states)
	}
	gone := ts[3]
	if _, err := w.ReleaseByPerson(t.Context(), gone.EndpointID, "eve", "clean"); err != nil {
		t.Fatal(err)
	}
	w.must(w.retryHeld(t.Context()))
	if got := w.quarantine(ts[1].QuarantineID).State; got != threat.QuarantineOrdered {
		t.Errorf("the oldest held quarantine is %s after one was released, want it ordered", got)
	}
	gateway := netip.MustParseAddr("10.77.0.1")
	w.neighbor(gateway, protected)
	th := w.alert(gateway, event.Attacker, true)
	if th.QuarantineID != "" || th.WaitingFor == "" {
		t.Errorf("a protected endpoint: quarantine %q, waiting for %q", th.QuarantineID, th.WaitingFor)
	}
}

func TestAddressResolvesToItsOwnerAtTheTime(t *testing.T) {
	w := newWorld(t, nil)
	w.clock = start.Add(time.Hour)
	bystander := endpoint.MAC{2, 0, 0, 0, 0, 99}
	w.neighbor(printer, bystander) // from a minute ago on
	th := w.alert(printer, event.Attacker, true)
	if q := w.quarantine(th.QuarantineID); len(q.MACs) != 1 || q.MACs[0] != bystander {
		t.Errorf("an alert of now quarantines %v, want the owner of now", q.MACs)
	}
	now := w.clock
	w.clock = start.Add(time.Minute) // an alert that came late, of the time before
	w.alert(printer, event.Attacker, true)
	w.clock = now
	q := w.quarantine(w.threats()[0].QuarantineID)
	if len(q.MACs) != 1 || q.MACs[0] != printMAC {
		t.Errorf("an alert of then quarantines %v, want the owner of then", q.MACs)
	}
}

func (w *world) endpointOf(a netip.Addr) (ep endpoint.Endpoint) {
	w.t.Helper()
	w.must(w.update(w.t.Context(), func(j *job) (err error) {
		ep, _, err = w.resolve(j, event.Local{Addr: a}, w.clock)
		return err
	}))
	return ep
}

func (w *world) observe(agent string, source netip.Addr, claims map[netip.Addr]endpoint.MAC) {
	w.t.Helper()
	o := &wirev1.ObserveRequest{Hostname: agent}
	for a, m := range claims {
		o.Bindings = append(o.Bindings, &wirev1.AddressBinding{Address: a.AsSlice(), Mac: m[:], Present: true})
	}
	o.Bindings = append(o.Bindings, &wirev1.AddressBinding{Address: []byte{172, 17, 0, 1}, Present: true}) // a tunnel has no MAC
	w.must(w.Observe(w.t.Context(), agent, source, o))
}

func TestAgentSpeaksOnlyForWhereItConnectsFrom(t *testing.T) {
	w := newWorld(t, nil)
	unseen := netip.MustParseAddr("10.77.0.77")
	unseenMAC := endpoint.MAC{2, 0, 0, 0, 0, 77}
	w.observe("agent-a", alice, map[netip.Addr]endpoint.MAC{alice: aliceMAC, printer: printMAC, unseen: unseenMAC})
	if ep := w.endpointOf(printer); ep.AgentID != "" {
		t.Errorf("the printer is %q's by that agent's word", ep.AgentID)
	}
	w.neighbor(unseen, unseenMAC)
	if ep := w.endpointOf(unseen); ep.AgentID != "" {
		t.Errorf("a machine that came later is %q's by that agent's word", ep.AgentID)
	}
	th := w.alert(alice, event.Attacker, true)
	w.answer(&wirev1.TaskResult{Status: wirev1.TaskStatus_TASK_STATUS_FAILED})
	if q := w.quarantine(w.threats()[0].QuarantineID); !slices.Equal(q.MACs, []endpoint.MAC{aliceMAC}) {
		t.Errorf("threat %d quarantines %v, want alice alone", th.ID, q.MACs)
	}
}

func TestAgentThatCameBeforeTheDeviceSawIt(t *testing.T) {
	w := newWorld(t, nil)
	carol, carolMAC := netip.MustParseAddr("10.77.0.30"), endpoint.MAC{2, 0, 0, 0, 0, 30}
	w.must(w.store.Update(t.Context(), func(tx store.Tx) error { return tx.AddAgent(fleet.Agent{ID: "carol", EnrolledAt: start}) }))
	w.observe("carol", carol, map[netip.Addr]endpoint.MAC{carol: carolMAC})
	if ep := w.endpointOf(carol); ep.AgentID != "carol" || len(ep.MACs) != 0 {
		t.Fatalf("before the device saw it: %+v, want it known by its address", ep)
	}
	w.neighbor(carol, carolMAC)
	if ep := w.endpointOf(carol); ep.AgentID != "carol" || !slices.Equal(ep.MACs, []endpoint.MAC{carolMAC}) {
		t.Errorf("after the device saw it: %+v", ep)
	}
	w.clock = w.clock.Add(time.Hour)
	bystander := endpoint.MAC{2, 0, 0, 0, 0, 31}
	w.neighbor(carol, bystander)
	if ep := w.endpointOf(carol); ep.AgentID != "" {
		t.Errorf("the next owner of the address has agent %q", ep.AgentID)
	}
}

func TestAddressAloneDoesNotPassToItsNextOwner(t *testing.T) {
	w := newWorld(t, nil)
	far := netip.MustParseAddr("10.77.0.40")
	w.observe("far", far, nil)
	w.clock = w.clock.Add(time.Hour)
	w.neighbor(far, endpoint.MAC{2, 0, 0, 0, 0, 40}) // an hour after the agent spoke from there
	if ep := w.endpointOf(far); ep.AgentID != "" {
		t.Errorf("a machine that came an hour later has agent %q", ep.AgentID)
	}
}

func TestEnrolledAnewTakesItsMachineOver(t *testing.T) {
	w := newWorld(t, nil)
	w.observe("agent-new", alice, map[netip.Addr]endpoint.MAC{alice: aliceMAC})
	if ep := w.endpointOf(alice); ep.AgentID != "agent-new" {
		t.Errorf("alice's agent is %q, want the one that speaks from there now", ep.AgentID)
	}
}

func TestContainmentOfOneThreatDoesNotHoldAnother(t *testing.T) {
	w := newWorld(t, func(p *threat.Policy) { p.ContainFirst = []event.Severity{event.Critical} })
	first := w.alert(alice, event.Attacker, true)
	w.device(first.QuarantineID, inForce)
	w.kind = "suricata:1:2"
	victim := w.alert(alice, event.Victim, true)
	tasks, err := w.PendingTasks(t.Context(), "agent-a")
	if err != nil || len(tasks) != 2 {
		t.Fatalf("open tasks: %v, %v; want one for each threat", tasks, err)
	}
	w.must(w.Report(t.Context(), "agent-a", &wirev1.TaskResult{TaskId: tasks[1].GetId(), Status: wirev1.TaskStatus_TASK_STATUS_FAILED}))
	if got := w.threats()[0]; got.ID != victim.ID || got.State != threat.Unresolved || got.QuarantineID != "" || got.WaitingFor == "" {
		t.Errorf("a victim on a contained endpoint: %s, quarantine %q, waiting for %q", got.State, got.QuarantineID, got.WaitingFor)
	}
	w.must(w.Report(t.Context(), "agent-a", &wirev1.TaskResult{TaskId: tasks[0].GetId(), Status: wirev1.TaskStatus_TASK_STATUS_DONE, Verdict: wirev1.Verdict_VERDICT_NOT_CONFIRMED}))
	if got := w.quarantine(first.QuarantineID).State; got != threat.QuarantineReleasing {
		t.Errorf("the quarantine is %s though its threat was not confirmed", got)
	}
}

func TestTwoQuarantinesOfOneMachineBecomeOne(t *testing.T) {
	w := newWorld(t, nil)
	dock, dockMAC := netip.MustParseAddr("10.77.0.50"), endpoint.MAC{2, 0, 0, 0, 0, 50}
	w.neighbor(dock, dockMAC)
	byDock := w.alert(dock, event.Attacker, true) // nobody knows yet whose it is
	w.alert(alice, event.Attacker, true)
	w.answer(&wirev1.TaskResult{Status: wirev1.TaskStatus_TASK_STATUS_FAILED})
	kept := w.threats()[0].QuarantineID
	if byDock.QuarantineID == "" || kept == "" || kept == byDock.QuarantineID {
		t.Fatalf("quarantines %q and %q, want two", byDock.QuarantineID, kept)
	}
	w.observe("agent-a", dock, nil) // alice speaks from the dock
	if q := w.quarantine(kept); !slices.Contains(q.MACs, aliceMAC) || !slices.Contains(q.MACs, dockMAC) || !q.State.Ordered() {
		t.Errorf("the one that stays: %s of %v", q.State, q.MACs)
	}
	if q := w.quarantine(byDock.QuarantineID); q.State != threat.QuarantineReleasing {
		t.Errorf("the other: %s", q.State)
	}
	if _, err := w.ReleaseByPerson(t.Context(), w.endpointOf(dock).ID, "eve", "clean"); err != nil {
		t.Fatal(err)
	}
	for _, th := range w.threats() {
		if th.State != threat.Released {
			t.Errorf("threat %d is %s after the release", th.ID, th.State)
		}
	}
}
