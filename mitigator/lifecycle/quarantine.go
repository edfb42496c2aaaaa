package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cordon-security/cordon/mitigator/endpoint"
	"github.com/cordon-security/cordon/mitigator/store"
	"github.com/cordon-security/cordon/mitigator/threat"
)

// contain orders the threat's endpoint cut off by policy, or records what would
// have been ordered. What keeps it from being ordered is written into the
// timeline, and the threat waits.
func (e *Engine) contain(j *job, t *threat.Threat, ep endpoint.Endpoint, reason string) error {
	q := threat.Quarantine{
		ID: threat.NewID("q-"), EndpointID: ep.ID, ThreatID: t.ID, MACs: ep.MACs, Access: e.policy.Access,
		Reason: clip(reason), Actor: threat.ByPolicy, CreatedAt: j.now,
	}
	if e.policy.Expire > 0 {
		q.ExpiresAt = j.now.Add(e.policy.Expire)
	}
	waited := t.WaitingFor
	if err := e.place(j, ep, &q); err != nil {
		return err
	}
	switch q.State {
	case threat.QuarantineObserved:
		t.WaitingFor = threat.ForPerson + ": observe mode enforces nothing"
		return e.note(j, t, ep, threat.ByPolicy, "observe mode: would have quarantined "+describe(ep, q))
	case threat.QuarantineRefused:
		t.WaitingFor = threat.ForPerson + " to decide: " + q.Detail
		if t.WaitingFor == waited {
			return nil // said already: a burst of events must not fill the timeline
		}
		return e.note(j, t, ep, threat.ByPolicy, "quarantine refused: "+q.Detail)
	case threat.QuarantineHeld:
		t.QuarantineID = q.ID
		t.WaitingFor = "the cap: " + q.Detail
		return e.note(j, t, ep, threat.ByPolicy, "quarantine held: "+q.Detail)
	}
	t.QuarantineID, t.WaitingFor = q.ID, ""
	return e.note(j, t, ep, threat.ByPolicy, fmt.Sprintf("quarantine ordered: %s (%s)", describe(ep, q), reason))
}

// place passes a quarantine through the guard and stores it in the state that
// it comes out in: ordered, observed, held, or (with nothing to hold it) refused.
func (e *Engine) place(j *job, ep endpoint.Endpoint, q *threat.Quarantine) error {
	refusal, err := e.check(j.tx, j.now, ep)
	if err != nil {
		return err
	}
	switch {
	case refusal != nil && e.guard.AtCap(refusal):
		q.State, q.Detail = threat.QuarantineHeld, refusal.Error()
	case refusal != nil:
		q.State, q.Detail = threat.QuarantineRefused, refusal.Error()
		return nil // nothing is ordered, so nothing is stored: the timeline says it
	default:
		q.State = threat.QuarantineOrdered
	}
	if e.policy.Mode == threat.Observe {
		q.State = threat.QuarantineObserved
		return j.tx.AddQuarantine(*q)
	}
	if err := j.tx.AddQuarantine(*q); err != nil {
		return err
	}
	if q.State == threat.QuarantineOrdered {
		return e.send(j, q.ID)
	}
	return nil
}

// check asks the guard. The first result is the refusal, nil when it may be.
func (e *Engine) check(v store.View, now time.Time, ep endpoint.Endpoint) (refusal, err error) {
	recent, err := v.QuarantineTimes(now.Add(-e.guard.Window()))
	if err != nil {
		return nil, fmt.Errorf("count recent quarantines: %w", err)
	}
	active := 0
	if limit := e.guard.AtOnce(); limit > 0 {
		if active, err = v.CountOrderedQuarantines(limit + 1); err != nil {
			return nil, fmt.Errorf("count quarantines: %w", err)
		}
	}
	var bindings []endpoint.Binding
	for _, m := range ep.MACs {
		bs, err := v.BindingsOfMAC(m)
		if err != nil {
			return nil, fmt.Errorf("bindings of %s: %w", m, err)
		}
		for _, b := range bs {
			disputed, err := disputed(v, now, ep, b)
			if err != nil {
				return nil, err
			}
			if !disputed {
				bindings = append(bindings, b)
			}
		}
	}
	return e.guard.Check(now, ep, bindings, recent, active), nil
}

// dispute is how long an address that another machine had counts as a claim of
// whoever has it now: the owner of a claimed address speaks up well within it.
const dispute = 15 * time.Minute

// disputed reports whether another machine had the address until a moment ago. One
// who claims a protected address must not be protected by that.
func disputed(v store.View, now time.Time, ep endpoint.Endpoint, b endpoint.Binding) (bool, error) {
	all, err := v.Bindings(b.Addr)
	if err != nil {
		return false, fmt.Errorf("bindings of %s: %w", b.Addr, err)
	}
	return slices.ContainsFunc(all, func(o endpoint.Binding) bool {
		return !slices.Contains(ep.MACs, o.MAC) && (o.Until.IsZero() || now.Sub(o.Until) < dispute)
	}), nil
}

// send writes the order that makes the devices look at the quarantine again.
func (e *Engine) send(j *job, quarantineID string) error {
	if _, err := j.tx.AddOrder(quarantineID); err != nil {
		return err
	}
	j.devices = true
	return nil
}

// letGo ends the quarantine that a threat held up when nobody else needs it: it
// was policy's own, and no other open threat of the endpoint holds it.
func (e *Engine) letGo(j *job, t threat.Threat, last threat.Step) error {
	if t.QuarantineID == "" {
		return nil
	}
	q, err := j.tx.Quarantine(t.QuarantineID)
	if err != nil {
		return fmt.Errorf("quarantine of threat %d: %w", t.ID, err)
	}
	if !q.State.Active() || q.Actor != threat.ByPolicy {
		return nil
	}
	holders, err := e.holders(j, q)
	if err != nil {
		return err
	}
	for _, h := range holders {
		if h.ID != t.ID {
			return nil
		}
	}
	return e.end(j, q, threat.ByPolicy, last.Cause)
}

// holders lists the open threats that a quarantine stands for.
func (e *Engine) holders(j *job, q threat.Quarantine) ([]threat.Threat, error) {
	open, err := j.tx.ThreatsOfEndpoint(q.EndpointID)
	if err != nil {
		return nil, fmt.Errorf("threats held by quarantine %s: %w", q.ID, err)
	}
	var out []threat.Threat
	for _, t := range open {
		if t.QuarantineID == q.ID {
			out = append(out, t)
		}
	}
	return out, nil
}

// end releases a quarantine; the devices are ordered to lift it.
func (e *Engine) end(j *job, q threat.Quarantine, by, confirmation string) error {
	ordered := q.State.Ordered()
	q.State, q.EndedAt, q.EndedBy, q.Confirmation, q.Detail = threat.QuarantineEnded, j.now, by, clip(confirmation), ""
	if ordered {
		q.State = threat.QuarantineReleasing
	}
	if err := j.tx.SetQuarantine(q); err != nil {
		return err
	}
	j.say("quarantine released", "quarantine", q.ID, "by", by)
	if !ordered {
		return nil
	}
	return e.send(j, q.ID)
}

// ErrRefused means that a guard refused the quarantine: the text says which rule.
var ErrRefused = errors.New("quarantine refused")

// ErrAlready means that the endpoint has an active quarantine.
var ErrAlready = errors.New("the endpoint is quarantined already")

// ErrNotQuarantined means that there is nothing to release.
var ErrNotQuarantined = errors.New("the endpoint is not quarantined")

// ErrEnded means that the threat has come to its end already.
var ErrEnded = errors.New("the threat has ended already")

// ErrNoMAC means that the endpoint is known by no MAC, which a quarantine binds to.
var ErrNoMAC = errors.New("the endpoint's MAC is not known yet")

// QuarantineByPerson cuts an endpoint off on an administrator's word. In observe
// mode it records what would have been done; the caller sees that by its state.
// duration 0 means until released. On a full disk it uses up the store's reserve;
// without one the error wraps store.ErrFull.
func (e *Engine) QuarantineByPerson(ctx context.Context, endpointID int64, access threat.Access, reason, admin string, duration time.Duration) (threat.Quarantine, error) {
	var q threat.Quarantine
	err := e.urgently(ctx, func(j *job) error {
		ep, err := j.tx.Endpoint(endpointID)
		if err != nil {
			return fmt.Errorf("endpoint %d: %w", endpointID, err)
		}
		if len(ep.MACs) == 0 {
			return fmt.Errorf("%s: %w", ep.Name(), ErrNoMAC)
		}
		has, ok, err := j.tx.ActiveQuarantine(ep.ID)
		if err != nil {
			return fmt.Errorf("quarantine of %s: %w", ep.Name(), err)
		}
		if ok {
			return fmt.Errorf("%s (%s): %w", ep.Name(), has.ID, ErrAlready)
		}
		q = threat.Quarantine{
			ID: threat.NewID("q-"), EndpointID: ep.ID, MACs: ep.MACs, Access: access, Reason: clip(reason),
			Actor: "admin:" + admin, CreatedAt: j.now,
		}
		if duration > 0 {
			q.ExpiresAt = j.now.Add(duration)
		}
		if err := e.place(j, ep, &q); err != nil {
			return err
		}
		if q.State == threat.QuarantineRefused {
			return fmt.Errorf("%w: %s", ErrRefused, q.Detail)
		}
		j.say("quarantine by a person", "quarantine", q.ID, "endpoint", ep.Name(), "admin", admin, "state", string(q.State))
		return e.join(j, ep, q)
	})
	return q, err
}

// join makes the endpoint's open threats hold a person's quarantine up, so that
// their timelines follow it.
func (e *Engine) join(j *job, ep endpoint.Endpoint, q threat.Quarantine) error {
	if !q.State.Active() {
		return nil
	}
	open, err := j.tx.ThreatsOfEndpoint(ep.ID)
	if err != nil {
		return err
	}
	for _, t := range open {
		t.QuarantineID, t.WaitingFor = q.ID, ""
		if err := e.note(j, &t, ep, q.Actor, "quarantine ordered: "+describe(ep, q)); err != nil {
			return err
		}
		if err := j.tx.SetThreat(t); err != nil {
			return err
		}
	}
	return nil
}

// ReleaseByPerson ends the endpoint's quarantine and the threats that it stands
// for. The administrator's confirmation that the threat is gone goes into the
// timeline. On a full disk it uses up the store's reserve; without one the error
// wraps store.ErrFull and says what is left to do.
func (e *Engine) ReleaseByPerson(ctx context.Context, endpointID int64, admin, confirmation string) (threat.Quarantine, error) {
	var q threat.Quarantine
	err := e.urgently(ctx, func(j *job) error {
		var ok bool
		var err error
		if q, ok, err = j.tx.ActiveQuarantine(endpointID); err != nil {
			return err
		}
		if !ok {
			return ErrNotQuarantined
		}
		actor := "admin:" + admin
		if err := e.finish(j, q, actor, "released; confirmed that the threat is gone: "+confirmation); err != nil {
			return err
		}
		if err := e.end(j, q, actor, confirmation); err != nil {
			return err
		}
		q, err = j.tx.Quarantine(q.ID)
		return err
	})
	if errors.Is(err, store.ErrFull) {
		err = fmt.Errorf("not released (without the mitigator, `cordon-enforcer release-all` on the device lifts every quarantine): %w", err)
	}
	return q, err
}

// CloseByPerson ends a threat on an administrator's judgement: what waits for a
// person must be endable by one, also where no quarantine stands. A quarantine
// of policy that only this threat held is released with it.
func (e *Engine) CloseByPerson(ctx context.Context, threatID int64, admin, note string) error {
	return e.urgently(ctx, func(j *job) error {
		t, err := j.tx.Threat(threatID)
		if err != nil {
			return fmt.Errorf("threat %d: %w", threatID, err)
		}
		if t.State.Ended() {
			return fmt.Errorf("threat %d is %s: %w", threatID, t.State, ErrEnded)
		}
		f, ep, err := j.facts(t)
		if err != nil {
			return err
		}
		return e.apply(j, t, f, ep, threat.OnClosed("admin:"+admin, "closed: "+note))
	})
}

// finish ends the threats that a quarantine stands for.
func (e *Engine) finish(j *job, q threat.Quarantine, actor, cause string) error {
	holders, err := e.holders(j, q)
	if err != nil {
		return err
	}
	for _, t := range holders {
		f, ep, err := j.facts(t)
		if err != nil {
			return err
		}
		if err := e.apply(j, t, f, ep, threat.OnReleased(f, actor, cause)); err != nil {
			return err
		}
	}
	return nil
}

func describe(ep endpoint.Endpoint, q threat.Quarantine) string {
	macs := make([]string, len(q.MACs))
	for i, m := range q.MACs {
		macs[i] = m.String()
	}
	until := "until released"
	if !q.ExpiresAt.IsZero() {
		until = "until " + q.ExpiresAt.Format(time.RFC3339)
	}
	return fmt.Sprintf("%s [%s], access %s, %s", ep.Name(), strings.Join(macs, " "), q.Access, until)
}
