package device

import (
	"net/netip"
	"time"

	"github.com/cordon-security/cordon/enforcer/desired"
	"github.com/cordon-security/cordon/enforcer/neighbor"
	"github.com/cordon-security/cordon/internal/guard"
)

// Observe takes in an address binding that a source saw.
func (d *Device) Observe(o neighbor.Observation) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	touched := members{}
	for _, c := range d.table.Observe(o) {
		d.hub.publish(bindingEvent(c))
		d.follow(now, c, touched)
	}
	if len(touched) == 0 {
		return
	}
	if err := d.enforce(now, touched); err != nil {
		d.log.Error("an address could not be followed, retrying", "err", err)
	}
	d.judgeTouched(now, touched)
}

// follow moves an address into the sets or out of them. One that merely stopped
// answering stays for a while, because a cut-off endpoint is silent.
func (d *Device) follow(now time.Time, c neighbor.Observation, touched members) {
	if !c.Present {
		return
	}
	owner, held := d.store.Owner(c.Address)
	quarantined := len(d.store.Of(c.MAC)) > 0
	if held && (owner == c.MAC || quarantined) {
		// Who had it before has no claim: it is blocked either way.
		d.table.Settle(c.Address)
	}
	if held && owner == c.MAC {
		return
	}
	switch {
	case quarantined:
		op, disputed := d.bindOrClaim(now, c)
		_ = d.store.Note(op)
		if disputed {
			return
		}
		d.log.Info("a quarantined endpoint has a new address", "address", c.Address, "mac", c.MAC.String())
	case held:
		_ = d.store.Note(desired.Unbind(c.Address))
		d.log.Info("an address of a quarantined endpoint belongs to somebody else now", "address", c.Address, "mac", c.MAC.String())
	default:
		return
	}
	touched[addressMember(c.Address)] = struct{}{}
}

// bindOrClaim gives an address to a quarantined MAC, or notes a claim while that
// is in dispute, which outlives a restart.
func (d *Device) bindOrClaim(now time.Time, o neighbor.Observation) (op desired.Operation, disputed bool) {
	b := desired.Binding{Address: o.Address, MAC: o.MAC, Seen: o.Seen}
	until, contested := d.table.Contested(o.Address, now)
	for _, c := range d.store.Claims(o.MAC) {
		if c.Address == o.Address && c.Until.After(now) && c.Until.After(until) {
			until, contested = c.Until, true
		}
	}
	if !contested {
		return desired.Bind(b), false
	}
	d.log.Warn("a quarantined endpoint claims an address that was somebody else's; it is cut off by MAC, the address is not blocked until that is settled",
		"address", o.Address, "mac", o.MAC.String(), "until", until)
	return desired.Dispute(desired.Claim{Binding: b, Until: until}), true
}

// settled makes bindings of the claims whose dispute is over, unless somebody
// else claimed the address meanwhile.
func (d *Device) settled(now time.Time, touched members) []desired.Operation {
	var ops []desired.Operation
	d.store.EachClaim(func(c desired.Claim) {
		last, known := d.table.Last(c.Address)
		switch {
		case known && last != c.MAC:
			ops = append(ops, desired.Concede(c))
		case !c.Until.After(now):
			ops = append(ops, desired.Bind(c.Binding))
			touched[addressMember(c.Address)] = struct{}{}
		}
	})
	return ops
}

// settle blocks addresses whose dispute is over, and frees those whose holder
// has been gone for long.
func (d *Device) settle(now time.Time) {
	touched := members{}
	ops := d.settled(now, touched)
	if now.Second() == 0 {
		ops = append(ops, d.goneAddresses(now, touched)...)
	}
	if len(ops) > 0 {
		_ = d.store.Note(ops...)
	}
	if err := d.enforce(now, touched); err != nil {
		d.log.Error("addresses could not be settled, retrying", "err", err)
	}
	d.judgeTouched(now, touched)
}

// goneAddresses lists the addresses whose holder stopped answering long ago.
func (d *Device) goneAddresses(now time.Time, touched members) []desired.Operation {
	var ops []desired.Operation
	d.store.EachOwner(func(a netip.Addr, m guard.MAC) {
		since, left := d.table.Gone(a, m)
		if left && now.Sub(since) > gone {
			ops = append(ops, desired.Unbind(a))
			touched[addressMember(a)] = struct{}{}
		}
	})
	return ops
}
