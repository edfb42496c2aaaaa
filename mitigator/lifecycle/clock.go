package lifecycle

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/cordon-security/cordon/mitigator/endpoint"
	"github.com/cordon-security/cordon/mitigator/store"
	"github.com/cordon-security/cordon/mitigator/threat"
)

// heldRetry is how often quarantines held at the cap are looked at again.
const heldRetry = 10 * time.Second

// perSweep bounds what one transaction of the clock does, so that a thousand
// deadlines at once do not hold back an alert.
const perSweep = 100

// Run watches the clock (deadlines of tasks, ends of quarantines, the cap's
// window), carries out what a full disk held up, and removes what retention says.
// It returns when ctx ends.
func (e *Engine) Run(ctx context.Context) error {
	var beside sync.WaitGroup
	defer beside.Wait()
	beside.Go(func() { e.watchDisk(ctx) })
	beside.Go(func() { e.watchRetention(ctx) })
	held := time.NewTicker(heldRetry)
	defer held.Stop()
	clock := time.Now()
	for {
		// A deadline that could not be carried out is still due: without the pause
		// a full disk would be hammered.
		wait, err := heldRetry, e.followClock(ctx, &clock)
		if err == nil {
			err = e.Sweep(ctx)
		}
		if err == nil {
			wait, err = e.untilDue(ctx)
		}
		if err != nil && ctx.Err() == nil {
			e.log.Error("deadlines not carried out; tried again", "err", err, "after", heldRetry)
		}
		due := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			due.Stop()
			return nil
		case <-due.C:
		case <-e.kick:
			letPass(ctx)
		case <-held.C:
			if err := e.retryHeld(ctx); err != nil && ctx.Err() == nil {
				e.log.Error("held quarantines not looked at; tried again", "err", err, "after", heldRetry)
			}
		}
		due.Stop()
	}
}

// kickPause is how long deadlines wait after a commit, which may have brought new
// ones: they are seconds away, and what the commit ordered is on its way to agents
// and devices just then and must not wait for a processor.
const kickPause = 25 * time.Millisecond

func letPass(ctx context.Context) {
	t := time.NewTimer(kickPause)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// setSlack is how far the clock may be set without the deadlines of tasks moving:
// well below the least that an agent is given.
const setSlack = 5 * time.Second

// followClock moves the deadlines of tasks when the wall clock went otherwise than
// time did since last, and makes last now. After a machine was suspended, or a
// clock was put right, agents would count as not answering that had no time to,
// and their endpoints would be cut off.
func (e *Engine) followClock(ctx context.Context, last *time.Time) error {
	now := time.Now()
	by := setBy(*last, now)
	if by.Abs() > setSlack {
		if err := e.shiftTasks(ctx, by); err != nil {
			return fmt.Errorf("move the deadlines of tasks with the clock: %w", err)
		}
	}
	*last = now
	return nil
}

// setBy is by how much the wall clock was set between two readings. Round drops
// the monotonic part.
func setBy(last, now time.Time) time.Duration {
	return ahead(now.Round(0).Sub(last.Round(0)), now.Sub(last))
}

// ahead is by how much the wall clock went otherwise than time did.
func ahead(wall, elapsed time.Duration) time.Duration { return wall - elapsed }

// afterAll is later than any deadline.
var afterAll = time.Unix(1<<40, 0)

func (e *Engine) shiftTasks(ctx context.Context, by time.Duration) error {
	return e.urgently(ctx, func(j *job) error {
		open, err := j.tx.TasksDue(afterAll, math.MaxInt32)
		if err != nil {
			return err
		}
		for _, t := range open {
			t.CreatedAt, t.HoldUntil = t.CreatedAt.Add(by), t.HoldUntil.Add(by)
			if !t.DeliveredAt.IsZero() {
				t.DeliveredAt = t.DeliveredAt.Add(by)
			}
			if err := j.tx.SetTask(t); err != nil {
				return err
			}
		}
		j.say("the clock was set, or the machine was suspended: the deadlines of tasks moved with it", "by", by, "tasks", len(open))
		return nil
	})
}

func (e *Engine) untilDue(ctx context.Context) (time.Duration, error) {
	wait := heldRetry
	err := e.store.View(ctx, func(v store.View) error {
		at, ok, err := v.NextDue()
		if err == nil && ok {
			wait = min(wait, max(at.Sub(e.now()), 0))
		}
		return err
	})
	return wait, err
}

// Sweep carries out every deadline that has passed.
func (e *Engine) Sweep(ctx context.Context) error {
	for {
		var more bool
		var tasks, quarantines int
		err := e.store.View(ctx, func(v store.View) error {
			ts, err := v.TasksDue(e.now(), 1)
			if err != nil {
				return err
			}
			qs, err := v.QuarantinesDue(e.now(), 1)
			tasks, quarantines = len(ts), len(qs)
			return err
		})
		if err != nil || tasks+quarantines == 0 {
			return err
		}
		err = e.urgently(ctx, func(j *job) error {
			n, err := e.expireTasks(j)
			if err != nil {
				return err
			}
			m, err := e.expireQuarantines(j)
			more = n == perSweep || m == perSweep
			return err
		})
		if err != nil || !more {
			return err
		}
	}
}

func (e *Engine) expireTasks(j *job) (int, error) {
	tasks, err := j.tx.TasksDue(j.now, perSweep)
	if err != nil {
		return 0, fmt.Errorf("tasks due: %w", err)
	}
	for _, task := range tasks {
		if err := e.expireTask(j, task); err != nil {
			return 0, fmt.Errorf("expire task %s: %w", task.ID, err)
		}
	}
	return len(tasks), nil
}

func (e *Engine) expireTask(j *job, task threat.Task) error {
	cause := fmt.Sprintf("the agent did not answer the %s within %v", task.Kind, task.Limit)
	if task.State == threat.TaskPending {
		cause = fmt.Sprintf("the agent was away, and the %s got no answer within %v", task.Kind, task.HoldUntil.Sub(task.CreatedAt))
	}
	task.State, task.EndedAt = threat.TaskExpired, j.now
	if err := j.tx.SetTask(task); err != nil {
		return err
	}
	j.wake(task.AgentID)
	t, err := j.tx.Threat(task.ThreatID)
	if err != nil || t.State.Ended() {
		return err
	}
	f, ep, err := j.facts(t)
	if err != nil {
		return err
	}
	return e.apply(j, t, f, ep, threat.OnTaskExpired(e.policy, f, cause))
}

func (e *Engine) expireQuarantines(j *job) (int, error) {
	due, err := j.tx.QuarantinesDue(j.now, perSweep)
	if err != nil {
		return 0, fmt.Errorf("quarantines due: %w", err)
	}
	for _, q := range due {
		if err := e.finish(j, q, threat.ByPolicy, "the quarantine expired"); err != nil {
			return 0, err
		}
		if err := e.end(j, q, threat.ByPolicy, "expired"); err != nil {
			return 0, err
		}
	}
	return len(due), nil
}

// retryHeld orders held quarantines, oldest first, as far as the cap allows now.
func (e *Engine) retryHeld(ctx context.Context) error {
	if e.policy.Mode == threat.Observe {
		return nil
	}
	var any bool
	err := e.store.View(ctx, func(v store.View) error {
		qs, err := v.QuarantinesIn(threat.QuarantineHeld, 1)
		any = len(qs) > 0
		return err
	})
	if err != nil || !any {
		return err
	}
	return e.urgently(ctx, func(j *job) error {
		qs, err := j.tx.QuarantinesIn(threat.QuarantineHeld, perSweep)
		if err != nil {
			return err
		}
		for _, q := range qs {
			if ok, err := e.unhold(j, q); err != nil || !ok {
				return err
			}
		}
		return nil
	})
}

// neverOrder ends a held quarantine whose endpoint is protected since, and tells
// the threats that waited for it.
func (e *Engine) neverOrder(j *job, q threat.Quarantine, ep endpoint.Endpoint, refusal error) error {
	holders, err := e.holders(j, q)
	if err != nil {
		return err
	}
	for _, t := range holders {
		t.QuarantineID, t.WaitingFor = "", threat.ForPerson+" to decide: "+refusal.Error()
		if err := e.note(j, &t, ep, threat.ByPolicy, "quarantine refused: "+refusal.Error()); err != nil {
			return err
		}
		if err := j.tx.SetThreat(t); err != nil {
			return err
		}
	}
	q.State, q.Detail, q.EndedAt, q.EndedBy = threat.QuarantineEnded, refusal.Error(), j.now, threat.ByPolicy
	return j.tx.SetQuarantine(q)
}

func (e *Engine) unhold(j *job, q threat.Quarantine) (bool, error) {
	ep, err := j.tx.Endpoint(q.EndpointID)
	if err != nil {
		return false, err
	}
	refusal, err := e.check(j.tx, j.now, ep)
	if err != nil || (refusal != nil && e.guard.AtCap(refusal)) {
		return false, err
	}
	if refusal != nil {
		return true, e.neverOrder(j, q, ep, refusal)
	}
	// The cap counts it from now on, not from when it was first wished for.
	q.State, q.Detail, q.CreatedAt = threat.QuarantineOrdered, "", j.now
	if err := j.tx.SetQuarantine(q); err != nil {
		return false, err
	}
	if err := e.send(j, q.ID); err != nil {
		return false, err
	}
	holders, err := e.holders(j, q)
	if err != nil {
		return false, err
	}
	for _, t := range holders {
		t.WaitingFor = ""
		if err := e.note(j, &t, ep, threat.ByPolicy, "the cap allows it now; quarantine ordered: "+describe(ep, q)); err != nil {
			return false, err
		}
		if err := j.tx.SetThreat(t); err != nil {
			return false, err
		}
	}
	return true, nil
}
