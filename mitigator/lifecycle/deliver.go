package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/cordon-security/cordon/mitigator/endpoint"
	"github.com/cordon-security/cordon/mitigator/event"
	"github.com/cordon-security/cordon/mitigator/intake"
	"github.com/cordon-security/cordon/mitigator/store"
	"github.com/cordon-security/cordon/mitigator/threat"
)

var _ intake.Sink = (*Engine)(nil)

// Cursor returns where a source's last durable batch ended.
func (e *Engine) Cursor(ctx context.Context, source string) ([]byte, error) {
	var cursor []byte
	err := e.store.View(ctx, func(v store.View) (err error) {
		cursor, err = v.Cursor(source)
		return err
	})
	return cursor, err
}

// Deliver makes a batch durable: its events, the threats that they open or
// feed, all that follows from them, and the source's cursor, in one transaction.
// On a full disk the batch waits in memory, up to a bound, and the stored cursor
// stays behind it, so that after a crash the source reads it again; what policy
// contains at once is contained all the same, from the store's reserve.
func (e *Engine) Deliver(ctx context.Context, b intake.Batch) error {
	if !e.backlog.has(b.Source) {
		err := e.deliver(ctx, b)
		if !errors.Is(err, store.ErrFull) {
			return err
		}
	}
	e.containNow(ctx, b.Events)
	return e.backlog.add(b)
}

func (e *Engine) deliver(ctx context.Context, b intake.Batch) error {
	return e.update(ctx, func(j *job) error {
		for _, c := range b.Events {
			if err := e.take(j, c); err != nil {
				return fmt.Errorf("event of source %s: %w", b.Source, err)
			}
		}
		for _, r := range b.Rejects {
			if err := j.tx.AddReject(r, b.Source); err != nil {
				return err
			}
			j.say("unreadable record kept aside", "source", b.Source, "reason", r.Reason)
		}
		if b.Cursor == nil {
			return nil
		}
		return j.tx.SetCursor(b.Source, b.Cursor)
	})
}

// take stores one event and lets it open or feed a threat on each side of its
// flow that is ours.
func (e *Engine) take(j *job, c event.Classified) error {
	r := event.Record{Classified: c}
	added, err := j.tx.AddEvent(&r)
	if err != nil || !added {
		return err
	}
	if c.Disposition == event.Kept {
		j.say("event kept: neither side is ours", "event", r.ID, "source", c.Event.Source, "signature", c.Event.Signature,
			"src", c.Event.Src, "dst", c.Event.Dst)
	}
	if c.Disposition != event.Threat {
		return nil
	}
	for _, l := range c.Locals {
		id, err := e.feed(j, c.Event, l)
		if err != nil {
			return fmt.Errorf("endpoint %s: %w", l.Addr, err)
		}
		if id == 0 {
			continue
		}
		if err := j.tx.SetEventThreat(r.ID, id); err != nil {
			return err
		}
	}
	return nil
}

// feed lets the event open or feed a threat. It returns 0 for one of an address
// that is not known, when there are too many of those already.
func (e *Engine) feed(j *job, ev event.Event, l event.Local) (threatID int64, err error) {
	ep, mac, err := e.resolve(j, l, ev.Time)
	if errors.Is(err, errTooManyUnknown) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	t, ok, err := j.tx.LastThreat(ep.ID, ev.Kind)
	if err != nil {
		return 0, err
	}
	// An event from before the end belongs to what has ended; one from after it
	// says that the threat is back.
	if ok && (!t.State.Ended() || !ev.Time.After(t.EndedAt)) {
		return t.ID, e.again(j, t, ev, l, mac)
	}
	return e.open(j, ep, ev, l, mac)
}

func (e *Engine) open(j *job, ep endpoint.Endpoint, ev event.Event, l event.Local, mac *endpoint.MAC) (int64, error) {
	t := opened(ep, ev, l, mac, j.now)
	if err := j.tx.AddThreat(&t); err != nil {
		return 0, err
	}
	f, ep, err := j.facts(t)
	if err != nil {
		return 0, err
	}
	return t.ID, e.apply(j, t, f, ep, threat.OnDetected(e.policy, f, ev.Source))
}

// opened is a threat as its first event makes it.
func opened(ep endpoint.Endpoint, ev event.Event, l event.Local, mac *endpoint.MAC, now time.Time) threat.Threat {
	t := threat.Threat{
		EndpointID: ep.ID, Kind: ev.Kind, Signature: ev.Signature, Severity: ev.Severity, Role: l.Role, RoleReason: l.RoleReason,
		Flows: []threat.Flow{flow(ev, l)}, EventCount: 1, FirstSeen: ev.Time, LastSeen: ev.Time,
		OpenedAt: now, UpdatedAt: now,
	}
	t.Containable, t.Spoofable = containable(l, mac)
	return t
}

// again feeds a threat with one more event.
func (e *Engine) again(j *job, t threat.Threat, ev event.Event, l event.Local, mac *endpoint.MAC) error {
	t = fed(t, ev, l)
	if t.State.Ended() {
		return j.tx.SetThreat(t)
	}
	f, ep, d, err := e.decideAgain(j.tx, t, l, mac)
	if err != nil {
		return err
	}
	return e.apply(j, f.Threat, f, ep, d)
}

// fed is a threat with one more event counted.
func fed(t threat.Threat, ev event.Event, l event.Local) threat.Threat {
	t.EventCount++
	if ev.Time.After(t.LastSeen) {
		t.LastSeen = ev.Time
	}
	if ev.Time.Before(t.FirstSeen) {
		t.FirstSeen = ev.Time
	}
	fl := flow(ev, l)
	same := func(o threat.Flow) bool { return o.Proto == fl.Proto && o.Local == fl.Local && o.Remote == fl.Remote }
	if len(t.Flows) < threat.MaxFlows && !slices.ContainsFunc(t.Flows, same) {
		t.Flows = append(slices.Clip(t.Flows), fl)
	}
	return t
}

// decideAgain decides on an open threat that one more event feeds. Better
// evidence of who acted than its first event gave is taken over, so that a burst
// which begins with a lone SYN is judged by the connection that followed.
func (e *Engine) decideAgain(v store.View, t threat.Threat, l event.Local, mac *endpoint.MAC) (threat.Facts, endpoint.Endpoint, threat.Decision, error) {
	ok, why := containable(l, mac)
	better := ok && !t.Containable
	if better {
		t.Containable, t.Spoofable, t.Role, t.RoleReason = ok, why, l.Role, l.RoleReason
	}
	f, ep, err := factsOf(v, t)
	if better {
		return f, ep, threat.OnBetterEvidence(e.policy, f, why), err
	}
	return f, ep, threat.OnAgain(e.policy, f), err
}

func containable(l event.Local, mac *endpoint.MAC) (bool, string) {
	if mac == nil {
		return l.Containable(endpoint.MAC{})
	}
	return l.Containable(*mac)
}

func flow(ev event.Event, l event.Local) threat.Flow {
	return threat.Flow{
		Proto: ev.Proto, Outbound: l.Outbound, At: ev.Time, Remote: l.Remote,
		Local: netip.AddrPortFrom(l.Addr, l.Port),
	}
}
