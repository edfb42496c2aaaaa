// Package guard holds the rules that stand above every order: what must never
// be quarantined, and how many quarantines there may be. The mitigator applies
// them to the whole fleet, an enforcement device to itself; neither can loosen
// the other's. The rules only ever refuse: releasing needs no permission.
//
// Everything here is pure: no clock, no files, no state.
package guard

import (
	"fmt"
	"net/netip"
	"time"
)

// Rule names which rule refused.
type Rule string

// The rules.
const (
	// RuleMAC: the MAC can be no endpoint's (zero, broadcast, multicast).
	RuleMAC Rule = "impossible-mac"
	// RuleProtectedMAC: the MAC is on the protected list.
	RuleProtectedMAC Rule = "protected-mac"
	// RuleLearnedMAC: the MAC is on the protected list because of what the
	// network said. It refuses an order; it does not end one that was let in.
	RuleLearnedMAC Rule = "learned-mac"
	// RuleProtectedAddress: the address is on the protected list.
	RuleProtectedAddress Rule = "protected-address"
	// RuleAddress: the address can be no endpoint's own (unspecified, loopback,
	// multicast, broadcast).
	RuleAddress Rule = "impossible-address"
	// RuleSubject: nothing to bind to.
	RuleSubject Rule = "no-mac"
	// RuleCapTotal: as many are quarantined as may be at once.
	RuleCapTotal Rule = "cap-at-once"
	// RuleCapRate: as many were newly quarantined in the window as may be.
	RuleCapRate Rule = "cap-in-window"
)

// Refusal says which rule refused, and why, in words for a person. It is an
// error.
type Refusal struct {
	Rule   Rule
	Detail string
	// RetryAt is when the rule would let it pass by itself; zero when it never
	// will without a person.
	RetryAt time.Time
}

// Error is the detail.
func (r *Refusal) Error() string { return r.Detail }

// Protected is one entry of a protected list, with where it comes from in
// words ("configuration", "this device's own address").
type Protected struct {
	// Prefix covers the addresses; invalid when the entry is a MAC.
	Prefix netip.Prefix
	MAC    MAC
	Origin string
	// Learned says that it is no person's word but what the network claimed, such
	// as whose MAC a gateway has: see RuleLearnedMAC. Only MACs are learned.
	Learned bool
}

// Guard is a set of rules. It is immutable and safe for concurrent use.
type Guard struct {
	macs     map[MAC]Protected
	hosts    map[netip.Addr]string
	prefixes []Protected
	cap      Cap
}

// New makes a guard of protected entries and a cap. An IPv4-mapped IPv6 prefix
// stands for its IPv4 prefix.
func New(protected []Protected, limit Cap) (*Guard, error) {
	if err := limit.validate(); err != nil {
		return nil, err
	}
	g := &Guard{macs: map[MAC]Protected{}, hosts: map[netip.Addr]string{}, cap: limit}
	for _, p := range protected {
		if !p.Prefix.IsValid() {
			// Of two entries for one MAC, a person's word holds.
			if old, known := g.macs[p.MAC]; !known || old.Learned {
				g.macs[p.MAC] = p
			}
			continue
		}
		prefix, err := unmap(p.Prefix)
		if err != nil {
			return nil, err
		}
		if prefix.IsSingleIP() {
			g.hosts[prefix.Addr()] = p.Origin
			continue
		}
		g.prefixes = append(g.prefixes, Protected{Prefix: prefix, Origin: p.Origin})
	}
	return g, nil
}

func unmap(p netip.Prefix) (netip.Prefix, error) {
	a := p.Addr().WithZone("")
	if !a.Is4In6() {
		return netip.PrefixFrom(a, p.Bits()).Masked(), nil
	}
	if p.Bits() < 96 {
		return p, fmt.Errorf("protected prefix %s spans more than the IPv4-mapped addresses: write the IPv4 prefix", p)
	}
	return netip.PrefixFrom(a.Unmap(), p.Bits()-96).Masked(), nil
}

// CheckMAC refuses a MAC that must not be quarantined.
func (g *Guard) CheckMAC(m MAC) *Refusal {
	switch {
	case m.IsZero():
		return &Refusal{Rule: RuleMAC, Detail: "00:00:00:00:00:00 is no endpoint's MAC"}
	case m.IsGroup():
		return &Refusal{Rule: RuleMAC, Detail: fmt.Sprintf("%s is a broadcast or multicast MAC: quarantining it would cut everybody off", m)}
	}
	p, ok := g.macs[m]
	if !ok {
		return nil
	}
	r := &Refusal{Rule: RuleProtectedMAC, Detail: fmt.Sprintf("%s is protected (%s)", m, p.Origin)}
	if p.Learned {
		r.Rule = RuleLearnedMAC
	}
	return r
}

// CheckAddress refuses an address that must never be blocked.
func (g *Guard) CheckAddress(a netip.Addr) *Refusal {
	a = a.Unmap().WithZone("")
	switch {
	case !a.IsValid(), a.IsUnspecified(), a.IsLoopback(), a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return &Refusal{Rule: RuleAddress, Detail: fmt.Sprintf("%s is no endpoint's own address", a)}
	}
	origin, ok := g.hosts[a]
	for i := 0; !ok && i < len(g.prefixes); i++ {
		origin, ok = g.prefixes[i].Origin, g.prefixes[i].Prefix.Contains(a)
	}
	if ok {
		return &Refusal{Rule: RuleProtectedAddress, Detail: fmt.Sprintf("%s is protected (%s)", a, origin)}
	}
	return nil
}

// Check refuses to quarantine the endpoint with these MACs, which has these
// addresses. A protected MAC refuses it, and so does a single protected address:
// every machine has others beside it, such as an IPv6 link-local one. An attacker
// who claims a protected address must not escape by that, so the caller leaves
// out what is in dispute: an address that another MAC had until a moment ago.
// In each case a protected address itself is never blocked, see CheckAddress.
func (g *Guard) Check(macs []MAC, addresses []netip.Addr) *Refusal {
	if len(macs) == 0 {
		return &Refusal{Rule: RuleSubject, Detail: "the quarantine names no MAC address to bind to"}
	}
	for _, m := range macs {
		if r := g.CheckMAC(m); r != nil {
			return r
		}
	}
	for _, a := range addresses {
		if r := g.CheckAddress(a); r != nil && r.Rule == RuleProtectedAddress {
			return r
		}
	}
	return nil
}

// Cap is the guard's cap.
func (g *Guard) Cap() Cap { return g.cap }
