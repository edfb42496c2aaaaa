package lifecycle

import (
	"context"
	"errors"
	"time"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
	"github.com/cordon-security/cordon/mitigator/endpoint"
	"github.com/cordon-security/cordon/mitigator/event"
	"github.com/cordon-security/cordon/mitigator/store"
	"github.com/cordon-security/cordon/mitigator/threat"
)

const (
	minRoomPause = 250 * time.Millisecond
	maxRoomPause = 5 * time.Second
	// bindingsAtOnce bounds one transaction of held bindings.
	bindingsAtOnce = 256
)

// containNow contains what policy contains at once, on a disk that has no room
// for the events themselves: only those that lead to a containment are written,
// from the store's reserve, and they are recognised when their batch comes in.
// What even the reserve has no room for is tried again by watchDisk.
func (e *Engine) containNow(ctx context.Context, events []event.Classified) {
	var urgent []event.Classified
	err := e.store.View(ctx, func(v store.View) error {
		for _, c := range events {
			ok, err := e.contains(v, c)
			if err != nil {
				return err
			}
			if ok {
				urgent = append(urgent, c)
			}
		}
		return nil
	})
	if err != nil {
		e.log.Error("events that wait for room on the disk not looked at; tried again", "err", err)
		urgent = events
	}
	for _, c := range urgent {
		err := e.urgently(ctx, func(j *job) error {
			// One event contains an endpoint; the others of a burst can wait.
			if ok, err := e.contains(j.tx, c); err != nil || !ok {
				return err
			}
			return e.take(j, c)
		})
		if err != nil {
			e.backlog.keep([]event.Classified{c})
		}
		if err != nil && !errors.Is(err, store.ErrFull) {
			e.log.Error("containment not carried out; tried again", "source", c.Source, "signature", c.Signature, "err", err)
		}
	}
}

// contains reports whether the event leads policy to cut an endpoint off now: the
// decision that take would come to, and the guard's.
func (e *Engine) contains(v store.View, c event.Classified) (bool, error) {
	if c.Disposition != event.Threat || e.policy.Mode != threat.Enforce {
		return false, nil
	}
	for _, l := range c.Locals {
		d, ep, err := e.foresee(v, c.Event, l)
		if err != nil {
			return false, err
		}
		if d.Quarantine == "" {
			continue
		}
		refusal, err := e.check(v, e.now().UTC(), ep)
		if err != nil || refusal == nil {
			return err == nil, err
		}
	}
	return false, nil
}

// foresee is the decision that an event would lead to. It is empty where the
// endpoint's MAC is not known, which policy does not cut off.
func (e *Engine) foresee(v store.View, ev event.Event, l event.Local) (threat.Decision, endpoint.Endpoint, error) {
	ep, mac, err := byMAC(v, l, ev.Time)
	if err != nil || mac == nil {
		return threat.Decision{}, ep, err
	}
	t, ok, err := v.LastThreat(ep.ID, ev.Kind)
	if err != nil {
		return threat.Decision{}, ep, err
	}
	if !ok || t.State.Ended() && ev.Time.After(t.EndedAt) {
		f, ep, err := factsOf(v, opened(ep, ev, l, mac, e.now().UTC()))
		return threat.OnDetected(e.policy, f, ev.Source), ep, err
	}
	if t.State.Ended() {
		return threat.Decision{}, ep, nil
	}
	_, ep, d, err := e.decideAgain(v, fed(t, ev, l), l, mac)
	return d, ep, err
}

// watchDisk carries out what waits in memory as soon as there is room, until ctx
// ends.
func (e *Engine) watchDisk(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.backlog.wake:
		}
		full := !e.backlog.held().since.IsZero()
		if full {
			e.log.Error("the disk is full: what is in force stays, and what comes in waits in memory; make room")
		}
		if !e.untilRoom(ctx) {
			return
		}
		if full {
			e.log.Info("the disk has room again, and nothing waits for it")
		}
	}
}

// untilRoom tries with growing pauses; it returns false when ctx ended first.
func (e *Engine) untilRoom(ctx context.Context) bool {
	for pause := minRoomPause; ; pause = min(2*pause, maxRoomPause) {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(pause):
		}
		if e.catchUp(ctx) {
			return true
		}
	}
}

// catchUp tries to make durable what waits, containments first. It reports
// whether the disk counts as well again.
func (e *Engine) catchUp(ctx context.Context) bool {
	if waiting := e.backlog.takeContainments(); len(waiting) > 0 {
		e.containNow(ctx, waiting)
	}
	err := errors.Join(e.flushStatuses(ctx), e.flush(ctx))
	if err != nil && !errors.Is(err, store.ErrFull) && ctx.Err() == nil {
		e.log.Error("what waits for the disk could not be stored; tried again", "err", err)
	}
	return err == nil && e.backlog.settle(e.now(), e.reserveWhole())
}

func (e *Engine) flush(ctx context.Context) error {
	// An update of nothing fills the reserve, without which none is taken.
	if err := e.update(ctx, func(*job) error { return nil }); err != nil {
		return err
	}
	for {
		held := e.backlog.heldBindings()
		n := min(len(held), bindingsAtOnce)
		if n == 0 {
			break
		}
		if err := e.takeBindings(ctx, held[:n]); err != nil {
			return err
		}
		e.backlog.dropBindings(n)
	}
	for {
		b, ok := e.backlog.first()
		if !ok {
			return nil
		}
		if err := e.deliver(ctx, b); err != nil {
			return err
		}
		e.backlog.pop()
	}
}

func (e *Engine) flushStatuses(ctx context.Context) error {
	for k, s := range e.backlog.heldStatuses() {
		if _, err := e.takeStatuses(ctx, k.device, []*wirev1.QuarantineStatus{s}); err != nil {
			return err
		}
		e.backlog.dropStatus(k, s)
	}
	return nil
}

func (e *Engine) reserveWhole() bool {
	left, whole := e.store.Reserve()
	return left >= whole
}
