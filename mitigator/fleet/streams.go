package fleet

import (
	"context"
	"sync"
	"time"
)

// abortAfter is how long a stream that is closed has to tell its agent why.
const abortAfter = 2 * time.Second

// stream is one open Tasks stream.
type stream struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	wakeUp chan struct{}

	mu sync.Mutex
	// abort makes a write that hangs in a slow peer's window return; nil once
	// the handler is through, after which the connection is not ours.
	abort func()
}

func newStream(ctx context.Context, abort func()) *stream {
	s := &stream{abort: abort, wakeUp: make(chan struct{}, 1)}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	return s
}

func (s *stream) wake() {
	select {
	case s.wakeUp <- struct{}{}:
	default:
	}
}

// close ends the stream; one whose write hangs is cut off a little later.
func (s *stream) close(cause error) {
	s.cancel(cause)
	time.AfterFunc(abortAfter, s.cutOff)
}

func (s *stream) cutOff() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.abort != nil {
		s.abort()
	}
}

// finish ends the stream from its handler's side.
func (s *stream) finish() {
	s.cancel(nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.abort = nil
}

// streams holds the one Tasks stream of each connected agent. The zero value is
// ready.
type streams struct {
	mu      sync.Mutex
	byAgent map[string]*stream
}

// open makes the stream the agent's only one.
func (r *streams) open(agentID string, s *stream) {
	r.mu.Lock()
	if r.byAgent == nil {
		r.byAgent = make(map[string]*stream)
	}
	old := r.byAgent[agentID]
	r.byAgent[agentID] = s
	r.mu.Unlock()
	if old != nil {
		old.close(errReplaced)
	}
}

// remove forgets the stream, if it is still the agent's.
func (r *streams) remove(agentID string, s *stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byAgent[agentID] == s {
		delete(r.byAgent, agentID)
	}
}

func (r *streams) get(agentID string) *stream {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byAgent[agentID]
}

func (r *streams) has(agentID string) bool { return r.get(agentID) != nil }

func (r *streams) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.byAgent)
}

func (r *streams) wake(agentID string) {
	if s := r.get(agentID); s != nil {
		s.wake()
	}
}

func (r *streams) close(agentID string, cause error) {
	if s := r.get(agentID); s != nil {
		s.close(cause)
	}
}

func (r *streams) closeAll(cause error) {
	r.mu.Lock()
	all := make([]*stream, 0, len(r.byAgent))
	for _, s := range r.byAgent {
		all = append(all, s)
	}
	r.mu.Unlock()
	for _, s := range all {
		s.close(cause)
	}
}
