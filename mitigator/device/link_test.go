package device

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
	"github.com/cordon-security/cordon/internal/wire/v1/wirev1connect"
	"github.com/cordon-security/cordon/mitigator/endpoint"
	"github.com/cordon-security/cordon/mitigator/store"
	"github.com/cordon-security/cordon/mitigator/store/sqlite"
	"github.com/cordon-security/cordon/mitigator/threat"
)

const (
	inForce = wirev1.EnforcementState_ENFORCEMENT_STATE_IN_FORCE
	pending = wirev1.EnforcementState_ENFORCEMENT_STATE_PENDING
	removed = wirev1.EnforcementState_ENFORCEMENT_STATE_REMOVED
)

func said(id string, state wirev1.EnforcementState, n uint64) *wirev1.QuarantineStatus {
	return &wirev1.QuarantineStatus{QuarantineId: id, State: state, Sequence: n}
}

// TestCrossedStatuses holds that an old status which comes late is not the last
// word, and that another run of the device begins anew.
func TestCrossedStatuses(t *testing.T) {
	var h heard
	h.reset()
	take := func(in ...*wirev1.QuarantineStatus) (out []wirev1.EnforcementState) {
		for _, s := range h.fresh(in) {
			out = append(out, s.GetState())
		}
		return out
	}
	for i, c := range []struct{ got, want []wirev1.EnforcementState }{
		{take(said("a", inForce, 3)), []wirev1.EnforcementState{inForce}},
		{take(said("a", pending, 5), said("a", inForce, 4), said("b", inForce, 2)), []wirev1.EnforcementState{pending, inForce}},
		{take(said("a", removed, 6), said("a", inForce, 3)), []wirev1.EnforcementState{removed}},
		{take(said("a", inForce, 0)), []wirev1.EnforcementState{inForce}}, // of a device that does not number
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("%d: took %v, want %v", i, c.got, c.want)
		}
	}
	h.reset()
	if got := take(said("a", pending, 1)); len(got) != 1 {
		t.Error("the first word of a new run was left out")
	}
}

// TestNumbersAreBounded holds that a device on which quarantines come and go for
// months fills no memory.
func TestNumbersAreBounded(t *testing.T) {
	var h heard
	h.reset()
	for n := range uint64(3 * mostHeard) {
		h.fresh([]*wirev1.QuarantineStatus{said(time.Duration(n).String(), removed, n+1)})
	}
	if len(h.last) > mostHeard {
		t.Errorf("%d numbers are kept", len(h.last))
	}
}

// script is a device that says what it is told to.
type script struct {
	wirev1connect.UnimplementedDeviceServiceHandler
	say     chan *wirev1.WatchResponse
	mu      sync.Mutex
	applied []*wirev1.ApplyRequest
}

// Watch implements DeviceService.
func (s *script) Watch(ctx context.Context, _ *connect.Request[wirev1.WatchRequest], out *connect.ServerStream[wirev1.WatchResponse]) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case m := <-s.say:
			if m == nil {
				return errors.New("the device ends")
			}
			if err := out.Send(m); err != nil {
				return err
			}
		}
	}
}

// Apply implements DeviceService.
func (s *script) Apply(_ context.Context, r *connect.Request[wirev1.ApplyRequest]) (*connect.Response[wirev1.ApplyResponse], error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.applied = append(s.applied, r.Msg)
	held := r.Msg.GetSnapshot().GetRevision()
	if d := r.Msg.GetDelta(); d != nil {
		held = d.GetRevision()
	}
	return connect.NewResponse(&wirev1.ApplyResponse{Held: held}), nil
}

func (s *script) orders() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.applied)
}

type deaf struct{}

// DeviceStatus implements Lifecycle.
func (deaf) DeviceStatus(context.Context, string, []*wirev1.QuarantineStatus) error { return nil }

// DeviceBindings implements Lifecycle.
func (deaf) DeviceBindings(context.Context, string, []*wirev1.AddressBinding) error { return nil }

// TestDeviceAsAWhole holds that counts, revision and alarms follow what the device
// says while it is connected, and that a device which comes back with less than
// it held gets its orders again.
func TestDeviceAsAWhole(t *testing.T) {
	dir := t.TempDir()
	s, err := sqlite.Open(t.Context(), filepath.Join(dir, "cordon.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	listener, err := net.Listen("unix", filepath.Join(dir, "gate.sock"))
	if err != nil {
		t.Fatal(err)
	}
	gate := &script{say: make(chan *wirev1.WatchResponse)}
	mux := http.NewServeMux()
	mux.Handle(wirev1connect.NewDeviceServiceHandler(gate))
	server := &http.Server{Handler: mux}
	go func() { _ = server.Serve(listener) }() // it ends with the test
	defer server.Close()
	l, err := New(Options{Name: "gate", Socket: listener.Addr().String(), Store: s, Lifecycle: deaf{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	defer func() { cancel(); <-ended }()

	whole := func(number uint64, desired, inForce uint32, alarms ...string) {
		gate.say <- &wirev1.WatchResponse{Event: &wirev1.WatchResponse_State{State: &wirev1.StatusResponse{
			Held: &wirev1.Revision{Epoch: 1, Number: number}, Desired: desired, InForce: inForce, Alarms: alarms,
		}}}
	}
	order(t, s)
	whole(0, 0, 0)
	waitFor(t, "the first orders", func() bool { return gate.orders() == 1 && l.State().Held.GetNumber() == 1 })
	whole(0, 3, 2, "its disk is full")
	waitFor(t, "counts and alarms", func() bool {
		st := l.State()
		return st.Desired == 3 && st.InForce == 2 && slices.Equal(st.Alarms, []string{"its disk is full"})
	})
	whole(0, 3, 3)
	waitFor(t, "the alarm's end", func() bool { return l.State().InForce == 3 && len(l.State().Alarms) == 0 })
	if held := l.State().Held.GetNumber(); held != 1 {
		t.Errorf("what the device said before its answer made revision 1 into %d", held)
	}
	gate.say <- nil
	whole(0, 0, 0)
	waitFor(t, "the orders once more", func() bool { return gate.orders() == 2 && l.State().Held.GetNumber() == 1 })
}

// order puts one quarantine into the log of orders.
func order(t *testing.T, s store.Store) {
	t.Helper()
	err := s.Update(t.Context(), func(tx store.Tx) error {
		ep := endpoint.Endpoint{MACs: []endpoint.MAC{{2, 0, 0, 0, 0, 9}}, FirstSeen: time.Now(), LastSeen: time.Now()}
		if err := tx.AddEndpoint(&ep); err != nil {
			return err
		}
		q := threat.Quarantine{ID: "q", EndpointID: ep.ID, MACs: ep.MACs, Access: threat.AccessNone, Actor: threat.ByPolicy,
			State: threat.QuarantineOrdered, CreatedAt: time.Now()}
		if err := tx.AddQuarantine(q); err != nil {
			return err
		}
		_, err := tx.AddOrder(q.ID)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func waitFor(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not after 30 seconds: %s", what)
		}
	}
}

// counting notes how many calls bring how much.
type counting struct {
	mu                                 sync.Mutex
	calls, statuses, bindings, largest int
	order                              []string
}

// DeviceStatus implements Lifecycle.
func (c *counting) DeviceStatus(_ context.Context, _ string, in []*wirev1.QuarantineStatus) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls, c.statuses, c.largest = c.calls+1, c.statuses+len(in), max(c.largest, len(in))
	for _, s := range in {
		c.order = append(c.order, s.GetQuarantineId())
	}
	return nil
}

// DeviceBindings implements Lifecycle.
func (c *counting) DeviceBindings(_ context.Context, _ string, in []*wirev1.AddressBinding) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls, c.bindings, c.largest = c.calls+1, c.bindings+len(in), max(c.largest, len(in))
	return nil
}

// TestManyWordsAreFewCommits holds that what a device says of thousands of
// quarantines is taken in together, in order, and none of it is left out.
func TestManyWordsAreFewCommits(t *testing.T) {
	life := &counting{}
	l := &Link{name: "gate", life: life, log: slog.New(slog.DiscardHandler)}
	l.heard.reset()
	said := make(chan *wirev1.WatchResponse, 3000)
	var want []string
	for i := range 1000 {
		id := time.Duration(i).String()
		want = append(want, id)
		said <- &wirev1.WatchResponse{Event: &wirev1.WatchResponse_Status{Status: said1(id, i)}}
	}
	for range 1000 {
		said <- &wirev1.WatchResponse{Event: &wirev1.WatchResponse_Binding{Binding: &wirev1.AddressBinding{}}}
	}
	said <- &wirev1.WatchResponse{Event: &wirev1.WatchResponse_State{State: &wirev1.StatusResponse{Desired: 1000, Statuses: []*wirev1.QuarantineStatus{said1("last", 1000)}}}}
	close(said)
	for m := range said {
		if err := l.hear(t.Context(), waiting(said, m)); err != nil {
			t.Fatal(err)
		}
	}
	if life.statuses != 1001 || life.bindings != 1000 || l.State().Desired != 1000 || !slices.Equal(life.order, append(want, "last")) {
		t.Errorf("%d statuses and %d bindings were taken in, %d desired", life.statuses, life.bindings, l.State().Desired)
	}
	if life.calls > 12 || life.largest > atOnce {
		t.Errorf("in %d calls, of up to %d", life.calls, life.largest)
	}
}

func said1(id string, i int) *wirev1.QuarantineStatus { return said(id, inForce, uint64(i+1)) }
