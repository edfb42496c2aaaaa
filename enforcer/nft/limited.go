package nft

import (
	"net/netip"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// hopLimit is what neighbour discovery is sent with (RFC 4861, section 7.1). A
// router takes one off, so it says that a packet was not routed.
const hopLimit = 255

var (
	broadcast4   = netip.MustParsePrefix("255.255.255.255/32")
	dhcp6Servers = netip.MustParsePrefix("ff02::1:2/128")
	linkLocal6   = netip.MustParsePrefix("fe80::/10")
	onLinkGroups = netip.MustParsePrefix("ff02::/16")
)

// families are the conditions for IPv4 and IPv6 in a table's family.
type families struct{ v4, v6 part }

func familiesOf(isBridge bool) families {
	if isBridge {
		return families{etherType(ethIP), etherType(ethIP6)}
	}
	return families{proto4(), proto6()}
}

// limitedChains are what limited access lets pass from and to an endpoint,
// without connection tracking: pairs in both directions. An endpoint with
// limited access may look for routers, neighbours and DHCP servers on its link,
// never be a router, a DHCP server or one of the addresses that are reserved.
// Nothing of that may be routed, or it were a way out.
func limitedChains(allow []Allowed, isBridge bool) []chain {
	f := familiesOf(isBridge)
	from, to := chain{name: "limited_from"}, chain{name: "limited_to"}
	if isBridge {
		from.rules = append(from.rules,
			rule(etherType(ethARP), load(network, 14, 4), inSet(setReserved4, false), drop()),
			rule(etherType(ethARP), back()))
		to.rules = append(to.rules, rule(etherType(ethARP), back()), dhcpReply(f))
	}
	from.rules = append(from.rules,
		rule(f.v4, load(network, 16, 4), within(broadcast4), l4(unix.IPPROTO_UDP), port(0, dhcpClient), port(2, dhcpServer), back()),
		rule(f.v6, load(network, 24, 16), within(dhcp6Servers), l4(unix.IPPROTO_UDP), port(0, dhcp6Cli), port(2, dhcp6Srv), back()))
	to.rules = append(to.rules, rule(f.v6, load(network, 8, 16), within(linkLocal6), load(network, 24, 16), within(linkLocal6),
		l4(unix.IPPROTO_UDP), port(0, dhcp6Srv), port(2, dhcp6Cli), back()))
	for _, kind := range []byte{icmp6RS, icmp6NS, icmp6NA} {
		from.rules = append(from.rules, rule(f.v6, icmp6(kind), part{&expr.Verdict{Kind: expr.VerdictGoto, Chain: "discovery_from"}}))
	}
	for _, kind := range []byte{icmp6RA, icmp6NS, icmp6NA} {
		to.rules = append(to.rules, rule(f.v6, icmp6(kind), onLink(), back()))
	}
	from.rules = append(from.rules,
		rule(f.v4, load(network, 16, 4), inSet(setAllow4, false), back()),
		rule(f.v6, load(network, 24, 16), inSet(setAllow6, false), back()))
	to.rules = append(to.rules,
		rule(f.v4, load(network, 12, 4), inSet(setAllow4, false), back()),
		rule(f.v6, load(network, 8, 16), inSet(setAllow6, false), back()))
	for _, a := range allow {
		if a.Protocol == 0 {
			continue
		}
		from.rules = append(from.rules, service(a, f, false))
		to.rules = append(to.rules, service(a, f, true))
	}
	from.rules = append(from.rules, rule(drop()))
	to.rules = append(to.rules, rule(drop()))
	return []chain{discoveryFrom(allow), from, to}
}

// discoveryFrom judges neighbour discovery of an endpoint with limited access:
// to its link and to what it may reach, and in nobody else's name.
func discoveryFrom(allow []Allowed) chain {
	c := chain{name: "discovery_from", rules: [][]expr.Any{
		rule(load(network, 7, 1), part{&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{hopLimit}}}, drop()),
		rule(load(network, 8, 16), inSet(setReserved6, false), drop()),
		rule(icmp6(icmp6NA), load(transport, 8, 16), inSet(setReserved6, false), drop()),
		rule(load(network, 24, 16), within(onLinkGroups), back()),
		rule(load(network, 24, 16), within(linkLocal6), back()),
		rule(load(network, 24, 16), inSet(setAllow6, false), back()),
	}}
	for _, a := range allow {
		if a.Protocol != 0 && a.Prefix.Addr().Is6() {
			c.rules = append(c.rules, rule(load(network, 24, 16), within(a.Prefix), back()))
		}
	}
	c.rules = append(c.rules, rule(drop()))
	return c
}

// dhcpReply lets a DHCP server's answer pass. Servers send it to the address
// that they offer, so its destination says nothing.
func dhcpReply(f families) []expr.Any {
	return rule(f.v4, l4(unix.IPPROTO_UDP), port(0, dhcpServer), port(2, dhcpClient), back())
}

func icmp6(kind byte) part {
	return append(append(l4(unix.IPPROTO_ICMPV6), load(transport, 0, 1)...), equals([]byte{kind})...)
}

func onLink() part { return append(load(network, 7, 1), equals([]byte{hopLimit})...) }

// service matches one allowed prefix with a protocol, on the way to it or back.
func service(a Allowed, f families, reply bool) []expr.Any {
	family, length, destination, source := f.v6, uint32(16), uint32(24), uint32(8)
	if a.Prefix.Addr().Is4() {
		family, length, destination, source = f.v4, 4, 16, 12
	}
	offset, portAt := destination, uint32(2)
	if reply {
		offset, portAt = source, 0
	}
	parts := []part{family, load(network, offset, length), within(a.Prefix), l4(a.Protocol)}
	if a.Port != 0 {
		parts = append(parts, port(portAt, a.Port))
	}
	return rule(append(parts, back())...)
}
