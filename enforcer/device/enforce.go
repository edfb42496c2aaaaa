package device

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cordon-security/cordon/enforcer/desired"
	"github.com/cordon-security/cordon/enforcer/reconcile"
)

// phaseGone is how a quarantine ended.
type phaseGone uint8

const (
	removed phaseGone = iota
	expired
)

// retry is the backoff of what could not be made so.
type retry struct {
	at    time.Time
	delay time.Duration
}

const (
	minRetry = 100 * time.Millisecond
	maxRetry = 30 * time.Second
	// bulk is from how many members on comparing everything is cheaper than
	// asking for each.
	bulk = 8192
)

func (r *retry) failed(now time.Time) {
	r.delay = min(max(r.delay*2, minRetry), maxRetry)
	r.at = now.Add(r.delay)
}

// members is a set of members that something happened to.
type members map[reconcile.Member]struct{}

// add takes in the MACs of a quarantine and their addresses, as they are now.
func (ms members) add(s *desired.State, q *desired.Quarantine) {
	for _, m := range q.MACs {
		ms[reconcile.Member{MAC: m}] = struct{}{}
		for _, b := range s.Bindings(m) {
			ms[reconcile.Member{Address: b.Address}] = struct{}{}
		}
	}
}

func (ms members) merge(others members) {
	for mb := range others {
		ms[mb] = struct{}{}
	}
}

// enforce makes the touched members what they shall be, and reads them back.
// It returns an error for those that are not so; they are tried again.
func (d *Device) enforce(now time.Time, touched members) error {
	if len(touched) == 0 {
		return nil
	}
	if d.suspended {
		return d.notLifted()
	}
	if o, on := d.marker.On(); on {
		d.broken = o
		return d.suspend(now)
	}
	view := d.view(now)
	all := make([]reconcile.Member, 0, len(touched))
	var ensure, remove []reconcile.Member
	for mb := range touched {
		mb.Access = view.Access(mb)
		all = append(all, mb)
		if mb.Access != 0 {
			ensure = append(ensure, mb)
		} else {
			remove = append(remove, mb)
		}
	}
	if len(all) > bulk {
		d.cut(ensure)
		_, err := d.pruneAll(now)
		return err
	}
	err := errors.Join(d.opts.Method.Ensure(ensure), d.opts.Method.Remove(remove))
	inForce, readErr := d.opts.Method.ReadBack(all)
	err = errors.Join(err, readErr)
	for i, mb := range all {
		key := reconcile.Member{MAC: mb.MAC, Address: mb.Address}
		if readErr == nil && inForce[i] {
			delete(d.unsettled, key)
			continue
		}
		d.unsettled[key] = struct{}{}
		if err == nil {
			err = fmt.Errorf("%s was read back other than it was written", mb)
		}
	}
	d.cut(ensure)
	if err != nil {
		d.fault = err.Error()
		d.retry.failed(now)
		time.AfterFunc(d.retry.delay, d.poke)
		return err
	}
	if len(d.unsettled) == 0 {
		d.retry, d.fault = retry{}, ""
	}
	return nil
}

// cut hands the addresses that were just cut off to whoever ends their flows.
func (d *Device) cut(ensured []reconcile.Member) {
	var addresses []netip.Addr
	for _, mb := range ensured {
		if mb.Address.IsValid() {
			addresses = append(addresses, mb.Address)
		}
	}
	if len(addresses) == 0 {
		return
	}
	select {
	case d.flows <- addresses:
	default:
		d.log.Warn("connection tracking entries are not deleted: too many at once; their packets are dropped all the same")
	}
}

func (d *Device) poke() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// judge sets the phase of a quarantine from what was decided and read back, and
// publishes it when it changed.
func (d *Device) judge(now time.Time, q *desired.Quarantine) {
	view := d.view(now)
	enforce, phase, detail := view.Verdict(q)
	switch {
	case enforce && d.suspended:
		phase, detail = desired.Suspended, "break glass is on; 'cordon-enforcer resume' on the device ends that"
	case enforce && d.isUnsettled(q):
		phase, detail = desired.Pending, "not in force yet, it is tried again: "+d.fault
	case phase == desired.Held:
		if r := d.admission(now).refuses(q); r != nil {
			detail = r.Detail
		}
		d.waiting[q.ID] = struct{}{}
	}
	if q.Status.Phase == phase && q.Status.Detail == detail {
		return
	}
	if q.Status.Phase != phase {
		q.Status.Since = now.UnixNano()
	}
	q.Status.Phase, q.Status.Detail = phase, detail
	if d.hub.watched() {
		d.hub.publish(statusEvent(d.status(now, q)))
	}
}

func (d *Device) isUnsettled(q *desired.Quarantine) bool {
	if len(d.unsettled) == 0 {
		return false
	}
	for _, m := range q.MACs {
		if _, bad := d.unsettled[reconcile.Member{MAC: m}]; bad {
			return true
		}
		for _, b := range d.store.Bindings(m) {
			if _, bad := d.unsettled[reconcile.Member{Address: b.Address}]; bad {
				return true
			}
		}
	}
	return false
}

func (d *Device) judgeAll(now time.Time) {
	d.store.Each(func(q *desired.Quarantine) { d.judge(now, q) })
}

// judgeTouched judges every quarantine that one of the members belongs to.
func (d *Device) judgeTouched(now time.Time, touched members) {
	for mb := range touched {
		m := mb.MAC
		if mb.Address.IsValid() {
			owner, ok := d.store.Owner(mb.Address)
			if !ok {
				continue
			}
			m = owner
		}
		for _, q := range d.store.Of(m) {
			d.judge(now, q)
		}
	}
}

// pruneAll makes everything in force what is wanted.
func (d *Device) pruneAll(now time.Time) (reconcile.Report, error) {
	if d.suspended {
		return reconcile.Report{}, nil
	}
	view := d.view(now)
	report, err := d.opts.Method.Prune(view, d.store.Degraded() != "")
	if err == nil && report.Added > 0 {
		// What was written is in force when it is read back, not before.
		var again reconcile.Report
		again, err = d.opts.Method.Prune(view, true)
		if err == nil && again.Changed() {
			err = fmt.Errorf("read back other than it was written: %s", again)
		}
	}
	clear(d.unsettled)
	if err != nil {
		d.fault = err.Error()
		view.Each(func(mb reconcile.Member) {
			d.unsettled[reconcile.Member{MAC: mb.MAC, Address: mb.Address}] = struct{}{}
		})
		d.retry.failed(now)
		time.AfterFunc(d.retry.delay, d.poke)
	} else {
		d.retry, d.fault = retry{}, ""
	}
	d.judgeAll(now)
	return report, err
}

// retryUnsettled tries again what is not as it should be. Many at once are
// compared with the kernel as a whole.
func (d *Device) retryUnsettled(now time.Time) {
	if len(d.unsettled) == 0 && len(d.leaving) == 0 || now.Before(d.retry.at) && d.retry.at.Sub(now) <= maxRetry {
		return
	}
	touched := members{}
	for mb := range d.unsettled {
		touched[mb] = struct{}{}
	}
	for _, l := range d.leaving {
		touched.merge(l.members)
	}
	// A lost table fails every element, so the whole is made right first.
	if _, err := d.pruneAll(now); err != nil {
		d.log.Error("quarantines are not in force, retrying", "err", err, "members", len(touched), "retry_in", d.retry.delay)
		return
	}
	if err := d.enforce(now, touched); err != nil {
		d.log.Error("quarantines are not in force, retrying", "err", err, "retry_in", d.retry.delay)
	}
	d.judgeTouched(now, touched)
	d.finishLeaving(now)
}

// finishLeaving says of those that left that they are gone, once they are.
func (d *Device) finishLeaving(now time.Time) {
	for id, l := range d.leaving {
		still := false
		for mb := range l.members {
			_, bad := d.unsettled[mb]
			still = still || bad
		}
		if still {
			continue
		}
		delete(d.leaving, id)
		d.hub.publish(statusEvent(d.gone(id, l.phase, now, "")))
	}
}
