package event

import (
	"encoding/binary"
	"net/netip"

	"github.com/cordon-security/cordon/mitigator/endpoint"
)

// HomeNetworks says which addresses are ours.
type HomeNetworks struct {
	// Include holds the networks of our endpoints.
	Include []netip.Prefix
	// Exclude holds what lies inside them and is nobody's endpoint.
	Exclude []netip.Prefix
}

// Contains reports whether the address can be one of our endpoints: inside a
// home network, outside the exclusions, and an address that a single machine can
// have. Broadcast, multicast, unspecified, loopback and IPv4 link-local
// addresses never are, nor the network and broadcast address of a home network.
func (h HomeNetworks) Contains(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || (a.Is4() && a.IsLinkLocalUnicast()) {
		return false
	}
	for _, p := range h.Exclude {
		if p.Contains(a) {
			return false
		}
	}
	ours := false
	for _, p := range h.Include {
		ours = ours || p.Contains(a)
		if edgeOf(p, a) {
			return false
		}
	}
	return ours
}

// edgeOf reports whether the address is the network or the broadcast address of
// an IPv4 network that has such (RFC 3021: /31 and /32 have none).
func edgeOf(p netip.Prefix, a netip.Addr) bool {
	if !a.Is4() || !p.Addr().Is4() || p.Bits() > 30 || !p.Contains(a) {
		return false
	}
	raw := a.As4()
	host := binary.BigEndian.Uint32(raw[:]) << p.Bits() >> p.Bits()
	return host == 0 || host == ^uint32(0)>>p.Bits()
}

// Local is one side of an event that is ours.
type Local struct {
	Addr   netip.Addr
	Port   uint16
	Remote netip.AddrPort
	// Outbound: this side opened the flow.
	Outbound bool
	Role     Role
	// RoleReason says in words which rule gave the role.
	RoleReason string
	// MAC is what the sensor saw this side send from. It is zero when the sensor
	// recorded none, and when this side only was to receive the packet: where a
	// frame is sent to proves nothing about its receiver.
	MAC endpoint.MAC
	// Established: the flow is TCP and both sides took part.
	Established bool
	// Proto is the event's.
	Proto uint8
	// guessed: who opened the flow is a guess that nothing confirms.
	guessed bool
}

// Locate returns the sides of the event that are ours, the packet's source
// first: none, one, or both.
func Locate(e Event, home HomeNetworks) []Local {
	var locals []Local
	for _, side := range [...]Side{SrcSide, DstSide} {
		own, remote := e.Src, e.Dst
		if side == DstSide {
			own, remote = e.Dst, e.Src
		}
		if !home.Contains(own.Addr()) || (len(locals) > 0 && own.Addr() == remote.Addr()) {
			continue
		}
		locals = append(locals, local(e, side, own, remote, home.Contains(remote.Addr())))
	}
	return locals
}

func local(e Event, side Side, own, remote netip.AddrPort, lateral bool) Local {
	l := Local{
		Addr: own.Addr().Unmap(), Port: own.Port(), Remote: remote, Proto: e.Proto,
		Outbound: side == e.Initiator, Established: e.Established && e.Proto == ProtoTCP,
	}
	if side == SrcSide {
		l.MAC = e.SrcMAC
	}
	l.Role, l.RoleReason = roleOf(e, side)
	confirmed := e.Victim != UnknownSide || (e.Compromise && !lateral)
	l.guessed = e.InitiatorGuessed && !confirmed
	return l
}

// Containable reports whether policy may cut this side off on the event's
// evidence alone, and why or why not in words. binding is the MAC that the
// address was bound to at the event's time, zero when that is not known.
//
// Only an attacker is containable, and only when its address cannot have been
// forged by somebody who does not see the answers: the flow is established TCP,
// or the sensor saw the frame leave the MAC that owned the address.
func (l Local) Containable(binding endpoint.MAC) (bool, string) {
	switch {
	case l.Role == Victim:
		return false, "it is the victim: " + l.RoleReason
	case l.Role != Attacker:
		return false, "its part is not known: " + l.RoleReason
	case l.guessed:
		return false, "who opened the connection was only guessed from the ports; a sensor that records the direction (Suricata 7) would say"
	case l.Established:
		return true, "the TCP connection was established: the address is not forged"
	case l.MAC.IsEndpoint() && l.MAC == binding:
		return true, "the sensor saw the frame leave " + l.MAC.String() + ", which owned the address at that time"
	case l.MAC.IsEndpoint() && binding.IsEndpoint():
		return false, l.doubt() + ", and the frame came from " + l.MAC.String() + " while the address belonged to " + binding.String()
	case l.MAC.IsEndpoint():
		return false, l.doubt() + ", and it is not known which MAC owned the address at that time"
	}
	return false, l.doubt() + ", and the sensor recorded no MAC (Suricata: outputs.eve-log.ethernet)"
}

// doubt says why the flow alone does not prove the address.
func (l Local) doubt() string {
	switch l.Proto {
	case ProtoTCP:
		return "the source may be forged: the TCP connection was never established"
	case ProtoUDP:
		return "the source may be forged: UDP has no handshake"
	case ProtoICMP, ProtoICMPv6:
		return "the source may be forged: ICMP has no handshake"
	}
	return "the source may be forged: the protocol has no handshake that was seen"
}

// EstablishedTCP reports whether a TCP flow's counters can only come from a
// handshake that both sides finished. bytesToClient counts whole frames.
//
// A blind spoofer (one who does not see the answers) can make the server send
// SYN-ACKs, their retransmissions and resets, and can send any number of packets
// himself. He cannot make the server send payload, because that needs the
// server's sequence number acknowledged. So what counts is that the server sent
// more bytes than its packets' headers explain, or that the sensor recognised an
// application protocol, for which its stream engine needs the whole handshake.
// He who has an accomplice on the server's side is not blind: against him only
// the frame's MAC helps.
func EstablishedTCP(pktsToServer, pktsToClient, bytesToClient uint64, ipv6, appProtoKnown bool) bool {
	if pktsToServer < 2 || pktsToClient < 2 {
		return false
	}
	if appProtoKnown {
		return true
	}
	return bytesToClient/bareFrame(ipv6) >= pktsToClient && bytesToClient > pktsToClient*bareFrame(ipv6)
}

// bareFrame is the largest frame of a server's usual SYN-ACK: Ethernet with one
// VLAN tag (18), IP (20 or 40), TCP (20) with its options (20).
func bareFrame(ipv6 bool) uint64 {
	if ipv6 {
		return 98
	}
	return 78
}
