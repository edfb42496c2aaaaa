package lifecycle

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

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
func (e *Engine) Deliver(ctx context.Context, b intake.Batch) error {
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
		if err := j.tx.SetEventThreat(r.ID, id); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) feed(j *job, ev event.Event, l event.Local) (threatID int64, err error) {
	ep, mac, err := e.resolve(j, l, ev.Time)
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
	t := threat.Threat{
		EndpointID: ep.ID, Kind: ev.Kind, Signature: ev.Signature, Severity: ev.Severity, Role: l.Role, RoleReason: l.RoleReason,
		Flows: []threat.Flow{flow(ev, l)}, EventCount: 1, FirstSeen: ev.Time, LastSeen: ev.Time,
		OpenedAt: j.now, UpdatedAt: j.now,
	}
	t.Containable, t.Spoofable = containable(l, mac)
	if err := j.tx.AddThreat(&t); err != nil {
		return 0, err
	}
	f, ep, err := j.facts(t)
	if err != nil {
		return 0, err
	}
	return t.ID, e.apply(j, t, f, ep, threat.OnDetected(e.policy, f, ev.Source))
}

// again feeds a threat. Better evidence of who acted than its first event gave
// is taken over, so that a burst which begins with a lone SYN is judged by the
// connection that followed.
func (e *Engine) again(j *job, t threat.Threat, ev event.Event, l event.Local, mac *endpoint.MAC) error {
	t.EventCount++
	if ev.Time.After(t.LastSeen) {
		t.LastSeen = ev.Time
	}
	fl := flow(ev, l)
	same := func(o threat.Flow) bool { return o.Proto == fl.Proto && o.Local == fl.Local && o.Remote == fl.Remote }
	if len(t.Flows) < threat.MaxFlows && !slices.ContainsFunc(t.Flows, same) {
		t.Flows = append(t.Flows, fl)
	}
	ok, why := containable(l, mac)
	if t.State.Ended() {
		return j.tx.SetThreat(t)
	}
	if t.Containable || !ok {
		f, ep, err := j.facts(t)
		if err != nil {
			return err
		}
		return e.apply(j, t, f, ep, threat.OnAgain(e.policy, f))
	}
	t.Containable, t.Spoofable, t.Role, t.RoleReason = ok, why, l.Role, l.RoleReason
	f, ep, err := j.facts(t)
	if err != nil {
		return err
	}
	return e.apply(j, t, f, ep, threat.OnBetterEvidence(e.policy, f, why))
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
