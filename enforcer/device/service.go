package device

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"

	"github.com/cordon-security/cordon/enforcer/desired"
	"github.com/cordon-security/cordon/enforcer/neighbor"
	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

// Service is the device behind cordon.v1.DeviceService.
type Service struct{ device *Device }

// NewService makes the service of a device that was started.
func NewService(d *Device) *Service { return &Service{device: d} }

const (
	// maxStatuses bounds the statuses in one message: about 1 MB.
	maxStatuses = 4000
	// maxText bounds what a person writes as actor and reason.
	maxText = 1024
	// toldAtOnce is up to how many quarantines the counts are told with each order,
	// so that whoever gave it sees them right at once.
	toldAtOnce = 1000
)

// Apply carries an order out. An order that does not fit is answered, not
// failed: the answer says what the device holds.
func (s *Service) Apply(_ context.Context, req *connect.Request[wirev1.ApplyRequest]) (*connect.Response[wirev1.ApplyResponse], error) {
	var carryOut func(d *Device) answer
	switch o := req.Msg.GetOrder().(type) {
	case *wirev1.ApplyRequest_Delta:
		dl, err := deltaOf(o.Delta)
		if err != nil {
			return nil, connect.NewError(connect.CodeInvalidArgument, err)
		}
		carryOut = func(d *Device) answer { return d.applyDelta(d.now(), dl) }
	case *wirev1.ApplyRequest_Snapshot:
		p, err := partOf(o.Snapshot)
		if err != nil {
			return nil, connect.NewError(connect.CodeInvalidArgument, err)
		}
		carryOut = func(d *Device) answer { return d.applyPart(d.now(), p) }
	default:
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("the order is neither a snapshot nor a delta"))
	}
	d := s.device
	d.mu.Lock()
	defer d.mu.Unlock()
	answer := d.response(carryOut(d))
	if d.store.Len() <= toldAtOnce {
		d.tell()
	}
	return connect.NewResponse(answer), nil
}

func deltaOf(w *wirev1.Delta) (delta, error) {
	out := delta{base: revisionOf(w.GetBase()), revision: revisionOf(w.GetRevision())}
	if out.revision == (desired.Revision{}) {
		return out, errors.New("the delta has no revision")
	}
	// The last change of an id counts.
	last := map[string]int{}
	for i, c := range w.GetChanges() {
		last[changeID(c)] = i
	}
	for i, c := range w.GetChanges() {
		if last[changeID(c)] != i {
			continue
		}
		switch c := c.GetChange().(type) {
		case *wirev1.Change_Put:
			o, err := orderOf(c.Put)
			if err != nil {
				return out, err
			}
			out.puts = append(out.puts, o)
		case *wirev1.Change_Remove:
			if len(c.Remove) > desired.MaxID {
				return out, fmt.Errorf("change %d removes an id of %d bytes, the most is %d", i, len(c.Remove), desired.MaxID)
			}
			out.removes = append(out.removes, c.Remove)
		default:
			return out, fmt.Errorf("change %d of the delta neither puts nor removes", i)
		}
	}
	return out, nil
}

func changeID(c *wirev1.Change) string {
	if p := c.GetPut(); p != nil {
		return p.GetId()
	}
	return c.GetRemove()
}

func partOf(w *wirev1.Snapshot) (part, error) {
	out := part{revision: revisionOf(w.GetRevision()), number: w.GetPart(), last: w.GetLast()}
	if out.revision == (desired.Revision{}) {
		return out, errors.New("the snapshot has no revision")
	}
	for _, q := range w.GetQuarantines() {
		o, err := orderOf(q)
		if err != nil {
			return out, err
		}
		out.puts = append(out.puts, o)
	}
	return out, nil
}

func (d *Device) response(a answer) *wirev1.ApplyResponse {
	out := &wirev1.ApplyResponse{Held: revisionTo(a.held), NeedSnapshot: a.needSnapshot, Detail: a.detail}
	now := d.now()
	for _, g := range a.gone {
		if len(out.Statuses) < maxStatuses {
			out.Statuses = append(out.Statuses, d.gone(g.id, g.phase, now, g.detail))
		}
	}
	for _, id := range a.touched {
		if q := d.store.Get(id); q != nil && len(out.Statuses) < maxStatuses {
			out.Statuses = append(out.Statuses, d.status(now, q))
		}
	}
	return out
}

// Status is the present state, whole.
func (s *Service) Status(context.Context, *connect.Request[wirev1.StatusRequest]) (*connect.Response[wirev1.StatusResponse], error) {
	d := s.device
	d.mu.Lock()
	defer d.mu.Unlock()
	return connect.NewResponse(d.state()), nil
}

func (d *Device) state() *wirev1.StatusResponse {
	now, out := d.now(), d.whole()
	d.store.Each(func(q *desired.Quarantine) { out.Statuses = append(out.Statuses, d.status(now, q)) })
	return out
}

// whole is the state of the device itself, without that of each quarantine.
func (d *Device) whole() *wirev1.StatusResponse {
	out := &wirev1.StatusResponse{
		Held: revisionTo(d.store.Revision()), Desired: uint32(d.store.Len()),
		BreakGlass: breakGlassTo(d.broken, d.suspended), Version: d.opts.Version, Name: d.opts.Name,
	}
	d.store.Each(func(q *desired.Quarantine) {
		if q.Status.Phase == desired.InForce {
			out.InForce++
		}
	})
	if alarm := d.alarm(); alarm != "" {
		out.Alarms = append(out.Alarms, alarm)
	}
	if d.fault != "" {
		out.Alarms = append(out.Alarms, d.fault)
	}
	return out
}

// tell says what has changed of the device as a whole since it was told last.
// It looks at every quarantine: where there are many it is for the clock alone.
// The caller holds the lock.
func (d *Device) tell() {
	now := told{said: d.said, revision: d.store.Revision(), alarm: d.alarm(), fault: d.fault, suspended: d.suspended}
	if now == d.told || !d.hub.watched() {
		return
	}
	d.told = now
	d.hub.publish(&wirev1.WatchResponse{Event: &wirev1.WatchResponse_State{State: d.whole()}})
}

// told is what the state of the whole device hangs on: it changes when any of
// this does. The counts of quarantines change with what is said of one.
type told struct {
	said         uint64
	revision     desired.Revision
	alarm, fault string
	suspended    bool
}

// Watch sends the present state, and then each change.
func (s *Service) Watch(ctx context.Context, _ *connect.Request[wirev1.WatchRequest], stream *connect.ServerStream[wirev1.WatchResponse]) error {
	sub, present := s.device.subscribe()
	defer sub.close()
	for _, m := range present {
		if err := stream.Send(m); err != nil {
			return err
		}
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e, ok := <-sub.events:
			if !ok {
				return connect.NewError(connect.CodeResourceExhausted, errors.New("the watch fell behind; connect again for the present state"))
			}
			if err := stream.Send(e); err != nil {
				return err
			}
		}
	}
}

// subscribe begins a watch with the present state, between two changes.
func (d *Device) subscribe() (*subscription, []*wirev1.WatchResponse) {
	d.mu.Lock()
	defer d.mu.Unlock()
	sub := d.hub.subscribe()
	st := d.state()
	rest := st.Statuses
	var present []*wirev1.WatchResponse
	for first := true; first || len(rest) > 0; first = false {
		n := min(len(rest), maxStatuses)
		present = append(present, &wirev1.WatchResponse{Event: &wirev1.WatchResponse_State{State: &wirev1.StatusResponse{
			Held: st.Held, Desired: st.Desired, InForce: st.InForce, BreakGlass: st.BreakGlass, Version: st.Version,
			Name: st.Name, Alarms: st.Alarms, Statuses: rest[:n],
		}}})
		rest = rest[n:]
	}
	d.table.Each(func(o neighbor.Observation) { present = append(present, bindingEvent(o)) })
	return sub, present
}

// ReleaseAll is break glass.
func (s *Service) ReleaseAll(_ context.Context, req *connect.Request[wirev1.ReleaseAllRequest]) (*connect.Response[wirev1.ReleaseAllResponse], error) {
	actor, reason := req.Msg.GetActor(), req.Msg.GetReason()
	if reason == "" {
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("a reason is needed, for whoever reads the log"))
	}
	n, detail, err := s.device.ReleaseAll(clip(actor, maxText), clip(reason, maxText))
	if err != nil {
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	return connect.NewResponse(&wirev1.ReleaseAllResponse{Released: uint32(n), Detail: detail}), nil
}

// Resume ends break glass.
func (s *Service) Resume(_ context.Context, req *connect.Request[wirev1.ResumeRequest]) (*connect.Response[wirev1.ResumeResponse], error) {
	if err := s.device.Resume(clip(req.Msg.GetActor(), maxText)); err != nil {
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	return connect.NewResponse(&wirev1.ResumeResponse{}), nil
}
