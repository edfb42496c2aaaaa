package device

import (
	"errors"
	"fmt"
	"time"

	"github.com/cordon-security/cordon/enforcer/breakglass"
	"github.com/cordon-security/cordon/enforcer/desired"
)

// ReleaseAll lifts every quarantine at once and holds orders back until Resume.
// It returns how many were lifted, and in words what a person must know. It
// fails only when something is still in force.
func (d *Device) ReleaseAll(actor, reason string) (released int, detail string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	o := breakglass.Order{Since: now.UTC(), Actor: actor, Reason: reason}
	d.store.Each(func(q *desired.Quarantine) {
		if q.Status.Phase == desired.InForce {
			released++
		}
	})
	markErr := d.marker.Set(o)
	d.broken = o
	clearErr := d.suspend(now)
	if markErr != nil {
		detail = markErr.Error()
	}
	logErr := d.marker.Log("release-all", o, now, errorText(errors.Join(markErr, clearErr)))
	d.log.Warn("break glass: every quarantine is lifted", "actor", actor, "reason", reason, "released", released,
		"err", errors.Join(markErr, clearErr, logErr))
	if clearErr != nil {
		return released, detail, fmt.Errorf("quarantines may still be in force, 'nft delete table inet cordon; nft delete table bridge cordon' lifts them: %w", clearErr)
	}
	return released, detail, nil
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// suspend frees everybody and says so; orders are kept.
func (d *Device) suspend(now time.Time) error {
	d.suspended = true
	_, d.markedOnDisk = d.marker.On()
	err := d.opts.Method.Clear()
	if err != nil {
		d.log.Error("break glass: not everything could be lifted, retrying", "err", err)
		time.AfterFunc(minRetry, d.poke)
	}
	d.fault = errorText(err)
	clear(d.unsettled)
	if err == nil {
		for id, l := range d.leaving {
			d.hub.publish(statusEvent(d.gone(id, l.phase, now, "")))
			delete(d.leaving, id)
		}
	}
	d.judgeAll(now)
	d.hub.publish(breakGlassEvent(d.broken, true))
	return err
}

// notLifted is an error while break glass is on and something may be in force
// all the same.
func (d *Device) notLifted() error {
	if d.fault == "" {
		return nil
	}
	return errors.New(d.fault)
}

// Resume ends break glass and puts everything that is wanted in force again.
func (d *Device) Resume(actor string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	if err := d.marker.Clear(); err != nil {
		return fmt.Errorf("remove the break-glass marker: %w", err)
	}
	if err := d.marker.Log("resume", breakglass.Order{Actor: actor}, now, ""); err != nil {
		d.log.Warn("break-glass log", "err", err)
	}
	return d.resume(now, actor)
}

func (d *Device) resume(now time.Time, actor string) error {
	d.expire(now)
	was := d.suspended
	d.suspended, d.broken = false, breakglass.Order{}
	if !was {
		return nil
	}
	d.log.Warn("break glass is over, quarantines are put in force again", "actor", actor)
	_, err := d.pruneAll(now)
	d.hub.publish(breakGlassEvent(breakglass.Order{Since: now.UTC(), Actor: actor}, false))
	if err != nil {
		return fmt.Errorf("quarantines are not all in force yet, it is tried again: %w", err)
	}
	return nil
}

// checkMarker follows a marker that was set or removed without this program,
// and reports whether break glass is on. An order that could be written nowhere
// stands as long as the program runs.
func (d *Device) checkMarker(now time.Time) bool {
	o, on := d.marker.On()
	switch {
	case on && !d.suspended:
		d.broken = o
		d.log.Warn("break glass was ordered beside this program", "actor", o.Actor, "reason", o.Reason)
		_ = d.suspend(now)
	case on && d.fault != "":
		_ = d.suspend(now)
	case on:
		d.markedOnDisk = true
	case d.suspended && d.markedOnDisk:
		d.markedOnDisk = false
		if err := d.resume(now, "the marker was removed"); err != nil {
			d.log.Error("resume", "err", err)
		}
	}
	return d.suspended
}
