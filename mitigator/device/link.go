// Package device keeps an enforcement device in step with the mitigator's
// orders, by the order contract of DeviceService: deltas on the revision that
// the device holds, a snapshot whenever that does not fit, and everything that
// the device says of it taken in.
package device

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
	"github.com/cordon-security/cordon/internal/wire/v1/wirev1connect"
	"github.com/cordon-security/cordon/mitigator/store"
	"github.com/cordon-security/cordon/mitigator/threat"
)

// Lifecycle takes in what a device says.
type Lifecycle interface {
	DeviceStatus(ctx context.Context, device string, statuses []*wirev1.QuarantineStatus) error
	DeviceBindings(ctx context.Context, device string, bindings []*wirev1.AddressBinding) error
}

// Options are what a Link needs.
type Options struct {
	// Name is the device's, as it stands in timelines and on the console.
	Name string
	// Socket is the path of the device's Unix socket.
	Socket    string
	Store     store.Store
	Lifecycle Lifecycle
	Log       *slog.Logger
}

// Link is the mitigator's side of one device. It is safe for concurrent use.
type Link struct {
	name   string
	client wirev1connect.DeviceServiceClient
	http   *http.Client
	store  store.Store
	life   Lifecycle
	log    *slog.Logger
	wake   chan struct{}

	mu    sync.Mutex
	state State
	// stale makes the next order a snapshot: what the device holds is not known.
	stale bool
	// unconfirmed makes the next sync ask again after releases whose end was not
	// heard: the answer may have been lost, and the device keeps no trace of them.
	unconfirmed bool

	heard heard
}

// State is what is known of a device now.
type State struct {
	Name      string
	Connected bool
	// Err says in words why it is not connected, or what it last refused.
	Err     string
	Ordered *wirev1.Revision
	Held    *wirev1.Revision
	Desired uint32
	InForce uint32
	// BreakGlass is nil before the device said.
	BreakGlass *wirev1.BreakGlass
	Drifts     uint64
	LastDrift  string
	// Alarms say what is wrong with the device itself, as it says.
	Alarms []string
}

const (
	// maxMessage bounds one message either way.
	maxMessage = 8 << 20
	// perOrder bounds the changes of one delta and the quarantines of one part of
	// a snapshot: about 1 MB.
	perOrder = 4000
	// orderTimeout bounds one order; the device answers after its commit and the
	// kernel's read-back, so this is only for a device that hangs.
	orderTimeout = 30 * time.Second
	minBackoff   = 100 * time.Millisecond
	maxBackoff   = 5 * time.Second
)

// New makes a link; Run connects it.
func New(o Options) (*Link, error) {
	if o.Name == "" || o.Socket == "" || o.Store == nil || o.Lifecycle == nil || o.Log == nil {
		return nil, errors.New("device link: a name, a socket, a store, a life cycle and a log are needed")
	}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", o.Socket)
		},
		MaxIdleConnsPerHost: 4,
	}
	hc := &http.Client{Transport: transport}
	return &Link{
		name: o.Name, http: hc, store: o.Store, life: o.Lifecycle, log: o.Log.With("device", o.Name),
		client: wirev1connect.NewDeviceServiceClient(hc, "http://device", connect.WithReadMaxBytes(maxMessage)),
		wake:   make(chan struct{}, 1), state: State{Name: o.Name, Err: "not connected yet"}, stale: true,
	}, nil
}

// Name is the device's.
func (l *Link) Name() string { return l.name }

// Wake says that there are orders. It never blocks.
func (l *Link) Wake() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// State is a copy of what is known now.
func (l *Link) State() State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

func (l *Link) set(change func(*State)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(&l.state)
}

// Run keeps the device in step until ctx ends.
func (l *Link) Run(ctx context.Context) error {
	defer l.http.CloseIdleConnections()
	backoff := minBackoff
	for ctx.Err() == nil {
		began := time.Now()
		err := l.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		l.set(func(s *State) { s.Connected, s.Err = false, err.Error() })
		if time.Since(began) > maxBackoff {
			backoff = minBackoff
		}
		l.log.Warn("enforcement device out of reach; its last orders stay in force there", "err", err, "retry_in", backoff)
		select {
		case <-ctx.Done():
		case <-time.After(backoff/2 + rand.N(backoff/2)):
		}
		backoff = min(backoff*2, maxBackoff)
	}
	return nil
}

// session is one connection's life: a watch beside the orders. It ends with the
// first error of either.
func (l *Link) session(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l.heard.reset()
	watched := make(chan error, 1)
	connected := make(chan struct{})
	go func() { watched <- l.watch(ctx, connected) }()
	select {
	case <-connected:
	case err := <-watched:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
	l.log.Info("enforcement device connected")
	l.setUnconfirmed(true)
	for {
		err := l.sync(ctx)
		if err != nil {
			cancel()
			<-watched
			return err
		}
		select {
		case <-l.wake:
		case err := <-watched:
			return err
		case <-ctx.Done():
			<-watched
			return ctx.Err()
		}
	}
}

// watch takes in what the device says by itself.
func (l *Link) watch(ctx context.Context, connected chan<- struct{}) error {
	stream, err := l.client.Watch(ctx, connect.NewRequest(&wirev1.WatchRequest{}))
	if err != nil {
		return fmt.Errorf("watch device: %w", err)
	}
	defer stream.Close()
	said := make(chan *wirev1.WatchResponse, atOnce)
	go func() {
		defer close(said)
		for stream.Receive() {
			select {
			case said <- stream.Msg():
			case <-ctx.Done():
				return
			}
		}
	}()
	first := true
	for m := range said {
		if first {
			// What it holds now counts, also when that is less than before: a device
			// that lost its orders must get them again.
			l.set(func(s *State) { s.Held = nil })
		}
		if err := l.hear(ctx, waiting(said, m)); err != nil {
			return err
		}
		if first {
			first = false
			close(connected)
		}
	}
	if err := stream.Err(); err != nil {
		return fmt.Errorf("watch device: %w", err)
	}
	return errors.New("watch device: the device ended it")
}

// atOnce bounds what is taken in together: one commit, behind which a containment
// waits.
const atOnce = 256

// waiting is a message and those that have come behind it already.
func waiting(said <-chan *wirev1.WatchResponse, first *wirev1.WatchResponse) []*wirev1.WatchResponse {
	out := []*wirev1.WatchResponse{first}
	for len(out) < atOnce {
		select {
		case m, ok := <-said:
			if !ok {
				return out
			}
			out = append(out, m)
		default:
			return out
		}
	}
	return out
}

// hear takes messages in, in their order; neighbours of one kind together, since
// each taking in costs a commit, and a device that has just begun says a word of
// each quarantine and of each address.
func (l *Link) hear(ctx context.Context, all []*wirev1.WatchResponse) error {
	var statuses []*wirev1.QuarantineStatus
	var bindings []*wirev1.AddressBinding
	flush := func() error {
		s, b := statuses, bindings
		statuses, bindings = nil, nil
		if len(s) > 0 {
			if err := l.takeIn(ctx, s); err != nil {
				return err
			}
		}
		if len(b) > 0 {
			return l.life.DeviceBindings(ctx, l.name, b)
		}
		return nil
	}
	for _, m := range all {
		s, b := m.GetStatus(), m.GetBinding()
		if (s == nil && len(statuses) > 0) || (b == nil && len(bindings) > 0) {
			if err := flush(); err != nil {
				return err
			}
		}
		switch {
		case s != nil:
			statuses = append(statuses, s)
		case b != nil:
			bindings = append(bindings, b)
		default:
			if err := l.hearOther(ctx, m); err != nil {
				return err
			}
		}
	}
	return flush()
}

func (l *Link) hearOther(ctx context.Context, m *wirev1.WatchResponse) error {
	switch ev := m.GetEvent().(type) {
	case *wirev1.WatchResponse_State:
		st := ev.State
		l.set(func(s *State) {
			s.Connected, s.Err = true, ""
			s.Held, s.Desired, s.InForce, s.BreakGlass = newer(s.Held, st.GetHeld()), st.GetDesired(), st.GetInForce(), st.GetBreakGlass()
			s.Alarms = st.GetAlarms()
		})
		return l.takeAllIn(ctx, st.GetStatuses())
	case *wirev1.WatchResponse_Drift:
		l.set(func(s *State) { s.Drifts++; s.LastDrift = ev.Drift.GetDetail() })
		l.log.Warn("drift on the enforcement device", "detail", ev.Drift.GetDetail(), "repaired", ev.Drift.GetRepaired())
	case *wirev1.WatchResponse_BreakGlass:
		l.set(func(s *State) { s.BreakGlass = ev.BreakGlass })
		l.log.Warn("break glass", "on", ev.BreakGlass.GetOn(), "by", ev.BreakGlass.GetActor(), "reason", ev.BreakGlass.GetReason())
	}
	return nil
}

// newer is the later revision of the two: what the device says by itself may
// have been written before its answer to an order that is known already.
func newer(known, said *wirev1.Revision) *wirev1.Revision {
	if cmp.Or(cmp.Compare(said.GetEpoch(), known.GetEpoch()), cmp.Compare(said.GetNumber(), known.GetNumber())) < 0 {
		return known
	}
	return said
}

// sync brings the device to the head of the orders.
func (l *Link) sync(ctx context.Context) error {
	for {
		done, err := l.syncOnce(ctx)
		if err != nil || done {
			return err
		}
	}
}

func (l *Link) syncOnce(ctx context.Context) (done bool, err error) {
	st := l.State()
	var epoch, head uint64
	var orders []store.Order
	var fits bool
	err = l.store.View(ctx, func(v store.View) error {
		if epoch, err = v.Epoch(); err != nil {
			return err
		}
		if st.Held.GetEpoch() != epoch || l.isStale() {
			return nil
		}
		orders, head, fits, err = v.Orders(st.Held.GetNumber(), perOrder)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("read orders: %w", err)
	}
	if !fits {
		return false, l.resync(ctx, st.Held, epoch)
	}
	rev := &wirev1.Revision{Epoch: epoch, Number: head}
	if head == st.Held.GetNumber() {
		l.set(func(s *State) { s.Ordered = rev })
		return true, l.confirmReleases(ctx, rev)
	}
	return false, l.delta(ctx, st.Held, rev, orders)
}

// confirmReleases orders what is being released lifted once more, on the
// revision that the device holds: it answers for what is gone already.
func (l *Link) confirmReleases(ctx context.Context, held *wirev1.Revision) error {
	l.mu.Lock()
	due := l.unconfirmed
	l.unconfirmed = false
	l.mu.Unlock()
	if !due {
		return nil
	}
	var orders []store.Order
	err := l.store.View(ctx, func(v store.View) error {
		qs, err := v.QuarantinesIn(threat.QuarantineReleasing, perOrder)
		for _, q := range qs {
			orders = append(orders, store.Order{Quarantine: q})
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("read releases: %w", err)
	}
	if len(orders) == 0 {
		return nil
	}
	return l.delta(ctx, held, held, orders)
}

func (l *Link) delta(ctx context.Context, base, rev *wirev1.Revision, orders []store.Order) error {
	d := &wirev1.Delta{Base: base, Revision: rev}
	for _, o := range orders {
		c := &wirev1.Change{Change: &wirev1.Change_Remove{Remove: o.Quarantine.ID}}
		if o.Quarantine.State.Ordered() {
			c.Change = &wirev1.Change_Put{Put: wire(o.Quarantine)}
		}
		d.Changes = append(d.Changes, c)
	}
	resp, err := l.apply(ctx, &wirev1.ApplyRequest{Order: &wirev1.ApplyRequest_Delta{Delta: d}})
	if err != nil {
		return err
	}
	if resp.GetNeedSnapshot() {
		l.log.Info("the device asks for a snapshot", "detail", resp.GetDetail())
		l.setStale(true)
		return nil
	}
	if held := resp.GetHeld(); held.GetEpoch() != rev.GetEpoch() || held.GetNumber() != rev.GetNumber() {
		// Without this an orderer and a device that disagree would ask each other for ever.
		l.setStale(true)
		return fmt.Errorf("the device holds revision %d.%d after order %d.%d: %s",
			held.GetEpoch(), held.GetNumber(), rev.GetEpoch(), rev.GetNumber(), resp.GetDetail())
	}
	return l.applied(ctx, rev, resp)
}

// resync sends the device all that it shall hold. A device that holds orders from
// after this history's last has them from one that is gone: the store was put back
// from a backup, or made anew while the clock was wrong. It would refuse what is
// older for ever, so a new epoch begins.
func (l *Link) resync(ctx context.Context, held *wirev1.Revision, epoch uint64) error {
	var head uint64
	err := l.store.View(ctx, func(v store.View) (err error) {
		_, head, _, err = v.Orders(math.MaxInt64, 1)
		return err
	})
	if err != nil {
		return fmt.Errorf("read the last order: %w", err)
	}
	ours := &wirev1.Revision{Epoch: epoch, Number: head}
	if newer(ours, held) == ours {
		return l.snapshot(ctx, epoch)
	}
	err = l.store.Update(store.Urgent(ctx), func(tx store.Tx) (err error) {
		epoch, err = tx.BeginEpoch(held.GetEpoch())
		return err
	})
	if err != nil {
		return fmt.Errorf("begin an epoch above the device's: %w", err)
	}
	l.log.Warn("the device holds orders that this mitigator's store does not know: was it put back from a backup? What the store has counts from now on",
		"held", revisionText(held), "store", revisionText(ours), "epoch", epoch)
	return l.snapshot(ctx, epoch)
}

func revisionText(r *wirev1.Revision) string {
	return fmt.Sprintf("%d.%d", r.GetEpoch(), r.GetNumber())
}

// snapshot sends all that the device shall hold, in parts.
func (l *Link) snapshot(ctx context.Context, epoch uint64) error {
	var qs []threat.Quarantine
	var head uint64
	err := l.store.View(ctx, func(v store.View) (err error) {
		qs, head, err = v.Snapshot()
		return err
	})
	if err != nil {
		return fmt.Errorf("read snapshot of orders: %w", err)
	}
	rev := &wirev1.Revision{Epoch: epoch, Number: head}
	var statuses []*wirev1.QuarantineStatus
	for part := uint32(0); ; part++ {
		n := min(len(qs), perOrder)
		s := &wirev1.Snapshot{Revision: rev, Part: part, Last: n == len(qs)}
		for _, q := range qs[:n] {
			s.Quarantines = append(s.Quarantines, wire(q))
		}
		qs = qs[n:]
		resp, err := l.apply(ctx, &wirev1.ApplyRequest{Order: &wirev1.ApplyRequest_Snapshot{Snapshot: s}})
		if err != nil {
			return err
		}
		statuses = append(statuses, resp.GetStatuses()...)
		if resp.GetNeedSnapshot() {
			return fmt.Errorf("the device refuses a snapshot of revision %d.%d: %s", epoch, head, resp.GetDetail())
		}
		if s.Last {
			l.setStale(false)
			l.setUnconfirmed(true)
			resp.Statuses = statuses
			return l.applied(ctx, rev, resp)
		}
	}
}

func (l *Link) apply(ctx context.Context, req *wirev1.ApplyRequest) (*wirev1.ApplyResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, orderTimeout)
	defer cancel()
	resp, err := l.client.Apply(ctx, connect.NewRequest(req))
	if err != nil {
		return nil, fmt.Errorf("order the device: %w", err)
	}
	return resp.Msg, nil
}

func (l *Link) applied(ctx context.Context, rev *wirev1.Revision, resp *wirev1.ApplyResponse) error {
	l.set(func(s *State) { s.Ordered, s.Held = rev, resp.GetHeld() })
	return l.takeAllIn(ctx, resp.GetStatuses())
}

func (l *Link) isStale() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stale
}

func (l *Link) setStale(v bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stale = v
}

func (l *Link) setUnconfirmed(v bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unconfirmed = v
}

func wire(q threat.Quarantine) *wirev1.Quarantine {
	w := &wirev1.Quarantine{Id: q.ID, Reason: q.Reason, Access: wirev1.Access_ACCESS_LIMITED}
	if q.Access == threat.AccessNone {
		w.Access = wirev1.Access_ACCESS_NONE
	}
	for _, m := range q.MACs {
		w.Macs = append(w.Macs, m[:])
	}
	if !q.ExpiresAt.IsZero() {
		w.ExpiresAt = timestamppb.New(q.ExpiresAt)
	}
	return w
}
