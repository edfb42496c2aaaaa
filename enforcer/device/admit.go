package device

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cordon-security/cordon/enforcer/desired"
	"github.com/cordon-security/cordon/internal/guard"
)

// admit lets in what waits, as far as the cap allows now, the first ordered
// first as far as ids tell.
func (d *Device) admit(now time.Time) {
	d.forget(now)
	if len(d.waiting) == 0 {
		return
	}
	ids := make([]string, 0, len(d.waiting))
	for id := range d.waiting {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	a := d.admission(now)
	var ops []desired.Operation
	touched := members{}
	for _, id := range ids {
		q := d.store.Get(id)
		if q == nil || q.Accepted != 0 || q.Fault != "" {
			delete(d.waiting, id)
			continue
		}
		if _, phase, _ := d.view(now).Verdict(q); phase == desired.Refused {
			continue
		}
		if a.refuses(q) != nil {
			if d.guard.Cap().Fits(len(q.MACs)) {
				break
			}
			continue
		}
		a.add(q)
		ops = append(ops, desired.Accept(id, now))
		touched.add(d.store.State, q)
		delete(d.waiting, id)
	}
	if len(ops) == 0 {
		return
	}
	if err := d.store.Commit(ops...); err != nil {
		d.log.Error("admitted in memory only", "err", err)
	}
	d.log.Info("the cap has room again, quarantines that waited are carried out", "count", len(ops))
	if err := d.enforce(now, touched); err != nil {
		d.log.Error("quarantines are not in force, retrying", "err", err)
	}
	d.judgeTouched(now, touched)
}

// forgetEvery is how often the history of what began is gone through, which takes
// milliseconds when it is long. What is too old counts for nothing in between.
const forgetEvery = time.Minute

func (d *Device) forget(now time.Time) {
	if since := now.Sub(d.forgotAt); since >= 0 && since < forgetEvery {
		return
	}
	d.forgotAt = now
	d.store.Forget(now.Add(-max(d.guard.Cap().Window, time.Hour)))
}

// learn takes in what of this machine must never be cut off, and reports
// whether that changed.
func (d *Device) learn() (changed bool, err error) {
	locals, err := d.opts.Locals.Protected(d.suspect)
	if err != nil {
		return false, fmt.Errorf("this machine's own addresses: %w", err)
	}
	all := append(slices.Clone(d.opts.Protected), locals...)
	if d.guard != nil && slices.Equal(all, d.protected) {
		return false, nil
	}
	g, err := guard.New(all, d.opts.Cap)
	if err != nil {
		return false, err
	}
	d.guard, d.protected = g, all
	return true, nil
}

// refreshGuard judges everything anew when what must never be cut off changed.
func (d *Device) refreshGuard(now time.Time) error {
	changed, err := d.learn()
	if err != nil || !changed {
		return err
	}
	d.log.Info("the protected list changed", "entries", len(d.protected))
	if _, err := d.pruneAll(now); err != nil {
		return errors.Join(errors.New("apply the new protected list"), err)
	}
	d.judgeAll(now)
	return nil
}

// suspect reports that a MAC is ordered to be quarantined, or, while the desired
// set is not known, that it may be.
func (d *Device) suspect(m guard.MAC) bool {
	return d.store.Degraded() != "" || len(d.store.Of(m)) > 0
}

func (d *Device) noteExpiry(q *desired.Quarantine) {
	if q.Expires != 0 && (d.expiry == 0 || q.Expires < d.expiry) {
		d.expiry = q.Expires
	}
}

// expire ends the quarantines whose time has come, by the wall clock, which is
// asked anew each time: a clock that is set counts at once.
func (d *Device) expire(now time.Time) {
	if d.expiry == 0 || now.UnixNano() < d.expiry {
		return
	}
	d.expiry = 0
	var ended []departure
	d.store.Each(func(q *desired.Quarantine) {
		if q.Expired(now) {
			ended = append(ended, d.departing(q, expired))
			return
		}
		d.noteExpiry(q)
	})
	if len(ended) == 0 {
		return
	}
	touched := members{}
	var ops []desired.Operation
	for _, out := range ended {
		touched.merge(out.members)
		ops = append(ops, desired.Remove(out.quarantine.ID))
	}
	if err := d.store.Commit(ops...); err != nil {
		d.log.Error("expired in memory only; it expires again after a restart", "err", err)
	}
	err := d.enforce(now, touched)
	for _, out := range ended {
		q := out.quarantine
		d.left(now, out, err)
		d.log.Info("quarantine expired", "quarantine", q.ID, "expired_at", time.Unix(0, q.Expires).UTC())
	}
	d.judgeTouched(now, touched)
}

// left publishes that a quarantine ended, at once when it is read back as gone
// and else when it is.
func (d *Device) left(now time.Time, out departure, err error) {
	id := out.quarantine.ID
	delete(d.waiting, id)
	if err == nil {
		d.hub.publish(statusEvent(d.gone(id, out.how, now, "")))
		return
	}
	d.leaving[id] = leaving{phase: out.how, detail: err.Error(), members: out.members}
}
