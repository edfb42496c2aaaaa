package event

import (
	"fmt"
	"strings"
)

// Role is the part that one of our machines played in an event.
type Role int

// The roles.
const (
	Unknown Role = iota
	Attacker
	Victim
)

var roleNames = [...]string{"unknown", "attacker", "victim"}

// String is the lower-case name.
func (r Role) String() string {
	if r < 0 || int(r) >= len(roleNames) {
		return fmt.Sprintf("role(%d)", int(r))
	}
	return roleNames[r]
}

// MarshalText is the lower-case name.
func (r Role) MarshalText() ([]byte, error) {
	if r < 0 || int(r) >= len(roleNames) {
		return nil, fmt.Errorf("role %d does not exist", int(r))
	}
	return []byte(r.String()), nil
}

// UnmarshalText reads one of the names, in any case.
func (r *Role) UnmarshalText(text []byte) error {
	for i, name := range roleNames {
		if strings.EqualFold(name, string(text)) {
			*r = Role(i)
			return nil
		}
	}
	return fmt.Errorf("role %q: use one of %s", text, strings.Join(roleNames[:], ", "))
}

// roleOf decides the part that one side played; the first rule that fits
// decides. The rules and their order are documented in docs/data-sources.md.
func roleOf(e Event, side Side) (Role, string) {
	opened := side == e.Initiator
	if e.Compromise && e.Initiator != UnknownSide && opened {
		return Attacker, "it opened this connection, and " + e.CompromiseBy + ": it is compromised and acts"
	}
	if e.Victim != UnknownSide {
		if e.Victim == side {
			return Victim, "the signature names it as the target"
		}
		return Attacker, "the signature names the other side as the target"
	}
	if e.Initiator == UnknownSide {
		return Unknown, "the data source does not say who opened the connection"
	}
	if role, why := roleByTarget(e.Target, opened); why != "" {
		return role, why
	}
	if e.Attempt && side == e.Initiator && e.Initiator == DstSide {
		return Victim, "the attack came in the answer to its own connection"
	}
	if opened {
		return Attacker, "it opened the connection"
	}
	return Victim, "the other side connected to it"
}

// roleByTarget concludes from what the metadata says is attacked. Metadata alone
// never makes an attacker of the side that was connected to: authors mark
// harmless look-ups with a client target, too.
func roleByTarget(t Target, opened bool) (Role, string) {
	switch {
	case t == TargetClient && opened:
		return Victim, "the signature is about attacks on clients, and it was the client"
	case t == TargetClient:
		return Unknown, "the signature is about attacks on clients, and it was the server"
	case t == TargetServer && opened:
		return Attacker, "the signature is about attacks on servers, and it opened the connection"
	case t == TargetServer:
		return Victim, "the signature is about attacks on servers, and it was the server"
	}
	return Unknown, ""
}
