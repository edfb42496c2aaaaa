package device

import (
	"context"
	"maps"
	"slices"
	"sync"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

// heard orders what the device says of quarantines. Its answers to orders and
// what it says by itself come on two connections and may cross: without the
// numbers an old "in force" could stand for the last word.
type heard struct {
	mu     sync.Mutex
	last   map[string]uint64
	newest uint64
}

// mostHeard is how many quarantines the numbers are kept of; those that many
// numbers behind have no message under way any more.
const mostHeard = 200_000

// reset forgets what another run of the device may have said.
func (h *heard) reset() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last, h.newest = map[string]uint64{}, 0
}

// fresh leaves out what is older than what was heard of the same quarantine. The
// caller holds the lock.
func (h *heard) fresh(in []*wirev1.QuarantineStatus) []*wirev1.QuarantineStatus {
	out := make([]*wirev1.QuarantineStatus, 0, len(in))
	for _, s := range in {
		n := s.GetSequence()
		if n == 0 { // of a device that does not number: there is nothing to remember
			out = append(out, s)
			continue
		}
		if n < h.last[s.GetQuarantineId()] {
			continue
		}
		h.last[s.GetQuarantineId()] = n
		h.newest = max(h.newest, n)
		out = append(out, s)
	}
	if len(h.last) > mostHeard {
		maps.DeleteFunc(h.last, func(_ string, n uint64) bool { return n+mostHeard/2 < h.newest })
	}
	return out
}

// takeAllIn takes many statuses in, a commit's worth at a time.
func (l *Link) takeAllIn(ctx context.Context, in []*wirev1.QuarantineStatus) error {
	for part := range slices.Chunk(in, atOnce) {
		if err := l.takeIn(ctx, part); err != nil {
			return err
		}
	}
	return nil
}

// takeIn hands statuses on, in the order in which the device said them: what is
// taken in holds the others back until it is durable.
func (l *Link) takeIn(ctx context.Context, in []*wirev1.QuarantineStatus) error {
	l.heard.mu.Lock()
	defer l.heard.mu.Unlock()
	return l.life.DeviceStatus(ctx, l.name, l.heard.fresh(in))
}
