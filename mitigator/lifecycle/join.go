package lifecycle

import (
	"errors"
	"slices"

	"github.com/cordon-security/cordon/mitigator/endpoint"
	"github.com/cordon-security/cordon/mitigator/threat"
)

// joinQuarantines makes one of the two that stand when both endpoints turn out
// to be one machine: one that is ordered before one that is held, a person's
// before policy's, with the stricter access, the later end and the MACs of both.
// It is ordered before the other ends, so that nothing opens in between.
func (e *Engine) joinQuarantines(j *job, from, into endpoint.Endpoint) error {
	drop, ok, err := j.tx.ActiveQuarantine(from.ID)
	if err != nil || !ok {
		return err
	}
	keep, ok, err := j.tx.ActiveQuarantine(into.ID)
	if err != nil || !ok {
		return err
	}
	if outranks(drop, keep) {
		keep, drop = drop, keep
	}
	holders, err := e.holders(j, drop)
	if err != nil {
		return err
	}
	for _, t := range holders {
		t.QuarantineID = keep.ID
		if err := j.tx.SetThreat(t); err != nil {
			return err
		}
	}
	keep = combined(keep, drop)
	keep.EndpointID = into.ID
	lifted := drop.State.Ordered()
	drop.State, drop.EndedAt, drop.EndedBy, drop.Detail = threat.QuarantineEnded, j.now, threat.ByPolicy, ""
	drop.Confirmation = "joined with quarantine " + keep.ID
	if lifted {
		drop.State = threat.QuarantineReleasing
	}
	// The one that ends first: at most one may be active.
	if err := errors.Join(j.tx.SetQuarantine(drop), j.tx.SetQuarantine(keep)); err != nil {
		return err
	}
	if keep.State.Ordered() {
		if err := e.send(j, keep.ID); err != nil {
			return err
		}
	}
	if !lifted {
		return nil
	}
	return e.send(j, drop.ID)
}

// outranks reports whether a is the one of two quarantines that stays.
func outranks(a, b threat.Quarantine) bool {
	if a.State.Ordered() != b.State.Ordered() {
		return a.State.Ordered()
	}
	return a.Actor != threat.ByPolicy && b.Actor == threat.ByPolicy
}

// combined is what two quarantines of one machine ask for together.
func combined(keep, other threat.Quarantine) threat.Quarantine {
	keep = grown(keep, other.MACs)
	if other.Access == threat.AccessNone {
		keep.Access = threat.AccessNone
	}
	if other.ExpiresAt.IsZero() || !keep.ExpiresAt.IsZero() && other.ExpiresAt.After(keep.ExpiresAt) {
		keep.ExpiresAt = other.ExpiresAt
	}
	if other.Actor != threat.ByPolicy {
		keep.Actor = other.Actor // an agent's word must not end what a person decided
	}
	return keep
}

// maxQuarantineMACs is how many MACs one quarantine covers: above it those that it
// covered first, which a machine that makes MACs up has left behind, are let go.
const maxQuarantineMACs = 64

// grown adds MACs to a quarantine. With a new one it is not in force until a
// device has read that back too.
func grown(q threat.Quarantine, macs []endpoint.MAC) threat.Quarantine {
	for _, m := range macs {
		if slices.Contains(q.MACs, m) {
			continue
		}
		q.MACs = append(slices.Clone(q.MACs), m)
		q.MACs = q.MACs[max(0, len(q.MACs)-maxQuarantineMACs):]
		if q.State == threat.QuarantineInForce {
			q.State = threat.QuarantineOrdered
		}
	}
	return q
}

// widen makes the endpoint's active quarantine cover MACs that were learned
// since it was ordered. Observe mode adds nothing to what stands.
func (e *Engine) widen(j *job, ep endpoint.Endpoint) error {
	q, ok, err := j.tx.ActiveQuarantine(ep.ID)
	if err != nil || !ok || e.policy.Mode == threat.Observe {
		return err
	}
	wide := grown(q, ep.MACs)
	if slices.Equal(wide.MACs, q.MACs) {
		return nil
	}
	refusal, err := e.check(j.tx, j.now, ep)
	if err != nil || (refusal != nil && !e.guard.AtCap(refusal)) {
		return err
	}
	if err := j.tx.SetQuarantine(wide); err != nil {
		return err
	}
	if !wide.State.Ordered() {
		return nil
	}
	return e.send(j, q.ID)
}
