package fleet

import (
	"context"
	"errors"
	"hash/maphash"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

const maxNamedTasks = 1000

// Tasks implements AgentService.
func (s *service) Tasks(ctx context.Context, req *connect.Request[wirev1.TasksRequest], out *connect.ServerStream[wirev1.TasksResponse]) error {
	f := s.fleet
	id, err := f.authorize(ctx)
	if err != nil {
		return err
	}
	p := peerOf(ctx)
	if err := p.response.SetReadDeadline(time.Time{}); err != nil {
		f.log.Warn("cannot lift a stream's deadline", "agent", id, "error", err)
	}
	abort := func() {
		// Fails only where the connection is gone already.
		_ = p.response.SetWriteDeadline(time.Now())
	}
	st := newStream(ctx, abort)
	defer st.finish()
	f.streams.open(id, st)
	defer f.disconnected(ctx, id, st)
	// A revocation between authorize and open has not seen this stream.
	if err := f.checkAgent(ctx, id); err != nil {
		return connect.NewError(codeOf(err), err)
	}
	version := cleanText(req.Msg.GetVersion(), maxVersion)
	if err := f.store.TouchAgent(ctx, id, f.now(), version, cleanText(req.Msg.GetObserver(), maxObserver)); err != nil {
		return f.internal("record an agent's sign of life", id, err)
	}
	f.announce(ctx, id)
	f.log.Debug("agent connected", "agent", id, "version", version, "source", p.source)
	push := &pusher{fleet: f, id: id, stream: st, out: out, peer: p}
	return push.run(named(req.Msg.GetTaskIds()))
}

func named(ids []string) []string {
	if len(ids) > maxNamedTasks {
		ids = ids[:maxNamedTasks]
	}
	return ids
}

func (f *Fleet) disconnected(ctx context.Context, id string, st *stream) {
	f.streams.remove(id, st)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	f.announce(ctx, id)
	if err := f.store.TouchAgent(ctx, id, f.now(), "", ""); err != nil {
		f.log.Warn("cannot record an agent's sign of life", "agent", id, "error", err)
	}
}

// announce tells the engine what is so now. Taking the agent's lock first makes
// the last call of several the true one.
func (f *Fleet) announce(ctx context.Context, id string) {
	lock := f.announcing.of(id)
	lock.Lock()
	defer lock.Unlock()
	f.engine.AgentConnected(ctx, id, f.streams.has(id))
}

// pusher writes one Tasks stream.
type pusher struct {
	fleet  *Fleet
	id     string
	stream *stream
	out    *connect.ServerStream[wirev1.TasksResponse]
	peer   *peer
	// sent holds the undone tasks that this stream has carried.
	sent map[string]struct{}
}

func (p *pusher) run(named []string) error {
	ctx := p.stream.ctx
	left := p.peer.cert.NotAfter.Sub(p.fleet.now())
	expiry := time.NewTimer(left)
	defer expiry.Stop()
	interval := p.fleet.options.KeepAlive
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	if err := p.keepAlive(interval); err != nil {
		return p.ended(err)
	}
	if err := p.push(ctx, named); err != nil {
		return p.ended(err)
	}
	for {
		var err error
		select {
		case <-ctx.Done():
			err = context.Cause(ctx)
		case <-expiry.C:
			err = errExpired
		case <-ticker.C:
			err = p.keepAlive(interval)
		case <-p.stream.wakeUp:
			err = p.push(ctx, nil)
		}
		if err != nil {
			return p.ended(err)
		}
	}
}

// ended makes the connect error for the stream's end. The cause of a stream
// that was closed on purpose goes before the write error that this led to.
func (p *pusher) ended(err error) error {
	if cause := context.Cause(p.stream.ctx); cause != nil {
		err = cause
	}
	for _, known := range []error{errRevoked, errReplaced, errStopping, errExpired, errStore} {
		if errors.Is(err, known) {
			return connect.NewError(codeOf(known), known)
		}
	}
	return err
}

// push calls back what is no longer wanted of the tasks that the agent named and
// of those that this stream has carried, and sends those that it has not carried
// yet.
func (p *pusher) push(ctx context.Context, named []string) error {
	tasks, err := p.fleet.engine.PendingTasks(ctx, p.id)
	if err != nil {
		if ctx.Err() == nil {
			p.fleet.log.Error("cannot read an agent's tasks", "agent", p.id, "error", err)
		}
		return errStore
	}
	pending := make(map[string]struct{}, len(tasks))
	for _, task := range tasks {
		pending[task.GetId()] = struct{}{}
	}
	if err := p.callBack(slices.Values(named), pending); err != nil {
		return err
	}
	if err := p.callBack(maps.Keys(p.sent), pending); err != nil {
		return err
	}
	for _, task := range tasks {
		if _, done := p.sent[task.GetId()]; done {
			continue
		}
		if err := p.deliver(ctx, task); err != nil {
			return err
		}
	}
	p.sent = pending
	return nil
}

// callBack cancels those of the tasks that are not pending. A task whose result
// came in is one of them, and the agent, which has nothing left of it, forgets
// the cancel.
func (p *pusher) callBack(taskIDs iter.Seq[string], pending map[string]struct{}) error {
	for taskID := range taskIDs {
		if _, wanted := pending[taskID]; wanted {
			continue
		}
		if err := p.cancelTask(taskID); err != nil {
			return err
		}
	}
	return nil
}

func (p *pusher) deliver(ctx context.Context, task *wirev1.Task) error {
	message := &wirev1.TasksResponse{Message: &wirev1.TasksResponse_Task{Task: task}}
	if err := p.send(message); err != nil {
		return err
	}
	if err := p.fleet.engine.TaskDelivered(ctx, p.id, task.GetId()); err != nil && ctx.Err() == nil {
		p.fleet.log.Error("cannot record a task's delivery", "agent", p.id, "task", task.GetId(), "error", err)
	}
	return nil
}

func (p *pusher) cancelTask(taskID string) error {
	return p.send(&wirev1.TasksResponse{Message: &wirev1.TasksResponse_Cancel{Cancel: &wirev1.TaskCancel{TaskId: taskID}}})
}

func (p *pusher) keepAlive(interval time.Duration) error {
	return p.send(&wirev1.TasksResponse{Message: &wirev1.TasksResponse_KeepAlive{
		KeepAlive: &wirev1.KeepAlive{Interval: durationpb.New(interval)},
	}})
}

// send writes one message; an agent that does not read it in time loses the
// stream.
func (p *pusher) send(message *wirev1.TasksResponse) error {
	if err := p.stream.ctx.Err(); err != nil {
		return err
	}
	if err := p.peer.response.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return err
	}
	if err := p.out.Send(message); err != nil {
		return err
	}
	return p.peer.response.SetWriteDeadline(time.Time{})
}

// announceLocks serialises the calls of AgentConnected for one agent; agents
// that share one by chance wait for each other, no more.
type announceLocks struct {
	seed  maphash.Seed
	locks [64]sync.Mutex
}

func (a *announceLocks) of(id string) *sync.Mutex {
	return &a.locks[maphash.String(a.seed, id)%uint64(len(a.locks))]
}
