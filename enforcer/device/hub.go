package device

import (
	"sync"
	"sync/atomic"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

// hub hands events to those who watch. One that falls behind is dropped: it
// connects again and gets the state anew, and nobody else waits for it.
type hub struct {
	count atomic.Int32
	mu    sync.Mutex
	subs  map[*subscription]struct{}
}

type subscription struct {
	hub    *hub
	events chan *wirev1.WatchResponse
}

// queue is how many events a subscriber may be behind.
const queue = 4096

func newHub() *hub { return &hub{subs: map[*subscription]struct{}{}} }

func (h *hub) watched() bool { return h.count.Load() > 0 }

func (h *hub) subscribe() *subscription {
	s := &subscription{hub: h, events: make(chan *wirev1.WatchResponse, queue)}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.subs[s] = struct{}{}
	h.count.Add(1)
	return s
}

// close ends a subscription; it may be called more than once.
func (s *subscription) close() {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	s.hub.drop(s)
}

func (h *hub) drop(s *subscription) {
	if _, ok := h.subs[s]; ok {
		delete(h.subs, s)
		h.count.Add(-1)
		close(s.events)
	}
}

func (h *hub) publish(e *wirev1.WatchResponse) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.subs {
		select {
		case s.events <- e:
		default:
			h.drop(s)
		}
	}
}
