package lifecycle

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
	"github.com/cordon-security/cordon/mitigator/event"
	"github.com/cordon-security/cordon/mitigator/intake"
	"github.com/cordon-security/cordon/mitigator/store"
)

// The bounds of what may wait in memory for room on the disk.
const (
	maxHeldBytes        = 32 << 20
	maxHeldContainments = 1000
	maxHeldBindings     = 8192
	maxHeldStatuses     = 8192
	// recordCost is what a record takes beside its raw bytes.
	recordCost = 1024
	// fullFor is how long after the last refused write the disk counts as full.
	fullFor = time.Minute
)

// backlog is what waits in memory for room on the disk. Nothing in it is the only
// copy but what a data source cannot send again and a device does not repeat. It
// is safe for concurrent use.
type backlog struct {
	// wake is signalled when the disk was found full that was well before, and when
	// something comes to wait while it counts as well.
	wake chan struct{}

	mu sync.Mutex
	// since is when the disk was first found full, last when it was so last; both
	// zero while it is well.
	since, last time.Time
	// batches in the order of their delivery, and their size in bytes.
	batches []intake.Batch
	size    int
	// containments are events that lead to one which even the reserve had no room for.
	containments []event.Classified
	bindings     []seen
	// newest is the place in bindings of each address's newest.
	newest map[netip.Addr]int
	// statuses are the newest words of devices.
	statuses map[statusKey]*wirev1.QuarantineStatus
}

type statusKey struct{ device, quarantine string }

func newBacklog() *backlog {
	return &backlog{
		wake: make(chan struct{}, 1), newest: map[netip.Addr]int{}, statuses: map[statusKey]*wirev1.QuarantineStatus{},
	}
}

// heed notes an update's error when it was a full disk.
func (b *backlog) heed(err error, now time.Time) {
	if !errors.Is(err, store.ErrFull) {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last = now
	if !b.since.IsZero() {
		return
	}
	b.since = now
	b.rouse()
}

// rouse wakes who carries out what waits. The caller holds the lock.
func (b *backlog) rouse() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// added sees to it that what was just added is carried out, also when the last of
// what it queued behind went in the meantime and nobody watches any more. The
// caller holds the lock.
func (b *backlog) added() {
	if b.since.IsZero() {
		b.rouse()
	}
}

// has reports whether a batch of the source waits: the next one must wait behind
// it, or the source's cursor would pass it.
func (b *backlog) has(source string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.ContainsFunc(b.batches, func(o intake.Batch) bool { return o.Source == source })
}

// add keeps a batch. At the bound it returns an error that wraps store.ErrFull:
// the source waits with it.
func (b *backlog) add(batch intake.Batch) error {
	cost := costOf(batch)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.size+cost > maxHeldBytes {
		return fmt.Errorf("%w: %d batches of events wait in memory already: make room on the disk", store.ErrFull, len(b.batches))
	}
	b.size += cost
	b.batches = append(b.batches, batch)
	b.added()
	return nil
}

func costOf(batch intake.Batch) int {
	cost := recordCost + len(batch.Cursor)
	for _, c := range batch.Events {
		cost += recordCost + len(c.Raw)
	}
	for _, r := range batch.Rejects {
		cost += recordCost + len(r.Raw)
	}
	return cost
}

func (b *backlog) first() (intake.Batch, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.batches) == 0 {
		return intake.Batch{}, false
	}
	return b.batches[0], true
}

// pop drops the first batch, which is durable now.
func (b *backlog) pop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.size -= costOf(b.batches[0])
	b.batches = slices.Delete(b.batches, 0, 1)
}

// keep notes events whose containment could not be made durable.
func (b *backlog) keep(events []event.Classified) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range events {
		same := func(o event.Classified) bool { return o.Source == c.Source && o.Key == c.Key }
		if len(b.containments) < maxHeldContainments && !slices.ContainsFunc(b.containments, same) {
			b.containments = append(b.containments, c)
		}
	}
	b.added()
}

func (b *backlog) takeContainments() []event.Classified {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := b.containments
	b.containments = nil
	return all
}

func (b *backlog) hasBindings() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.bindings) > 0
}

// addBindings keeps what a device saw. Above the bound it is dropped: devices
// repeat what holds.
func (b *backlog) addBindings(news []seen) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, n := range news {
		at, ok := b.newest[n.Addr]
		if ok && b.bindings[at].MAC == n.MAC && b.bindings[at].present == n.present {
			b.bindings[at].LastSeen = n.LastSeen
			continue
		}
		if len(b.bindings) < maxHeldBindings {
			b.newest[n.Addr] = len(b.bindings)
			b.bindings = append(b.bindings, n)
		}
	}
	b.added()
}

func (b *backlog) heldBindings() []seen {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.bindings)
}

// dropBindings drops the first n, which are durable now.
func (b *backlog) dropBindings(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bindings = slices.Delete(b.bindings, 0, n)
	clear(b.newest)
	for i, s := range b.bindings {
		b.newest[s.Addr] = i
	}
}

func (b *backlog) hasStatuses() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.statuses) > 0
}

// addStatuses keeps what a device says. Above the bound it returns an error that
// wraps store.ErrFull.
func (b *backlog) addStatuses(device string, statuses []*wirev1.QuarantineStatus) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.statuses)+len(statuses) > maxHeldStatuses {
		return fmt.Errorf("%w: %d words of devices wait in memory already: make room on the disk", store.ErrFull, len(b.statuses))
	}
	for _, s := range statuses {
		b.statuses[statusKey{device, s.GetQuarantineId()}] = s
	}
	b.added()
	return nil
}

func (b *backlog) heldStatuses() map[statusKey]*wirev1.QuarantineStatus {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.statuses)
}

// dropStatus drops a word that is durable now, unless a newer one took its place.
func (b *backlog) dropStatus(k statusKey, s *wirev1.QuarantineStatus) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.statuses[k] == s {
		delete(b.statuses, k)
	}
}

// settle ends the alarm when nothing waits and no write was refused for a while.
// It reports whether the disk counts as well.
func (b *backlog) settle(now time.Time, reserveWhole bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.batches)+len(b.containments)+len(b.bindings)+len(b.statuses) > 0 || !reserveWhole || now.Sub(b.last) < fullFor {
		return false
	}
	b.since, b.last = time.Time{}, time.Time{}
	return true
}

// held is what waits, in numbers.
type held struct {
	since                                    time.Time
	events, containments, bindings, statuses int
	atBound                                  bool
}

func (b *backlog) held() held {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := held{since: b.since, containments: len(b.containments), bindings: len(b.bindings), statuses: len(b.statuses), atBound: b.size > maxHeldBytes*9/10}
	for _, batch := range b.batches {
		h.events += len(batch.Events) + len(batch.Rejects)
	}
	return h
}
