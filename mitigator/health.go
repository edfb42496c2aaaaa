package mitigator

import (
	"context"
	"sync"
	"time"

	"github.com/cordon-security/cordon/mitigator/store"
)

const (
	healthTimeout = 5 * time.Second
	// writerTimeout is far above what a slow disk needs for one commit: a restart
	// would not make it faster.
	writerTimeout = time.Minute
)

// Healthy reports whether the store still answers, to who reads and to who
// writes: the watchdog's question. A full disk is an answer.
func (m *Mitigator) Healthy() bool {
	ctx, cancel := context.WithTimeout(context.Background(), healthTimeout)
	defer cancel()
	readable := m.store.View(ctx, func(v store.View) error {
		_, err := v.Epoch()
		return err
	}) == nil
	return m.writer.answers(m.store) && readable
}

// writerProbe asks a store's writer whether it still takes anything. An update
// cannot be given up once it waits, so there is at most one. It is safe for
// concurrent use.
type writerProbe struct {
	// limit is how long it may take to answer.
	limit time.Duration

	mu sync.Mutex
	// asked is when the probe that waits was begun; zero for none.
	asked time.Time
}

// answers asks, and reports whether it did not wait too long already.
func (p *writerProbe) answers(s store.Store) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asked.IsZero() {
		p.asked = time.Now()
		go p.ask(s)
	}
	return time.Since(p.asked) < p.limit
}

// ask writes nothing, which costs no access to the disk. What the answer is says
// its own caller: an error is one, too.
func (p *writerProbe) ask(s store.Store) {
	_ = s.Update(context.Background(), func(store.Tx) error { return nil })
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = time.Time{}
}
