package reconcile

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/cordon-security/cordon/enforcer/desired"
	"github.com/cordon-security/cordon/internal/guard"
)

// View is what the decision looks at. It is read only.
type View struct {
	State *desired.State
	Guard *guard.Guard
	Now   time.Time
}

// Verdict says whether a quarantine is to be enforced, and if not, its phase,
// which then is not InForce, and why in words.
func (v View) Verdict(q *desired.Quarantine) (enforce bool, phase desired.Phase, detail string) {
	if q.Fault != "" {
		return false, desired.Refused, q.Fault
	}
	for _, m := range q.MACs {
		r := v.Guard.CheckMAC(m)
		if r == nil || r.Rule == guard.RuleLearnedMAC && q.Accepted != 0 {
			// What a machine makes the network say must not free it.
			continue
		}
		return false, desired.Refused, r.Detail
	}
	if q.Accepted == 0 {
		return false, desired.Held, "the device's guard holds it back"
	}
	if q.Expired(v.Now) {
		return false, desired.Pending, "its end has come, it is being lifted"
	}
	return true, desired.InForce, ""
}

// Access is what a MAC or address shall have. Of several quarantines that name
// one MAC, the strictest holds.
func (v View) Access(m Member) desired.Access {
	if !m.Address.IsValid() {
		return v.macAccess(m.MAC)
	}
	owner, ok := v.State.Owner(m.Address)
	if !ok {
		return 0
	}
	return v.addressAccess(m.Address, owner)
}

// addressAccess is what an address shall have that is bound to a MAC.
func (v View) addressAccess(a netip.Addr, owner guard.MAC) desired.Access {
	if v.Guard.CheckAddress(a) != nil {
		return 0
	}
	return v.macAccess(owner)
}

func (v View) macAccess(m guard.MAC) desired.Access {
	var access desired.Access
	for _, q := range v.State.Of(m) {
		if enforce, _, _ := v.Verdict(q); enforce {
			access = access.Stricter(q.Access)
		}
	}
	return access
}

// Each calls f with every member that shall not be free.
func (v View) Each(f func(Member)) {
	v.State.EachMAC(func(m guard.MAC) {
		if access := v.macAccess(m); access != 0 {
			f(Member{MAC: m, Access: access})
		}
	})
	v.State.EachOwner(func(a netip.Addr, owner guard.MAC) {
		if access := v.addressAccess(a, owner); access != 0 {
			f(Member{Address: a, Access: access})
		}
	})
}

// LeftOut says in words which addresses of a quarantine are not blocked though
// its MACs are, and why; empty when there are none.
func (v View) LeftOut(q *desired.Quarantine) string {
	var out []string
	for _, m := range q.MACs {
		for _, b := range v.State.Bindings(m) {
			if r := v.Guard.CheckAddress(b.Address); r != nil {
				out = append(out, r.Detail+" and is not blocked itself")
			}
		}
		for _, c := range v.State.Claims(m) {
			out = append(out, fmt.Sprintf("%s was another endpoint's and is not blocked itself before %s", c.Address, c.Until.UTC().Format(time.RFC3339)))
		}
	}
	return strings.Join(out, "; ")
}
