package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cordon-security/cordon/mitigator/store"
)

const (
	// pruneRows bounds one transaction of retention, and prunePause leaves the store
	// to others between two: containment never waits for more than one.
	pruneRows  = 100
	prunePause = 10 * time.Millisecond
	// behindAfter is how long removing may take with pauses: what takes longer is
	// a flood, which must not come in faster than it goes.
	behindAfter = time.Minute
	// eventsEvery is how often events are looked at, which come by the million;
	// everything every allEvery.
	eventsEvery = time.Minute
	allEvery    = time.Hour
	// clockSlack is how far the clock may have been set without retention waiting:
	// a clock that jumped a year ahead must not remove a year.
	clockSlack = time.Hour
	// settleFor is how long after the start, or after the clock was set, nothing is
	// removed: the clock may be put right.
	settleFor = 10 * time.Minute
)

// watchRetention removes what retention says, until ctx ends.
func (e *Engine) watchRetention(ctx context.Context) {
	tick := time.NewTicker(eventsEvery)
	defer tick.Stop()
	since, lastAll := time.Now(), time.Time{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Now()
		if setBy(since, now).Abs() > clockSlack {
			e.log.Warn("the clock was set: retention waits", "for", settleFor)
			since = now
		}
		if now.Sub(since) < settleFor {
			continue
		}
		all := lastAll.IsZero() || now.Sub(lastAll) >= allEvery
		if all {
			lastAll = now
		}
		if err := e.retain(ctx, all); err != nil && ctx.Err() == nil && !errors.Is(err, store.ErrFull) {
			e.log.Error("retention not carried out; tried again", "err", err)
		}
	}
}

// retain removes what is due: events, or everything.
func (e *Engine) retain(ctx context.Context, all bool) error {
	r, now := e.retention, e.now().UTC()
	c := store.Cutoffs{MaxEvents: r.MaxEvents, Events: before(now, r.Events)}
	if all {
		c.Threats, c.Endpoints, c.Bindings = before(now, r.Threats), before(now, r.Endpoints), before(now, r.Bindings)
	}
	if err := e.prune(ctx, c); err != nil || !all || r.MaxEndpoints == 0 {
		return err
	}
	// Too many endpoints: the unused ones go earlier and earlier, down to those
	// that a device has confirmed of late.
	for _, age := range []time.Duration{7 * 24 * time.Hour, 24 * time.Hour, time.Hour, 3 * confirmEvery} {
		n, err := e.countEndpoints(ctx)
		if err != nil || n <= r.MaxEndpoints {
			return err
		}
		e.log.Warn("more endpoints than retention.max_endpoints: unused ones go before their time", "endpoints", n, "unseen_for", age)
		if err := e.prune(ctx, store.Cutoffs{Endpoints: now.Add(-age)}); err != nil {
			return err
		}
	}
	return nil
}

func before(now time.Time, age time.Duration) time.Time {
	if age == 0 {
		return time.Time{}
	}
	return now.Add(-age)
}

func (e *Engine) countEndpoints(ctx context.Context) (n int, err error) {
	err = e.store.View(ctx, func(v store.View) error {
		n, err = v.CountEndpoints()
		return err
	})
	return n, err
}

// prune removes in many small transactions.
func (e *Engine) prune(ctx context.Context, c store.Cutoffs) error {
	var total store.Pruned
	pause, began := prunePause, time.Now()
	for {
		var p store.Pruned
		err := e.store.Update(ctx, func(tx store.Tx) (err error) {
			p, err = tx.Prune(c, pruneRows)
			return err
		})
		if err != nil {
			e.backlog.heed(err, e.now())
			return fmt.Errorf("remove what is due by retention: %w", err)
		}
		total.Events += p.Events
		total.Threats += p.Threats
		total.Quarantines += p.Quarantines
		total.Endpoints += p.Endpoints
		total.Bindings += p.Bindings
		if !p.More {
			break
		}
		c.From = p.Next
		if time.Since(began) > behindAfter {
			pause = 0
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
	if total.Events+total.Threats+total.Quarantines+total.Endpoints+total.Bindings > 0 {
		e.log.Info("removed by retention", "events", total.Events, "threats", total.Threats, "quarantines", total.Quarantines,
			"endpoints", total.Endpoints, "bindings", total.Bindings)
	}
	return nil
}

// errTooManyUnknown means that an address is not known, and that too many such
// are kept already.
var errTooManyUnknown = errors.New("too many endpoints are known by nothing but an address")

// unknownCount remembers how many endpoints are known by nothing but an address:
// counting them for every alert would let a flood of forged ones hold up the rest.
type unknownCount struct {
	mu      sync.Mutex
	n       int
	counted time.Time
	// refused is when one was last turned away.
	refused time.Time
}

// recountEvery is how old the count may be.
const recountEvery = 10 * time.Second

// admitUnknown reports whether one more endpoint may be made of an address alone.
// A transaction that is undone leaves the count too high until it is counted anew.
func (e *Engine) admitUnknown(j *job) (bool, error) {
	most := e.retention.MaxUnknown
	if most == 0 {
		return true, nil
	}
	u := &e.unknown
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.counted.IsZero() || j.now.Sub(u.counted).Abs() >= recountEvery {
		n, err := j.tx.CountUnknown(most)
		if err != nil {
			return false, fmt.Errorf("count endpoints known by an address alone: %w", err)
		}
		u.n, u.counted = n, j.now
	}
	if u.n < most {
		u.n++
		return true, nil
	}
	if j.now.Sub(u.refused).Abs() >= refusedFor {
		j.say("too many endpoints are known by nothing but an address: alerts of further ones are kept as events alone", "most", most)
	}
	u.refused = j.now
	return false, nil
}

// refusedFor is how long the alarm lasts after the last one that was turned away.
const refusedFor = 10 * time.Minute

func (u *unknownCount) atBound(now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return !u.refused.IsZero() && now.Sub(u.refused).Abs() < refusedFor
}
