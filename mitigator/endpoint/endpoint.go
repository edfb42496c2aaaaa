// Package endpoint holds what the mitigator knows a machine on the LAN by: its
// MAC addresses, the addresses bound to them over time, its host name and its
// agent.
//
// A quarantine binds to a MAC. An address is only a dated binding to one, and
// an alert is resolved to the binding that held at the alert's own time, so
// that the next owner of an address never answers for the last one.
package endpoint

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// MAC is an IEEE 802 MAC-48 address. It is comparable, so it serves as a map key.
type MAC [6]byte

// ParseMAC reads a MAC-48 in any of the forms of net.ParseMAC.
func ParseMAC(s string) (MAC, error) {
	hw, err := net.ParseMAC(s)
	if err != nil {
		return MAC{}, fmt.Errorf("parse MAC %q: %w", s, err)
	}
	return MACFrom(hw)
}

// MACFrom copies a 6-byte hardware address; longer ones (EUI-64, InfiniBand)
// are no LAN endpoint's and are refused.
func MACFrom(b []byte) (MAC, error) {
	if len(b) != 6 {
		return MAC{}, fmt.Errorf("MAC of %d bytes: want 6", len(b))
	}
	return MAC(b), nil
}

// String is the lower-case colon form.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// IsEndpoint reports whether the MAC can be one machine's: neither zero, nor a
// group address (IEEE 802 I/G bit).
func (m MAC) IsEndpoint() bool { return m != MAC{} && m[0]&1 == 0 }

// Endpoint is one machine on the LAN.
type Endpoint struct {
	ID       int64
	Hostname string
	// MACs in ascending order; empty while only an address is known.
	MACs []MAC
	// Address is set only while no MAC is known: the one that an alert named.
	Address netip.Addr
	// AgentID is empty when the endpoint has no agent.
	AgentID   string
	FirstSeen time.Time
	LastSeen  time.Time
}

// Name is what a person knows the endpoint by: its host name, else its first
// MAC, else its address.
func (e Endpoint) Name() string {
	switch {
	case e.Hostname != "":
		return e.Hostname
	case len(e.MACs) > 0:
		return e.MACs[0].String()
	case e.Address.IsValid():
		return e.Address.String()
	}
	return fmt.Sprintf("endpoint %d", e.ID)
}

// Binding says that an address belonged to a MAC from one time to another.
type Binding struct {
	Addr netip.Addr
	MAC  MAC
	From time.Time
	// Until is zero while the binding holds.
	Until time.Time
	// LastSeen is when a source last confirmed it.
	LastSeen time.Time
	// Source is who said so: "device:NAME", "agent:ID".
	Source string
}

// ByDevice reports whether an enforcement device saw the binding on its network,
// which weighs more than what an agent says of itself.
func (b Binding) ByDevice() bool { return strings.HasPrefix(b.Source, DeviceSource) }

// The sources of bindings begin with these.
const (
	DeviceSource = "device:"
	AgentSource  = "agent:"
)

// Slack is how far a binding's edges are stretched when an alert is resolved: a
// detector's clock and the neighbour event's are not the same, and a machine's
// first packet may be the alert's.
const Slack = 5 * time.Second

// At picks from an address's bindings the one that held at a time. A binding
// that covers the time wins over one that only comes within Slack of it; among
// equals the one that began last wins. It returns false when none fits.
func At(bindings []Binding, at time.Time) (Binding, bool) {
	fits := slices.DeleteFunc(slices.Clone(bindings), func(b Binding) bool {
		return distance(b, at) > Slack
	})
	if len(fits) == 0 {
		return Binding{}, false
	}
	slices.SortFunc(fits, func(a, b Binding) int {
		return cmp.Or(cmp.Compare(distance(a, at), distance(b, at)), b.From.Compare(a.From))
	})
	return fits[0], true
}

// distance is how far a time lies outside a binding; 0 inside.
func distance(b Binding, at time.Time) time.Duration {
	if at.Before(b.From) {
		return b.From.Sub(at)
	}
	if !b.Until.IsZero() && at.After(b.Until) {
		return at.Sub(b.Until)
	}
	return 0
}
