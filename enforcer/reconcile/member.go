// Package reconcile decides what shall be in force on a device. It decides and
// never acts: the state, the guard and the bindings go in, the members that
// every enforcement method shall hold come out.
package reconcile

import (
	"fmt"
	"net/netip"

	"github.com/cordon-security/cordon/enforcer/desired"
	"github.com/cordon-security/cordon/internal/guard"
)

// Member is one MAC or one address (when Address is valid) and the access that
// it has. An access of zero means that it is free.
type Member struct {
	MAC     guard.MAC
	Address netip.Addr
	Access  desired.Access
}

// String names the MAC or the address.
func (m Member) String() string {
	if m.Address.IsValid() {
		return m.Address.String()
	}
	return m.MAC.String()
}

// Wanted is all that shall be in force.
type Wanted interface {
	// Access is what this MAC or address shall have; zero when it shall be free.
	Access(Member) desired.Access
	// Each calls f with every member that shall not be free.
	Each(f func(Member))
}

// Report says what a method found other than it should be when it compared all
// that is in force with all that is wanted.
type Report struct {
	// Wrong are faults of what the method stands on, in words.
	Wrong []string
	// Added and Removed count what was put right.
	Added, Removed int
	// Kept counts what nobody wants and that was left because that was asked for.
	Kept int
}

// Changed reports whether anything was not as it should be.
func (r Report) Changed() bool { return len(r.Wrong) > 0 || r.Added > 0 || r.Removed > 0 }

// String says it in words.
func (r Report) String() string {
	s := ""
	for _, w := range r.Wrong {
		s += w + "; "
	}
	return fmt.Sprintf("%s%d elements added, %d removed", s, r.Added, r.Removed)
}
