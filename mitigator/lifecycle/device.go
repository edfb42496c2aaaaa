package lifecycle

import (
	"context"
	"errors"
	"fmt"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
	"github.com/cordon-security/cordon/mitigator/store"
	"github.com/cordon-security/cordon/mitigator/threat"
)

// DeviceStatus takes in what a device says of quarantines. What is new is
// recorded; what is known already changes nothing. On a disk without any room it
// waits in memory: the orders to the device must not wait for it.
func (e *Engine) DeviceStatus(ctx context.Context, device string, statuses []*wirev1.QuarantineStatus) error {
	if e.backlog.hasStatuses() {
		return e.backlog.addStatuses(device, statuses) // the newest word counts
	}
	changed, err := e.takeStatuses(ctx, device, statuses)
	if errors.Is(err, store.ErrFull) {
		return e.backlog.addStatuses(device, changed)
	}
	return err
}

// takeStatuses records what is new, and returns it.
func (e *Engine) takeStatuses(ctx context.Context, device string, statuses []*wirev1.QuarantineStatus) ([]*wirev1.QuarantineStatus, error) {
	changed, err := e.news(ctx, device, statuses)
	if err != nil || len(changed) == 0 {
		return nil, err
	}
	err = e.urgently(ctx, func(j *job) error {
		for _, s := range changed {
			if err := e.status(j, device, s); err != nil {
				return fmt.Errorf("status of quarantine %s from device %s: %w", s.GetQuarantineId(), device, err)
			}
		}
		return nil
	})
	if err == nil {
		for _, s := range changed {
			e.lifted.forget(s.GetQuarantineId())
		}
	}
	return changed, err
}

// news leaves out what the store says already, so that a device that repeats
// itself costs no commit.
func (e *Engine) news(ctx context.Context, device string, statuses []*wirev1.QuarantineStatus) ([]*wirev1.QuarantineStatus, error) {
	var changed []*wirev1.QuarantineStatus
	err := e.store.View(ctx, func(v store.View) error {
		for _, s := range statuses {
			q, err := v.Quarantine(s.GetQuarantineId())
			if errors.Is(err, store.ErrNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			next, ok := follow(q, s)
			if !ok || next.State == q.State && next.Detail == q.Detail {
				continue
			}
			if q.State == threat.QuarantineReleasing && next.State == threat.QuarantineEnded && !e.lifted.said(device, q.ID) {
				continue // another device still holds it
			}
			changed = append(changed, s)
		}
		return nil
	})
	return changed, err
}

// follow is the quarantine's next state by a device's word, or false when that
// word says nothing about it: an old status that crossed a newer order.
func follow(q threat.Quarantine, s *wirev1.QuarantineStatus) (threat.Quarantine, bool) {
	detail := clip(s.GetDetail())
	for _, m := range s.GetMethods() {
		if detail == "" {
			detail = clip(m.GetDetail())
		}
	}
	var state threat.QuarantineState
	applies := q.State.Ordered()
	switch s.GetState() {
	case wirev1.EnforcementState_ENFORCEMENT_STATE_IN_FORCE:
		state = threat.QuarantineInForce
	case wirev1.EnforcementState_ENFORCEMENT_STATE_PENDING, wirev1.EnforcementState_ENFORCEMENT_STATE_HELD:
		state = threat.QuarantineOrdered
	case wirev1.EnforcementState_ENFORCEMENT_STATE_REFUSED:
		state = threat.QuarantineRefused
	case wirev1.EnforcementState_ENFORCEMENT_STATE_SUSPENDED:
		state = threat.QuarantineSuspended
	case wirev1.EnforcementState_ENFORCEMENT_STATE_REMOVED:
		state, detail, applies = threat.QuarantineEnded, "", q.State == threat.QuarantineReleasing
	case wirev1.EnforcementState_ENFORCEMENT_STATE_EXPIRED:
		state, detail = threat.QuarantineEnded, ""
		applies = applies || q.State == threat.QuarantineReleasing
	default:
		return q, false
	}
	q.State, q.Detail = state, detail
	return q, applies
}

func (e *Engine) status(j *job, device string, s *wirev1.QuarantineStatus) error {
	was, err := j.tx.Quarantine(s.GetQuarantineId())
	if err != nil {
		return err
	}
	q, ok := follow(was, s)
	if !ok || (q.State == was.State && q.Detail == was.Detail) {
		return nil
	}
	j.say("quarantine", "quarantine", q.ID, "device", device, "from", string(was.State), "to", string(q.State), "detail", q.Detail)
	actor := "device:" + device
	if q.State == threat.QuarantineEnded {
		return e.gone(j, was, q, actor, s)
	}
	if q.State == threat.QuarantineInForce && q.InForceAt.IsZero() {
		q.InForceAt = j.now
	}
	if err := j.tx.SetQuarantine(q); err != nil {
		return err
	}
	if q.State == was.State && q.Detail == "" {
		return nil
	}
	return e.tell(j, q, device)
}

// gone records that a device has read a quarantine back as lifted or expired.
func (e *Engine) gone(j *job, was, q threat.Quarantine, actor string, s *wirev1.QuarantineStatus) error {
	if q.EndedAt.IsZero() {
		q.EndedAt, q.EndedBy = j.now, actor
	}
	if was.State.Ordered() { // it expired at the device before the mitigator's own clock said so
		if err := e.finish(j, was, threat.ByPolicy, "the quarantine expired"); err != nil {
			return err
		}
		if err := j.tx.SetQuarantine(q); err != nil {
			return err
		}
		return e.send(j, q.ID)
	}
	if err := j.tx.SetQuarantine(q); err != nil {
		return err
	}
	if q.ThreatID == 0 {
		return nil
	}
	t, err := j.tx.Threat(q.ThreatID)
	if err != nil {
		return err
	}
	ep, err := j.tx.Endpoint(q.EndpointID)
	if err != nil {
		return err
	}
	if err := e.note(j, &t, ep, actor, "quarantine lifted, read back as gone"); err != nil {
		return err
	}
	return j.tx.SetThreat(t)
}

// tell carries a quarantine's new state to the threats that it stands for.
func (e *Engine) tell(j *job, q threat.Quarantine, device string) error {
	holders, err := e.holders(j, q)
	if err != nil {
		return err
	}
	for _, t := range holders {
		f, ep, err := j.facts(t)
		if err != nil {
			return err
		}
		d := threat.OnInForce(f, device, q.Detail)
		if q.State != threat.QuarantineInForce {
			d = threat.OnNotInForce(f, "device:"+device, notInForce(q, device))
		}
		if err := e.apply(j, t, f, ep, d); err != nil {
			return err
		}
	}
	return nil
}

func notInForce(q threat.Quarantine, device string) string {
	what := map[threat.QuarantineState]string{
		threat.QuarantineOrdered:   "not in force yet",
		threat.QuarantineRefused:   "refused by the device's guard",
		threat.QuarantineSuspended: "suspended: break glass is on",
	}[q.State]
	text := fmt.Sprintf("quarantine %s on device %s: %s", q.ID, device, what)
	if q.Detail != "" {
		text += ": " + q.Detail
	}
	return text
}
