package desired

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/cordon-security/cordon/internal/guard"
)

// Access is what a quarantined endpoint may still reach. The zero value is no
// access level.
type Access uint8

// The access levels, the strictest first.
const (
	// AccessNone lets nothing pass.
	AccessNone Access = 1
	// AccessLimited lets the device's allow set pass, and what an address needs
	// to work: ARP, neighbour discovery, DHCP.
	AccessLimited Access = 2
)

// String names the level as configuration and messages do.
func (a Access) String() string {
	switch a {
	case AccessNone:
		return "none"
	case AccessLimited:
		return "limited"
	}
	return fmt.Sprintf("access(%d)", uint8(a))
}

// Stricter returns the stricter of two levels; the zero value gives way.
func (a Access) Stricter(b Access) Access {
	if a == 0 || (b != 0 && b < a) {
		return b
	}
	return a
}

// Revision numbers an order within one history of orders.
type Revision struct{ Epoch, Number uint64 }

// String writes it as EPOCH.NUMBER.
func (r Revision) String() string { return fmt.Sprintf("%d.%d", r.Epoch, r.Number) }

// Binding says that an address belonged to a MAC at a time.
type Binding struct {
	Address netip.Addr
	MAC     guard.MAC
	Seen    time.Time
}

// Claim is an address that a quarantined MAC claims and that was another's. Until
// that is settled it is not bound to the MAC and not blocked: the claimant is cut
// off by its MAC, and the owner must not be.
type Claim struct {
	Binding
	// Until is when the dispute ends by itself.
	Until time.Time
}

// Bounds of one quarantine; what is over them is refused, or cut for text.
const (
	MaxID       = 256
	MaxMACs     = 64
	MaxReason   = 1024
	MaxBindings = 64 // addresses a MAC, and as many claims, the newest win
)

// Quarantine is one desired state: the endpoint with these MACs has this
// access. It is not changed in place, except for Status; see [State].
type Quarantine struct {
	ID     string
	MACs   []guard.MAC
	Access Access
	Reason string
	// Fault says in words why the order can never be carried out as it stands.
	Fault string
	// Expires is in nanoseconds since 1970 UTC; 0 means until released.
	Expires int64
	// Accepted is when the device's guard let it in; 0 while it has not. An
	// accepted quarantine is never held by the cap again.
	Accepted int64
	// Status is what the device found when it last looked. It is not durable.
	Status Status
}

// Expired reports whether its end has come.
func (q *Quarantine) Expired(now time.Time) bool {
	return q.Expires != 0 && q.Expires <= now.UnixNano()
}

// Phase is where a quarantine stands, from better to worse.
type Phase uint8

// The phases.
const (
	Unknown Phase = iota
	InForce
	Suspended
	Held
	Refused
	Pending
)

// Status is a phase, since when (nanoseconds since 1970 UTC), and what is wrong
// and what to do, in words.
type Status struct {
	Phase  Phase
	Since  int64
	Detail string
}
