package device

import (
	"fmt"
	"strings"
	"time"

	"github.com/cordon-security/cordon/enforcer/reconcile"
)

// Disturbance is what somebody else changed of what this device enforces.
type Disturbance struct {
	// Everything says that all must be compared.
	Everything bool
	// Tables says that tables, chains, rules or whole sets changed.
	Tables bool
	// Members are those that changed, when not everything.
	Members []reconcile.Member
	// By names the program, as far as it is known.
	By string
}

// Disturbed puts right what somebody else changed, unless it was break glass.
func (d *Device) Disturbed(x Disturbance) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	if d.suspended || d.checkMarker(now) {
		return
	}
	if x.Tables && !x.Everything {
		d.disturbedTables(now, x)
		if len(x.Members) == 0 {
			return
		}
	}
	if x.Everything {
		report, err := d.pruneAll(now)
		if err != nil {
			d.drifted(now, fmt.Sprintf("%s changed our tables, and they could not be repaired yet: %v", x.By, err), false)
			return
		}
		if report.Changed() {
			d.drifted(now, fmt.Sprintf("%s changed our tables: %s", x.By, report), true)
		}
		return
	}
	d.disturbedMembers(now, x)
}

// disturbedTables puts tables, chains and rules right, and the elements too when
// sets were lost.
func (d *Device) disturbedTables(now time.Time, x Disturbance) {
	wrong, lost, err := d.opts.Method.Repair()
	if err == nil && len(wrong) == 0 {
		return
	}
	detail := fmt.Sprintf("%s changed our tables: %s", x.By, strings.Join(wrong, "; "))
	if err == nil && lost {
		_, err = d.pruneAll(now)
	}
	if err != nil {
		detail += fmt.Sprintf("; and that could not be repaired yet: %v", err)
		d.auditAt = now
		d.poke()
	}
	d.drifted(now, detail, err == nil)
}

func (d *Device) disturbedMembers(now time.Time, x Disturbance) {
	view := d.view(now)
	asked := make([]reconcile.Member, len(x.Members))
	for i, mb := range x.Members {
		mb.Access = view.Access(mb)
		asked[i] = mb
	}
	right, err := d.opts.Method.ReadBack(asked)
	if err != nil {
		d.log.Error("read back what somebody changed", "err", err)
		d.auditAt = now
		d.poke()
		return
	}
	touched := members{}
	for i, mb := range x.Members {
		if !right[i] && (asked[i].Access != 0 || d.store.Degraded() == "") {
			touched[mb] = struct{}{}
		}
	}
	if len(touched) == 0 {
		return
	}
	err = d.enforce(now, touched)
	d.judgeTouched(now, touched)
	d.drifted(now, fmt.Sprintf("%s changed %d elements of our sets%s", x.By, len(touched), some(touched)), err == nil)
}

// some names up to three members.
func some(ms members) string {
	out, n := "", 0
	for mb := range ms {
		if n++; n > 3 {
			return out + ", and others"
		}
		if n == 1 {
			out += ": "
		} else {
			out += ", "
		}
		out += mb.String()
	}
	return out
}

func (d *Device) drifted(now time.Time, detail string, repaired bool) {
	d.log.Warn("what is in force was changed by somebody else", "detail", detail, "repaired", repaired)
	d.hub.publish(driftEvent(detail, now, repaired))
}
