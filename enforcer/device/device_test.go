package device

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cordon-security/cordon/enforcer/desired"
	"github.com/cordon-security/cordon/enforcer/neighbor"
	"github.com/cordon-security/cordon/enforcer/reconcile"
	"github.com/cordon-security/cordon/internal/guard"
	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

// fakeMethod enforces in memory, and fails when told to.
type fakeMethod struct {
	mu   sync.Mutex
	have map[reconcile.Member]desired.Access
	fail error
	// keep makes it never free what is not asked for by name.
	keep bool
}

func (f *fakeMethod) Name() string { return "fake" }

func bare(m reconcile.Member) reconcile.Member {
	return reconcile.Member{MAC: m.MAC, Address: m.Address}
}

func (f *fakeMethod) Ensure(ms []reconcile.Member) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return f.fail
	}
	for _, m := range ms {
		f.have[bare(m)] = m.Access
	}
	return nil
}

func (f *fakeMethod) Remove(ms []reconcile.Member) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return f.fail
	}
	for _, m := range ms {
		delete(f.have, bare(m))
	}
	return nil
}

func (f *fakeMethod) ReadBack(ms []reconcile.Member) ([]bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]bool, len(ms))
	for i, m := range ms {
		out[i] = f.have[bare(m)] == m.Access
	}
	return out, nil
}

func (f *fakeMethod) Prune(want reconcile.Wanted, keep bool) (reconcile.Report, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var r reconcile.Report
	if f.fail != nil {
		return r, f.fail
	}
	for m := range f.have {
		if want.Access(m) == 0 && !keep && !f.keep {
			delete(f.have, m)
			r.Removed++
		}
	}
	want.Each(func(m reconcile.Member) {
		if f.have[bare(m)] != m.Access {
			f.have[bare(m)] = m.Access
			r.Added++
		}
	})
	return r, nil
}

func (f *fakeMethod) Repair() ([]string, bool, error) { return nil, false, f.fail }

func (f *fakeMethod) Count() (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.have), nil
}

func (f *fakeMethod) Clear() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return f.fail
	}
	clear(f.have)
	return nil
}

func (f *fakeMethod) set(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = err
}

func (f *fakeMethod) access(m reconcile.Member) desired.Access {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.have[m]
}

func memberOf(m guard.MAC) reconcile.Member { return reconcile.Member{MAC: m} }

type noFlows struct{}

func (noFlows) End([]netip.Addr) error { return nil }

// locals is what a machine says of itself; learned MACs it takes up as a machine
// does, which skips those that are suspect.
type locals []guard.Protected

func (l locals) Protected(suspect func(guard.MAC) bool) (out []guard.Protected, _ error) {
	for _, p := range l {
		if !p.Learned || !suspect(p.MAC) {
			out = append(out, p)
		}
	}
	return out, nil
}

// fixed is what a machine learned before it was suspect.
type fixed []guard.Protected

func (l fixed) Protected(func(guard.MAC) bool) ([]guard.Protected, error) { return l, nil }

// fixture is a device whose clock and kernel the test holds.
type fixture struct {
	*testing.T
	dir    string
	now    time.Time
	method *fakeMethod
	limit  guard.Cap
	locals Locals
	device *Device
	svc    *Service
	number uint64
}

func newFixture(t *testing.T) *fixture {
	f := &fixture{T: t, dir: t.TempDir(), now: time.Date(2026, 11, 24, 12, 0, 1, 0, time.UTC),
		method: &fakeMethod{have: map[reconcile.Member]desired.Access{}}, locals: locals{}}
	t.Cleanup(func() { _ = f.device.Close() })
	return f
}

func (f *fixture) start() *fixture {
	f.Helper()
	f.open()
	if err := f.device.Start(); err != nil {
		f.Fatal(err)
	}
	return f
}

// open is start up to what changes the kernel.
func (f *fixture) open() {
	f.Helper()
	if f.device != nil {
		_ = f.device.Close()
	}
	d, err := New(Options{Name: "test", StateDir: f.dir, Cap: f.limit, Method: f.method, Flows: noFlows{}, Locals: f.locals,
		Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return f.now }})
	if err != nil {
		f.Fatal(err)
	}
	f.device, f.svc = d, NewService(d)
}

func mac(n byte) guard.MAC { return guard.MAC{2, 0, 0, 0, 0, n} }

func quarantine(n byte, addresses ...string) *wirev1.Quarantine {
	m := mac(n)
	q := &wirev1.Quarantine{Id: fmt.Sprintf("q%d", n), Macs: [][]byte{m[:]}, Access: wirev1.Access_ACCESS_NONE, Reason: "test"}
	for _, a := range addresses {
		q.Bindings = append(q.Bindings, &wirev1.AddressBinding{Address: netip.MustParseAddr(a).AsSlice(), Mac: m[:],
			SeenAt: timestamppb.New(time.Date(2026, 11, 24, 11, 0, 0, 0, time.UTC)), Present: true})
	}
	return q
}

func rev(epoch, number uint64) *wirev1.Revision {
	return &wirev1.Revision{Epoch: epoch, Number: number}
}

func put(q *wirev1.Quarantine) *wirev1.Change {
	return &wirev1.Change{Change: &wirev1.Change_Put{Put: q}}
}

func remove(id string) *wirev1.Change {
	return &wirev1.Change{Change: &wirev1.Change_Remove{Remove: id}}
}

func (f *fixture) delta(base, to *wirev1.Revision, changes ...*wirev1.Change) *wirev1.ApplyResponse {
	f.Helper()
	r, err := f.svc.Apply(context.Background(), connect.NewRequest(&wirev1.ApplyRequest{Order: &wirev1.ApplyRequest_Delta{
		Delta: &wirev1.Delta{Base: base, Revision: to, Changes: changes}}}))
	if err != nil {
		f.Fatal(err)
	}
	return r.Msg
}

func (f *fixture) snapshot(to *wirev1.Revision, part uint32, last bool, qs ...*wirev1.Quarantine) *wirev1.ApplyResponse {
	f.Helper()
	r, err := f.svc.Apply(context.Background(), connect.NewRequest(&wirev1.ApplyRequest{Order: &wirev1.ApplyRequest_Snapshot{
		Snapshot: &wirev1.Snapshot{Revision: to, Part: part, Last: last, Quarantines: qs}}}))
	if err != nil {
		f.Fatal(err)
	}
	return r.Msg
}

// order applies changes on what is held.
func (f *fixture) order(changes ...*wirev1.Change) *wirev1.ApplyResponse {
	f.Helper()
	f.number++
	r := f.delta(rev(0, f.number-1), rev(0, f.number), changes...)
	if r.GetNeedSnapshot() {
		f.Fatalf("the order did not fit: %s", r.GetDetail())
	}
	return r
}

func (f *fixture) state(id string) string {
	f.Helper()
	r, err := f.svc.Status(context.Background(), connect.NewRequest(&wirev1.StatusRequest{}))
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range r.Msg.GetStatuses() {
		if s.GetQuarantineId() == id {
			return s.GetState().String()[len("ENFORCEMENT_STATE_"):]
		}
	}
	return "ABSENT"
}

func (f *fixture) detail(id string) string {
	f.Helper()
	r, err := f.svc.Status(context.Background(), connect.NewRequest(&wirev1.StatusRequest{}))
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range r.Msg.GetStatuses() {
		if s.GetQuarantineId() == id {
			return s.GetDetail()
		}
	}
	return ""
}

func (f *fixture) expect(want map[string]string) {
	f.Helper()
	for id, state := range want {
		if got := f.state(id); got != state {
			f.Errorf("%s is %s, want %s", id, got, state)
		}
	}
}

func (f *fixture) blocked(want bool, ms ...reconcile.Member) {
	f.Helper()
	for _, m := range ms {
		if got := f.method.access(m) != 0; got != want {
			f.Errorf("%s blocked: %t, want %t", m, got, want)
		}
	}
}

func address(s string) reconcile.Member { return addressMember(netip.MustParseAddr(s)) }

func (f *fixture) seen(a string, n byte) {
	f.device.Observe(neighbor.Observation{Address: netip.MustParseAddr(a), MAC: mac(n), Seen: f.now, Present: true})
}

func TestOrderContract(t *testing.T) {
	f := newFixture(t).start()
	if r := f.delta(rev(1, 4), rev(1, 5), put(quarantine(1))); !r.GetNeedSnapshot() || r.GetDetail() == "" {
		t.Fatalf("a gap: %v", r)
	}
	f.expect(map[string]string{"q1": "ABSENT"})
	if r := f.snapshot(rev(1, 5), 0, false, quarantine(1)); r.GetNeedSnapshot() || len(r.GetStatuses()) > 0 {
		t.Fatalf("first part: %v", r)
	}
	f.expect(map[string]string{"q1": "ABSENT"})
	if r := f.snapshot(rev(1, 5), 2, true, quarantine(2)); !r.GetNeedSnapshot() {
		t.Fatalf("a part out of turn: %v", r)
	}
	f.snapshot(rev(1, 5), 0, false, quarantine(1))
	if r := f.snapshot(rev(1, 5), 1, true, quarantine(2)); r.GetNeedSnapshot() || len(r.GetStatuses()) != 2 || r.GetHeld().GetNumber() != 5 {
		t.Fatalf("last part: %v", r)
	}
	f.expect(map[string]string{"q1": "IN_FORCE", "q2": "IN_FORCE"})
	if r := f.delta(rev(1, 5), rev(1, 6), put(quarantine(3)), remove("q1")); r.GetNeedSnapshot() || len(r.GetStatuses()) != 2 {
		t.Fatalf("delta: %v", r)
	}
	if r := f.delta(rev(1, 5), rev(1, 6), put(quarantine(3)), remove("q1")); r.GetNeedSnapshot() || len(r.GetStatuses()) != 2 {
		t.Fatalf("the same delta again: %v", r)
	}
	for name, r := range map[string]*wirev1.ApplyResponse{
		"older delta":               f.delta(rev(1, 4), rev(1, 5), put(quarantine(9))),
		"older snapshot":            f.snapshot(rev(1, 2), 0, true, quarantine(9)),
		"delta of an older epoch":   f.delta(rev(0, 6), rev(0, 9), put(quarantine(9))),
		"delta into a newer epoch":  f.delta(rev(1, 6), rev(2, 1), put(quarantine(9))),
		"delta on what is not held": f.delta(rev(1, 7), rev(1, 8), put(quarantine(9))),
	} {
		if !r.GetNeedSnapshot() || r.GetDetail() == "" || r.GetHeld().GetNumber() != 6 || r.GetHeld().GetEpoch() != 1 {
			t.Errorf("%s: %v", name, r)
		}
	}
	f.expect(map[string]string{"q1": "ABSENT", "q2": "IN_FORCE", "q3": "IN_FORCE", "q9": "ABSENT"})
	f.snapshot(rev(2, 1), 0, true, quarantine(3))
	f.expect(map[string]string{"q2": "ABSENT", "q3": "IN_FORCE"})
	f.blocked(false, memberOf(mac(1)), memberOf(mac(2)))
	f.start().expect(map[string]string{"q2": "ABSENT", "q3": "IN_FORCE"})
}

// TestAnotherOrderUnderAHeldRevision must not be acknowledged.
func TestAnotherOrderUnderAHeldRevision(t *testing.T) {
	f := newFixture(t).start()
	end := f.now.Add(time.Hour)
	f.snapshot(rev(1, 1), 0, true, quarantine(9))
	first := []*wirev1.Change{put(until(naming("a", 1, 2), end)), put(until(naming("old", 3), f.now)), remove("q9")}
	f.delta(rev(1, 1), rev(1, 2), first...)
	if r := f.delta(rev(1, 1), rev(1, 2), first...); r.GetNeedSnapshot() || len(r.GetStatuses()) != 3 {
		t.Errorf("the same order: %v", r)
	}
	limited := until(naming("a", 1, 2), end)
	limited.Access = wirev1.Access_ACCESS_LIMITED
	for name, c := range map[string]*wirev1.Change{
		"another id":      put(naming("b", 1)),
		"another MAC":     put(until(naming("a", 1, 3), end)),
		"a MAC more":      put(until(naming("a", 1, 2, 3), end)),
		"a MAC less":      put(until(naming("a", 1), end)),
		"another end":     put(until(naming("a", 1, 2), end.Add(1))),
		"no end":          put(naming("a", 1, 2)),
		"an end long ago": put(until(naming("a", 1, 2), f.now.Add(-time.Hour))),
		"another access":  put(limited),
		"removed":         remove("a"),
	} {
		if r := f.delta(rev(1, 1), rev(1, 2), c); !r.GetNeedSnapshot() || r.GetDetail() == "" {
			t.Errorf("%s: %v", name, r)
		}
	}
	f.expect(map[string]string{"a": "IN_FORCE", "b": "ABSENT"})
}

func TestTooMuch(t *testing.T) {
	f := newFixture(t).start()
	f.device.most = 3
	f.order(put(quarantine(1)), put(quarantine(2)))
	if r := f.delta(rev(0, 1), rev(0, 2), put(quarantine(3)), put(quarantine(4))); !r.GetNeedSnapshot() {
		t.Errorf("a delta over the bound: %v", r)
	}
	f.order(put(quarantine(3)), put(quarantine(4)), put(quarantine(2)), remove("q1"), remove("never there"))
	f.expect(map[string]string{"q1": "ABSENT", "q2": "IN_FORCE", "q3": "IN_FORCE", "q4": "IN_FORCE"})
	if r := f.snapshot(rev(0, 9), 0, true, quarantine(1), quarantine(2), quarantine(3), quarantine(4)); !r.GetNeedSnapshot() {
		t.Errorf("a snapshot over the bound: %v", r)
	}
	f.device.mostStaged = 4 << 10
	large := quarantine(1)
	large.Reason = strings.Repeat("x", 1<<10)
	for part := range uint32(3) {
		if r := f.snapshot(rev(0, 9), part, false, large); r.GetNeedSnapshot() {
			t.Fatalf("part %d: %v", part, r)
		}
	}
	if r := f.snapshot(rev(0, 9), 3, false, large); !r.GetNeedSnapshot() || len(f.device.staging.puts) != 0 {
		t.Errorf("parts over the bound: %v", r)
	}
	f.expect(map[string]string{"q1": "ABSENT", "q2": "IN_FORCE", "q3": "IN_FORCE", "q4": "IN_FORCE"})
}

func TestBadOrders(t *testing.T) {
	f := newFixture(t).start()
	none, bad, unknown, expiry := quarantine(1), quarantine(2), quarantine(3), quarantine(4)
	none.Macs, bad.Macs, unknown.Access = nil, [][]byte{{1, 2}}, 77
	expiry.ExpiresAt = &timestamppb.Timestamp{Nanos: -1}
	f.order(put(none), put(bad), put(unknown), put(expiry), put(quarantine(5)))
	f.expect(map[string]string{"q1": "REFUSED", "q2": "REFUSED", "q3": "REFUSED", "q4": "REFUSED", "q5": "IN_FORCE"})
	for _, req := range []*wirev1.ApplyRequest{{}, {Order: &wirev1.ApplyRequest_Delta{Delta: &wirev1.Delta{}}},
		{Order: &wirev1.ApplyRequest_Delta{Delta: &wirev1.Delta{Revision: rev(0, 9), Changes: []*wirev1.Change{put(&wirev1.Quarantine{})}}}},
		{Order: &wirev1.ApplyRequest_Delta{Delta: &wirev1.Delta{Base: rev(0, 1), Revision: rev(0, 2), Changes: []*wirev1.Change{remove(strings.Repeat("x", 257))}}}}} {
		if _, err := f.svc.Apply(context.Background(), connect.NewRequest(req)); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%v: %v", req, err)
		}
	}
}

func TestProtected(t *testing.T) {
	f := newFixture(t)
	f.locals = locals{{MAC: mac(1), Origin: "test"}, {Prefix: netip.MustParsePrefix("10.0.0.1/32"), Origin: "test"}}
	f.start()
	f.order(put(quarantine(1)), put(quarantine(2, "10.0.0.1")), put(quarantine(3, "10.0.0.1", "10.0.0.3")), put(quarantine(4, "10.0.0.4")))
	f.expect(map[string]string{"q1": "REFUSED", "q2": "REFUSED", "q3": "REFUSED", "q4": "IN_FORCE"})
	f.blocked(false, memberOf(mac(1)), memberOf(mac(2)), memberOf(mac(3)), address("10.0.0.1"))
	// Who is quarantined is not freed by a claim, and the address stays free.
	f.seen("10.0.0.1", 4)
	f.order(put(quarantine(4, "10.0.0.4")))
	f.expect(map[string]string{"q4": "IN_FORCE"})
	f.blocked(true, memberOf(mac(4)), address("10.0.0.4"))
	f.blocked(false, address("10.0.0.1"))
}

// TestProtectedMachineAndItsImpostor holds that a machine with a protected address
// is not cut off, whatever other addresses it has and although the order names
// none, and that one who took the address from it a moment ago is.
func TestProtectedMachineAndItsImpostor(t *testing.T) {
	f := newFixture(t)
	f.locals = locals{{Prefix: netip.MustParsePrefix("10.0.0.1/32"), Origin: "test"}}
	f.start()
	f.seen("10.0.0.1", 1)
	f.seen("fe80::1", 1)
	f.order(put(quarantine(1)))
	f.expect(map[string]string{"q1": "REFUSED"})
	f.blocked(false, memberOf(mac(1)), address("10.0.0.1"), address("fe80::1"))
	f.now = f.now.Add(time.Second)
	f.seen("10.0.0.2", 2)
	f.seen("10.0.0.1", 2)
	f.order(put(quarantine(2)))
	f.expect(map[string]string{"q2": "IN_FORCE"})
	f.blocked(true, memberOf(mac(2)), address("10.0.0.2"))
	f.blocked(false, address("10.0.0.1"))
}

// TestLearnedMACFreesNobody: who makes the network say that it is the gateway is
// not freed by that, and a true gateway is never cut off.
func TestLearnedMACFreesNobody(t *testing.T) {
	for name, claim := range map[string]Locals{
		"claimed while quarantined": locals{{MAC: mac(1), Origin: "gateway", Learned: true}},
		"learned by a race":         fixed{{MAC: mac(1), Origin: "gateway", Learned: true}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t).start()
			f.order(put(quarantine(1, "10.0.0.1")))
			f.device.opts.Locals = claim
			f.now = f.now.Add(time.Minute)
			f.device.tend()
			f.expect(map[string]string{"q1": "IN_FORCE"})
			f.blocked(true, memberOf(mac(1)), address("10.0.0.1"))
			f.locals = claim
			f.start().expect(map[string]string{"q1": "IN_FORCE"})
			f.blocked(true, memberOf(mac(1)), address("10.0.0.1"))
		})
	}
	f := newFixture(t)
	f.locals = fixed{{MAC: mac(1), Origin: "gateway", Learned: true}}
	f.start()
	f.order(put(quarantine(1)))
	f.expect(map[string]string{"q1": "REFUSED"})
	f.blocked(false, memberOf(mac(1)))
}

func TestCapHoldsAndLetsInLater(t *testing.T) {
	f := newFixture(t)
	f.limit = guard.Cap{New: 2, Window: time.Hour}
	f.start()
	f.order(put(quarantine(1)), put(quarantine(2)), put(quarantine(3)))
	f.expect(map[string]string{"q1": "IN_FORCE", "q2": "IN_FORCE", "q3": "HELD"})
	f.blocked(false, memberOf(mac(3)))
	f.order(remove("q1"))
	f.expect(map[string]string{"q3": "HELD"})
	// The window survives a restart, and what was in it may come again.
	f.start().expect(map[string]string{"q2": "IN_FORCE", "q3": "HELD"})
	f.order(put(quarantine(1)))
	f.expect(map[string]string{"q1": "IN_FORCE", "q3": "HELD"})
	f.now = f.now.Add(61 * time.Minute)
	f.device.tend()
	f.expect(map[string]string{"q3": "IN_FORCE"})

	g := newFixture(t)
	g.limit = guard.Cap{AtOnce: 1}
	g.start()
	g.order(put(quarantine(1)), put(quarantine(2)))
	g.expect(map[string]string{"q1": "IN_FORCE", "q2": "HELD"})
	g.order(remove("q1"))
	g.expect(map[string]string{"q2": "IN_FORCE"})
}

func TestExpiry(t *testing.T) {
	f := newFixture(t).start()
	q := quarantine(1, "10.0.0.1")
	q.ExpiresAt = timestamppb.New(f.now.Add(time.Minute))
	f.order(put(q), put(quarantine(2)))
	f.start().expect(map[string]string{"q1": "IN_FORCE"})
	sub, _ := f.device.subscribe()
	f.now = f.now.Add(2 * time.Hour) // as by a clock that was set
	f.device.tend()
	f.expect(map[string]string{"q1": "ABSENT", "q2": "IN_FORCE"})
	f.blocked(false, memberOf(mac(1)), address("10.0.0.1"))
	if s := (<-sub.events).GetStatus(); s.GetQuarantineId() != "q1" || s.GetState() != wirev1.EnforcementState_ENFORCEMENT_STATE_EXPIRED {
		t.Errorf("told %v", s)
	}
	f.now = f.now.Add(-2 * time.Hour)
	if r := f.order(put(quarantine(3))); len(r.GetStatuses()) != 1 {
		t.Error(r)
	}
	f.now = f.now.Add(2 * time.Hour)
	if r := f.order(put(q)); r.GetStatuses()[0].GetState() != wirev1.EnforcementState_ENFORCEMENT_STATE_EXPIRED {
		t.Errorf("ordered after its end: %v", r)
	}
}

// TestExpiryDuringBreakGlass: what ended meanwhile is told as ended, also after a
// restart, and never as in force.
func TestExpiryDuringBreakGlass(t *testing.T) {
	for name, during := range map[string]func(f *fixture){
		"running":                     func(f *fixture) { f.device.tend() },
		"restarted":                   func(f *fixture) { f.start() },
		"resumed at once":             func(*fixture) {},
		"restarted after it is over":  func(f *fixture) { _ = os.Remove(filepath.Join(f.dir, "break-glass")); f.start() },
		"asked before the clock tick": func(f *fixture) { f.device.judgeAll(f.now); f.expect(map[string]string{"q1": "PENDING"}) },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t).start()
			f.order(put(until(quarantine(1, "10.0.0.1"), f.now.Add(time.Minute))), put(quarantine(2)))
			sub, _ := f.device.subscribe()
			if _, _, err := f.device.ReleaseAll("eve", "fire"); err != nil {
				t.Fatal(err)
			}
			f.now = f.now.Add(time.Hour)
			during(f)
			if name == "running" {
				told := false
				for len(sub.events) > 0 {
					s := (<-sub.events).GetStatus()
					told = told || s.GetQuarantineId() == "q1" && s.GetState() == wirev1.EnforcementState_ENFORCEMENT_STATE_EXPIRED
				}
				if !told {
					t.Error("its end was not told")
				}
			}
			if name != "resumed at once" && name != "asked before the clock tick" {
				f.expect(map[string]string{"q1": "ABSENT"})
			}
			if err := f.device.Resume("eve"); err != nil {
				t.Fatal(err)
			}
			f.expect(map[string]string{"q1": "ABSENT", "q2": "IN_FORCE"})
			f.blocked(false, memberOf(mac(1)), address("10.0.0.1"))
		})
	}
}

// TestExpiryWhileBreakGlassFails: what cannot be lifted is not told as gone.
func TestExpiryWhileBreakGlassFails(t *testing.T) {
	f := newFixture(t).start()
	f.order(put(until(quarantine(1, "10.0.0.1"), f.now.Add(time.Minute))))
	f.method.set(errors.New("kernel says no"))
	if _, _, err := f.device.ReleaseAll("eve", "fire"); err == nil {
		t.Fatal("lifted without the kernel")
	}
	sub, _ := f.device.subscribe()
	gone := func() bool {
		for len(sub.events) > 0 {
			if s := (<-sub.events).GetStatus(); s.GetState() == wirev1.EnforcementState_ENFORCEMENT_STATE_EXPIRED {
				return true
			}
		}
		return false
	}
	f.now = f.now.Add(time.Hour)
	f.device.tend()
	if gone() {
		t.Error("told as gone while it stands")
	}
	f.method.set(nil)
	f.device.tend()
	if !gone() {
		t.Error("not told when it went")
	}
	f.blocked(false, memberOf(mac(1)), address("10.0.0.1"))
}

// TestExpiredWhileDown: a quarantine that ended while the device was down is gone
// when it is back, before anybody can ask.
func TestExpiredWhileDown(t *testing.T) {
	f := newFixture(t).start()
	f.order(put(until(quarantine(1, "10.0.0.1"), f.now.Add(time.Minute))))
	f.now = f.now.Add(time.Hour)
	f.start().expect(map[string]string{"q1": "ABSENT"})
	f.blocked(false, memberOf(mac(1)), address("10.0.0.1"))
}

// TestExpiryBeyondNanoseconds: a time that nanoseconds cannot count is neither
// past when it is far, nor without end when it is long ago.
func TestExpiryBeyondNanoseconds(t *testing.T) {
	for at, want := range map[string]string{
		"9999-12-31T23:59:59Z": "IN_FORCE", "2262-04-11T23:47:16Z": "IN_FORCE", "2262-04-11T23:47:17Z": "IN_FORCE", "2500-01-01T00:00:00Z": "IN_FORCE",
		"1970-01-01T00:00:00Z": "ABSENT", "1969-12-31T23:59:59Z": "ABSENT", "0001-01-01T00:00:00Z": "ABSENT",
		"2026-11-24T12:00:01Z": "ABSENT", "2026-11-24T12:00:02Z": "IN_FORCE",
	} {
		f := newFixture(t).start()
		when, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		q := until(quarantine(1, "10.0.0.1"), when)
		q.Bindings[0].SeenAt = timestamppb.New(when)
		r := f.order(put(q))
		if got := f.state("q1"); got != want {
			t.Errorf("%s: %s, want %s", at, got, want)
		}
		if want == "ABSENT" && r.GetStatuses()[0].GetState() != wirev1.EnforcementState_ENFORCEMENT_STATE_EXPIRED {
			t.Errorf("%s: told %v", at, r)
		}
		f.start()
		f.device.tend()
		f.expect(map[string]string{"q1": want})
	}
}

func TestAddressesAreFollowed(t *testing.T) {
	f := newFixture(t).start()
	f.seen("10.0.0.9", 9)
	f.order(put(quarantine(1, "10.0.0.1", "10.0.0.9")))
	f.blocked(true, address("10.0.0.1"))
	f.blocked(false, address("10.0.0.9")) // this device sees it at somebody else
	f.seen("10.0.0.2", 1)
	f.seen("fd00::2", 1)
	f.blocked(true, address("10.0.0.2"), address("fd00::2"))
	// The next owner of an address is never blocked, also after a restart.
	f.seen("10.0.0.1", 7)
	f.blocked(false, address("10.0.0.1"))
	f.start()
	f.blocked(false, address("10.0.0.1"))
	f.blocked(true, memberOf(mac(1)), address("10.0.0.2"))
	// A cut-off endpoint is silent; its address stays for a while.
	f.seen("10.0.0.2", 1)
	f.device.Observe(neighbor.Observation{Address: netip.MustParseAddr("10.0.0.2"), Seen: f.now})
	f.blocked(true, address("10.0.0.2"))
}

func TestClaimedAddressIsNotBlocked(t *testing.T) {
	f := newFixture(t).start()
	f.order(put(quarantine(1)))
	f.seen("10.0.0.50", 50)
	// Its owner is idle, for however long.
	f.now = f.now.Add(5 * time.Hour)
	f.device.tend()
	f.seen("10.0.0.50", 1)
	f.device.tend()
	f.blocked(false, address("10.0.0.50"))
	f.blocked(true, memberOf(mac(1)))
	if !strings.Contains(f.detail("q1"), "10.0.0.50") {
		t.Errorf("not told: %q", f.detail("q1"))
	}
	// The claim is in dispute still after a restart, which hears of it anew, and
	// when the claimant is silent for a moment.
	f.start()
	f.seen("10.0.0.50", 1)
	f.device.Observe(neighbor.Observation{Address: netip.MustParseAddr("10.0.0.50"), Seen: f.now})
	f.seen("10.0.0.50", 1)
	f.order(put(quarantine(1, "10.0.0.50")), put(quarantine(2, "10.0.0.50")))
	f.device.tend()
	f.blocked(false, address("10.0.0.50"))
	// The owner speaks: the claim falls.
	f.seen("10.0.0.50", 50)
	f.device.tend()
	f.now = f.now.Add(time.Hour)
	f.device.tend()
	f.blocked(false, address("10.0.0.50"))
	if f.detail("q1") != "" {
		t.Errorf("told after the claim fell: %q", f.detail("q1"))
	}
	// Nobody contradicts: it is the claimant's.
	f.seen("10.0.0.50", 1)
	f.now = f.now.Add(4 * time.Minute)
	f.device.tend()
	f.blocked(false, address("10.0.0.50"))
	f.now = f.now.Add(2 * time.Minute)
	f.device.tend()
	f.blocked(true, address("10.0.0.50"))
	f.start().blocked(true, address("10.0.0.50"))
}

func TestFailuresAreRetried(t *testing.T) {
	f := newFixture(t).start()
	f.order(put(quarantine(1)))
	f.method.set(errors.New("kernel says no"))
	r := f.order(put(quarantine(2)), remove("q1"))
	for _, s := range r.GetStatuses() {
		if s.GetState() != wirev1.EnforcementState_ENFORCEMENT_STATE_PENDING || s.GetDetail() == "" {
			t.Errorf("status %v", s)
		}
	}
	f.method.set(nil)
	f.now = f.now.Add(time.Minute)
	f.device.tend()
	f.expect(map[string]string{"q1": "ABSENT", "q2": "IN_FORCE"})
	f.blocked(false, memberOf(mac(1)))
	f.blocked(true, memberOf(mac(2)))
}

func TestBreakGlass(t *testing.T) {
	f := newFixture(t).start()
	f.order(put(quarantine(1)))
	ctx := context.Background()
	if _, err := f.svc.ReleaseAll(ctx, connect.NewRequest(&wirev1.ReleaseAllRequest{})); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("without a reason: %v", err)
	}
	r, err := f.svc.ReleaseAll(ctx, connect.NewRequest(&wirev1.ReleaseAllRequest{Actor: "eve", Reason: "fire"}))
	if err != nil || r.Msg.GetReleased() != 1 || r.Msg.GetDetail() != "" {
		t.Fatal(r, err)
	}
	f.order(put(quarantine(2)))
	f.expect(map[string]string{"q1": "SUSPENDED", "q2": "SUSPENDED"})
	f.start().expect(map[string]string{"q1": "SUSPENDED", "q2": "SUSPENDED"})
	f.now = f.now.Add(time.Hour)
	f.device.tend()
	if n, _ := f.method.Count(); n != 0 {
		t.Errorf("%d elements in force during break glass", n)
	}
	if _, err := f.svc.Resume(ctx, connect.NewRequest(&wirev1.ResumeRequest{Actor: "eve"})); err != nil {
		t.Fatal(err)
	}
	f.expect(map[string]string{"q1": "IN_FORCE", "q2": "IN_FORCE"})
	log, err := os.ReadFile(filepath.Join(f.dir, "break-glass.log"))
	if err != nil || len(log) == 0 {
		t.Errorf("log %q, %v", log, err)
	}
}

// TestMarkerBesideTheDevice is release-all and resume while the device's socket
// does not answer.
func TestMarkerBesideTheDevice(t *testing.T) {
	f := newFixture(t).start()
	f.order(put(quarantine(1)))
	marker := filepath.Join(f.dir, "break-glass")
	if err := os.WriteFile(marker, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f.device.Disturbed(Disturbance{Everything: true})
	f.expect(map[string]string{"q1": "SUSPENDED"})
	f.blocked(false, memberOf(mac(1)))
	if err := os.Remove(marker); err != nil {
		t.Fatal(err)
	}
	f.device.tend()
	f.expect(map[string]string{"q1": "IN_FORCE"})
}

// TestLostStoreHolds: a device that lost its desired set keeps what is in force
// until a snapshot comes.
func TestLostStoreHolds(t *testing.T) {
	for name, lose := range map[string]func(path string) error{
		"gone":    os.Remove,
		"damaged": func(path string) error { return os.WriteFile(path, []byte("rubbish"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t).start()
			f.order(put(quarantine(1)), put(quarantine(2)))
			_ = f.device.Close()
			if err := lose(filepath.Join(f.dir, "desired.journal")); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				f.start().blocked(true, memberOf(mac(1)), memberOf(mac(2)))
			}
			if f.device.alarm() == "" {
				t.Error("no alarm")
			}
			f.now = f.now.Add(time.Hour)
			f.device.tend()
			f.blocked(true, memberOf(mac(1)))
			if r := f.delta(rev(0, 1), rev(0, 2), remove("q1")); !r.GetNeedSnapshot() {
				t.Errorf("a delta was taken: %v", r)
			}
			f.snapshot(rev(0, 2), 0, true, quarantine(2))
			f.blocked(false, memberOf(mac(1)))
			f.blocked(true, memberOf(mac(2)))
			if f.device.alarm() != "" {
				t.Error("the alarm stays:", f.device.alarm())
			}
		})
	}
}

// TestDiesBetweenNewJournalAndLook: a device that lost its desired set and died
// before it looked at what is in force still releases nobody.
func TestDiesBetweenNewJournalAndLook(t *testing.T) {
	f := newFixture(t).start()
	f.order(put(quarantine(1)))
	_ = f.device.Close()
	if err := os.Remove(filepath.Join(f.dir, "desired.journal")); err != nil {
		t.Fatal(err)
	}
	f.open()
	_ = f.device.Close()
	f.start().blocked(true, memberOf(mac(1)))
	if f.device.alarm() == "" {
		t.Error("no alarm")
	}
	f.snapshot(rev(1, 1), 0, true)
	f.blocked(false, memberOf(mac(1)))

	// A new device with nothing in force takes any order.
	g := newFixture(t).start()
	if g.device.alarm() != "" {
		t.Error("a new device alarms:", g.device.alarm())
	}
	g.order(put(quarantine(1)))
	g.start().expect(map[string]string{"q1": "IN_FORCE"})
}

func TestDiskFull(t *testing.T) {
	f := newFixture(t)
	if err := unix.Mount("tmpfs", f.dir, "tmpfs", 0, "size=128k"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("cannot mount:", err)
	}
	dir := f.dir
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	f.start()
	f.order(put(quarantine(1)))
	_ = os.WriteFile(filepath.Join(f.dir, "ballast"), make([]byte, 1<<20), 0o600)
	var last *wirev1.ApplyResponse
	for n := byte(2); n < 200 && last.GetDetail() == ""; n++ {
		last = f.order(put(quarantine(n)))
	}
	if last.GetDetail() == "" || last.GetStatuses()[0].GetState() != wirev1.EnforcementState_ENFORCEMENT_STATE_IN_FORCE || last.GetStatuses()[0].GetDetail() == "" {
		t.Fatalf("on a full disk: %v", last)
	}
	f.expect(map[string]string{"q1": "IN_FORCE", "q2": "IN_FORCE"})
	if _, detail, err := f.device.ReleaseAll("eve", "fire"); err != nil {
		t.Fatal(detail, err)
	}
	if n, _ := f.method.Count(); n != 0 {
		t.Errorf("%d elements after release-all on a full disk", n)
	}
}

// TestStuckDeviceIsNotHealthy: one whose lock is never given back must not feed a
// watchdog, nor hang who asks.
func TestStuckDeviceIsNotHealthy(t *testing.T) {
	f := newFixture(t)
	if f.open(); f.device.Healthy() {
		t.Error("healthy before it was started")
	}
	if f.start(); !f.device.Healthy() {
		t.Error("a device that was just started is not healthy")
	}
	f.device.beat.Store(time.Now().Add(-2 * stuck).UnixNano())
	f.device.mu.Lock()
	if f.device.Healthy() {
		t.Error("a device that is stuck is healthy")
	}
	f.device.mu.Unlock()
	if f.device.tend(); !f.device.Healthy() {
		t.Error("not healthy when it goes on")
	}
}

// TestLeavingAddressesAreNotForgotten: when a removal fails together with the
// comparison after it, the addresses are freed and read back all the same before
// the end is told.
func TestLeavingAddressesAreNotForgotten(t *testing.T) {
	f := newFixture(t).start()
	f.order(put(quarantine(1, "10.0.0.1", "fd00::1")))
	f.method.set(errors.New("kernel says no"))
	f.order(remove("q1"))
	f.now = f.now.Add(time.Minute)
	f.device.tend()
	// The comparison succeeds and keeps what nobody wants, as with a set that is
	// not whole; only what is asked for by name goes.
	f.method.set(nil)
	f.method.keep = true
	sub, _ := f.device.subscribe()
	f.now = f.now.Add(time.Minute)
	f.device.tend()
	f.blocked(false, memberOf(mac(1)), address("10.0.0.1"), address("fd00::1"))
	if s := (<-sub.events).GetStatus(); s.GetQuarantineId() != "q1" || s.GetState() != wirev1.EnforcementState_ENFORCEMENT_STATE_REMOVED {
		t.Errorf("told %v", s)
	}
}

func TestSlowWatcherIsDropped(t *testing.T) {
	f := newFixture(t).start()
	slow, _ := f.device.subscribe()
	for i := range queue + 2 {
		f.device.hub.publish(driftEvent(fmt.Sprint(i), f.now, true))
	}
	n := 0
	for range slow.events {
		n++
	}
	if n != queue || f.device.hub.watched() {
		t.Errorf("%d events before it was dropped, still watched: %t", n, f.device.hub.watched())
	}
	slow.close()
	if _, present := f.device.subscribe(); present[0].GetState() == nil {
		t.Error("a new watch does not begin with the state")
	}
}
