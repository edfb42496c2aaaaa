package nft

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

const tableName = "cordon"

// The sets. In each family the sets "mac", "ip4" and "ip6" hold every
// quarantined key, and those with "_limited" the keys among them that have
// limited access: other traffic pays one look-up a direction, and an element
// that is only half there cuts off rather than lets pass.
const (
	setMAC     = "mac"
	setIP4     = "ip4"
	setIP6     = "ip6"
	limited    = "_limited"
	setAllow4  = "allow4"
	setAllow6  = "allow6"
	inet       = byte(nftables.TableFamilyINet)
	bridge     = byte(nftables.TableFamilyBridge)
	ethARP     = 0x0806
	ethIP      = 0x0800
	ethIP6     = 0x86dd
	icmp6RS    = 133
	icmp6RA    = 134
	icmp6NS    = 135
	icmp6NA    = 136
	dhcpServer = 67
	dhcpClient = 68
	dhcp6Srv   = 547
	dhcp6Cli   = 546
)

// Allowed is one thing that endpoints with limited access may reach.
type Allowed struct {
	Prefix netip.Prefix
	// Protocol is an IANA number; 0 allows all of the prefix.
	Protocol uint8
	// Port is the remote side's; 0 means every port.
	Port uint16
}

// chain is one chain as it shall be. A chain without a hook is jumped to.
type chain struct {
	name     string
	hook     *nftables.ChainHook
	priority nftables.ChainPriority
	rules    [][]expr.Any
}

// set is one set as it shall be; prefixes are the content of an interval set.
type set struct {
	name     string
	keyType  nftables.SetDatatype
	interval bool
	prefixes []netip.Prefix
}

// layout is one table as it shall be, but for the quarantined keys.
type layout struct {
	family nftables.TableFamily
	sets   []set
	chains []chain
}

func keySets(withAddresses bool) []set {
	out := []set{{name: setMAC, keyType: nftables.TypeEtherAddr}, {name: setMAC + limited, keyType: nftables.TypeEtherAddr}}
	if !withAddresses {
		return out
	}
	return append(out,
		set{name: setIP4, keyType: nftables.TypeIPAddr}, set{name: setIP4 + limited, keyType: nftables.TypeIPAddr},
		set{name: setIP6, keyType: nftables.TypeIP6Addr}, set{name: setIP6 + limited, keyType: nftables.TypeIP6Addr})
}

func allowSets(allow []Allowed) []set {
	four := set{name: setAllow4, keyType: nftables.TypeIPAddr, interval: true}
	six := set{name: setAllow6, keyType: nftables.TypeIP6Addr, interval: true}
	for _, a := range allow {
		switch {
		case a.Protocol != 0:
		case a.Prefix.Addr().Is4():
			four.prefixes = append(four.prefixes, a.Prefix)
		default:
			six.prefixes = append(six.prefixes, a.Prefix)
		}
	}
	return []set{four, six}
}

// bridgeLayout cuts by MAC, so that it holds for what is bridged and for what
// this machine routes or sends into the bridge, whatever addresses it wears.
func bridgeLayout(allow []Allowed) layout {
	hook := func(name string, h *nftables.ChainHook, priority nftables.ChainPriority, offset uint32, to string) chain {
		return chain{name: name, hook: h, priority: priority, rules: [][]expr.Any{
			rule(load(link, offset, 6), inSet(setMAC, false), jump(to))}}
	}
	return layout{
		family: nftables.TableFamilyBridge,
		sets:   append(keySets(false), allowSets(allow)...),
		chains: append(limitedChains(allow, true),
			chain{name: "from_mac", rules: verdictOf(load(link, 6, 6), setMAC+limited, "limited_from")},
			chain{name: "to_mac", rules: verdictOf(load(link, 0, 6), setMAC+limited, "limited_to")},
			hook("prerouting", nftables.ChainHookPrerouting, -300, 6, "from_mac"),
			hook("forward", nftables.ChainHookForward, -200, 0, "to_mac"),
			hook("output", nftables.ChainHookOutput, -200, 0, "to_mac"),
		),
	}
}

// inetLayout cuts what is routed by or meant for this machine. It judges before
// connection tracking and NAT on the way in, and behind NAT on the way out.
func inetLayout(allow []Allowed) layout {
	out := [][]expr.Any{
		rule(proto4(), load(network, 16, 4), inSet(setIP4, false), jump("to_ip4")),
		rule(proto6(), load(network, 24, 16), inSet(setIP6, false), jump("to_ip6")),
	}
	return layout{
		family: nftables.TableFamilyINet,
		sets:   append(keySets(true), allowSets(allow)...),
		chains: append(limitedChains(allow, false),
			chain{name: "from_mac", rules: verdictOf(load(link, 6, 6), setMAC+limited, "limited_from")},
			chain{name: "from_ip4", rules: verdictOf(load(network, 12, 4), setIP4+limited, "limited_from")},
			chain{name: "from_ip6", rules: append(discovery(), verdictOf(load(network, 8, 16), setIP6+limited, "limited_from")...)},
			chain{name: "to_ip4", rules: verdictOf(load(network, 16, 4), setIP4+limited, "limited_to")},
			chain{name: "to_ip6", rules: append(discovery(), verdictOf(load(network, 24, 16), setIP6+limited, "limited_to")...)},
			chain{name: "prerouting", hook: nftables.ChainHookPrerouting, priority: -300, rules: [][]expr.Any{
				rule(meta(expr.MetaKeyIIFTYPE, binaryutil.NativeEndian.PutUint16(unix.ARPHRD_ETHER)),
					load(link, 6, 6), inSet(setMAC, false), jump("from_mac")),
				rule(proto4(), load(network, 12, 4), inSet(setIP4, false), jump("from_ip4")),
				rule(proto6(), load(network, 8, 16), inSet(setIP6, false), jump("from_ip6")),
			}},
			chain{name: "forward", hook: nftables.ChainHookForward, priority: -10, rules: out},
			chain{name: "output", hook: nftables.ChainHookOutput, priority: -10, rules: out},
		),
	}
}

// discovery lets neighbour discovery from and to a blocked address pass. What a
// quarantined MAC sends was dropped before; this is how the next owner of its
// address is noticed, as ARP, which these hooks never see, does it for IPv4.
func discovery() [][]expr.Any {
	var out [][]expr.Any
	for _, kind := range []byte{icmp6NS, icmp6NA} {
		out = append(out, rule(l4(unix.IPPROTO_ICMPV6), load(transport, 0, 1), equals([]byte{kind}), back()))
	}
	return out
}

// verdictOf sends a quarantined key with limited access to a chain that returns
// what may pass, and drops everything else.
func verdictOf(key part, set, to string) [][]expr.Any {
	return [][]expr.Any{
		rule(key, inSet(set, false), part{&expr.Verdict{Kind: expr.VerdictGoto, Chain: to}}),
		rule(drop()),
	}
}

// limitedChains are what limited access lets pass from and to an endpoint,
// without connection tracking: pairs in both directions. An endpoint with
// limited access may look for routers and neighbours, never be a router or a
// DHCP server.
func limitedChains(allow []Allowed, isBridge bool) []chain {
	from, to := chain{name: "limited_from"}, chain{name: "limited_to"}
	v4, v6 := proto4(), proto6()
	if isBridge {
		v4, v6 = etherType(ethIP), etherType(ethIP6)
		from.rules = append(from.rules, rule(etherType(ethARP), back()))
		to.rules = append(to.rules, rule(etherType(ethARP), back()))
	}
	from.rules = append(from.rules,
		rule(v4, l4(unix.IPPROTO_UDP), port(0, dhcpClient), port(2, dhcpServer), back()),
		rule(v6, l4(unix.IPPROTO_UDP), port(0, dhcp6Cli), port(2, dhcp6Srv), back()))
	to.rules = append(to.rules,
		rule(v4, l4(unix.IPPROTO_UDP), port(0, dhcpServer), port(2, dhcpClient), back()),
		rule(v6, l4(unix.IPPROTO_UDP), port(0, dhcp6Srv), port(2, dhcp6Cli), back()))
	for _, kind := range []byte{icmp6RS, icmp6NS, icmp6NA} {
		from.rules = append(from.rules, rule(v6, l4(unix.IPPROTO_ICMPV6), load(transport, 0, 1), equals([]byte{kind}), back()))
	}
	for _, kind := range []byte{icmp6RA, icmp6NS, icmp6NA} {
		to.rules = append(to.rules, rule(v6, l4(unix.IPPROTO_ICMPV6), load(transport, 0, 1), equals([]byte{kind}), back()))
	}
	from.rules = append(from.rules,
		rule(v4, load(network, 16, 4), inSet(setAllow4, false), back()),
		rule(v6, load(network, 24, 16), inSet(setAllow6, false), back()))
	to.rules = append(to.rules,
		rule(v4, load(network, 12, 4), inSet(setAllow4, false), back()),
		rule(v6, load(network, 8, 16), inSet(setAllow6, false), back()))
	for _, a := range allow {
		if a.Protocol == 0 {
			continue
		}
		from.rules = append(from.rules, service(a, v4, v6, false))
		to.rules = append(to.rules, service(a, v4, v6, true))
	}
	from.rules = append(from.rules, rule(drop()))
	to.rules = append(to.rules, rule(drop()))
	return []chain{from, to}
}

// service matches one allowed prefix with a protocol, on the way to it or back.
func service(a Allowed, v4, v6 part, reply bool) []expr.Any {
	family, length, destination, source := v6, uint32(16), uint32(24), uint32(8)
	if a.Prefix.Addr().Is4() {
		family, length, destination, source = v4, 4, 16, 12
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
