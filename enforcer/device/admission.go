package device

import (
	"time"

	"github.com/cordon-security/cordon/enforcer/desired"
	"github.com/cordon-security/cordon/internal/guard"
)

// admission lets in what the cap allows, one after the other within one order,
// whose changes are not in the store yet.
type admission struct {
	device *Device
	now    time.Time
	// total is how many MACs are quarantined with what the order did so far.
	total int
	// delta is by how many accepted quarantines of a MAC the order changed.
	delta map[guard.MAC]int
	began []time.Time
	// begun are the MACs that began with this order.
	begun map[guard.MAC]struct{}
}

func (d *Device) admission(now time.Time) *admission {
	a := &admission{device: d, now: now, total: d.store.Accepted(), delta: map[guard.MAC]int{}, begun: map[guard.MAC]struct{}{}}
	if limit := d.guard.Cap(); limit.New > 0 {
		a.began = d.store.Begun(now.Add(-limit.Window))
	}
	return a
}

// count is how many accepted quarantines name a MAC, with the order so far.
func (a *admission) count(m guard.MAC) int { return a.device.store.AcceptedOf(m) + a.delta[m] }

// wasIn reports that a MAC was quarantined before the order, or is by it: an
// order that gives it another id must neither free it nor count it twice.
func (a *admission) wasIn(m guard.MAC) bool {
	return a.device.store.AcceptedOf(m) > 0 || a.count(m) > 0
}

// allIn reports that the order adds no MAC by this quarantine.
func (a *admission) allIn(q *desired.Quarantine) bool {
	for _, m := range q.MACs {
		if !a.wasIn(m) {
			return false
		}
	}
	return true
}

// refuses asks the cap. Each MAC counts that is not quarantined already; one
// that was within the window does not count anew against the rate, so that an
// order given twice is not two.
func (a *admission) refuses(q *desired.Quarantine) *guard.Refusal {
	if a.allIn(q) {
		return nil
	}
	limit := a.device.guard.Cap()
	more, fresh := 0, 0
	for _, m := range q.MACs {
		if a.count(m) == 0 {
			more++
		}
		if !a.wasIn(m) && !a.recent(m) {
			fresh++
		}
	}
	if r := limit.CheckTotal(a.total, more); r != nil {
		return r
	}
	return limit.CheckRate(a.began, fresh, a.now)
}

func (a *admission) recent(m guard.MAC) bool {
	_, now := a.begun[m]
	return now || a.device.store.HasBegun(m, a.now.Add(-a.device.guard.Cap().Window))
}

// add counts a quarantine that is let in.
func (a *admission) add(q *desired.Quarantine) {
	for _, m := range q.MACs {
		if !a.wasIn(m) && !a.recent(m) {
			a.began = append(a.began, a.now)
			a.begun[m] = struct{}{}
		}
		if a.count(m) == 0 {
			a.total++
		}
		a.delta[m]++
	}
}

// drop uncounts a quarantine that leaves, or is replaced.
func (a *admission) drop(q *desired.Quarantine) {
	if q.Accepted == 0 {
		return
	}
	for _, m := range q.MACs {
		if a.delta[m]--; a.count(m) == 0 {
			a.total--
		}
	}
}
