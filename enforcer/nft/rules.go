package nft

import (
	"net/netip"
	"slices"

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
	setMAC    = "mac"
	setIP4    = "ip4"
	setIP6    = "ip6"
	limited   = "_limited"
	setAllow4 = "allow4"
	setAllow6 = "allow6"
	// What no endpoint with limited access may say that it has.
	setReserved4 = "reserved4"
	setReserved6 = "reserved6"
	inet         = byte(nftables.TableFamilyINet)
	bridge       = byte(nftables.TableFamilyBridge)
	ethARP       = 0x0806
	ethIP        = 0x0800
	ethIP6       = 0x86dd
	icmp6RS      = 133
	icmp6RA      = 134
	icmp6NS      = 135
	icmp6NA      = 136
	dhcpServer   = 67
	dhcpClient   = 68
	dhcp6Srv     = 547
	dhcp6Cli     = 546
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

// prefixSets are the sets of what limited access may reach, and of the single
// addresses that an endpoint with limited access may not claim: those that are
// allowed, or reserved. A network may hold the endpoint itself.
func prefixSets(allow []Allowed, reserved []netip.Prefix) []set {
	var reach, single []netip.Prefix
	for _, a := range allow {
		if a.Protocol == 0 {
			reach = append(reach, a.Prefix)
		}
		single = append(single, a.Prefix)
	}
	single = slices.DeleteFunc(append(single, reserved...), func(p netip.Prefix) bool { return !p.IsSingleIP() })
	reach4, reach6 := split(reach)
	single4, single6 := split(single)
	return []set{
		{name: setAllow4, keyType: nftables.TypeIPAddr, interval: true, prefixes: reach4},
		{name: setAllow6, keyType: nftables.TypeIP6Addr, interval: true, prefixes: reach6},
		{name: setReserved4, keyType: nftables.TypeIPAddr, interval: true, prefixes: single4},
		{name: setReserved6, keyType: nftables.TypeIP6Addr, interval: true, prefixes: single6},
	}
}

func split(prefixes []netip.Prefix) (four, six []netip.Prefix) {
	for _, p := range prefixes {
		if p.Addr().Is4() {
			four = append(four, p)
		} else {
			six = append(six, p)
		}
	}
	return four, six
}

// bridgeLayout cuts by MAC, so that it holds for what is bridged and for what
// this machine routes or sends into the bridge, whatever addresses it wears.
func bridgeLayout(allow []Allowed, reserved []netip.Prefix) layout {
	hook := func(name string, h *nftables.ChainHook, priority nftables.ChainPriority, offset uint32, to string) chain {
		return chain{name: name, hook: h, priority: priority, rules: [][]expr.Any{
			rule(load(link, offset, 6), inSet(setMAC, false), jump(to))}}
	}
	return layout{
		family: nftables.TableFamilyBridge,
		sets:   append(keySets(false), prefixSets(allow, reserved)...),
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
func inetLayout(allow []Allowed, reserved []netip.Prefix) layout {
	ether := meta(expr.MetaKeyIIFTYPE, binaryutil.NativeEndian.PutUint16(unix.ARPHRD_ETHER))
	to6 := rule(proto6(), load(network, 24, 16), inSet(setIP6, false), jump("to_ip6"))
	return layout{
		family: nftables.TableFamilyINet,
		sets:   append(keySets(true), prefixSets(allow, reserved)...),
		chains: append(limitedChains(allow, false),
			chain{name: "from_mac", rules: verdictOf(load(link, 6, 6), setMAC+limited, "limited_from")},
			chain{name: "from_ip4", rules: verdictOf(load(network, 12, 4), setIP4+limited, "limited_from")},
			chain{name: "from_ip6", rules: append(discovery(), verdictOf(load(network, 8, 16), setIP6+limited, "limited_from")...)},
			chain{name: "to_ip4", rules: verdictOf(load(network, 16, 4), setIP4+limited, "limited_to")},
			// This machine may be the DHCP server; nobody's answer is routed.
			chain{name: "limited_out", rules: [][]expr.Any{dhcpReply(familiesOf(false)),
				rule(part{&expr.Verdict{Kind: expr.VerdictGoto, Chain: "limited_to"}})}},
			chain{name: "out_ip4", rules: verdictOf(load(network, 16, 4), setIP4+limited, "limited_out")},
			chain{name: "not_routed", rules: notRouted()},
			chain{name: "to_ip6", rules: append(discovery(), verdictOf(load(network, 24, 16), setIP6+limited, "limited_to")...)},
			chain{name: "prerouting", hook: nftables.ChainHookPrerouting, priority: -300, rules: [][]expr.Any{
				rule(ether, load(link, 6, 6), inSet(setMAC, false), jump("from_mac")),
				rule(proto4(), load(network, 12, 4), inSet(setIP4, false), jump("from_ip4")),
				rule(proto6(), load(network, 8, 16), inSet(setIP6, false), jump("from_ip6")),
			}},
			chain{name: "forward", hook: nftables.ChainHookForward, priority: -10, rules: [][]expr.Any{
				rule(proto6(), l4(unix.IPPROTO_ICMPV6), ether, load(link, 6, 6), inSet(setMAC, false), jump("not_routed")),
				rule(proto6(), l4(unix.IPPROTO_ICMPV6), load(network, 8, 16), inSet(setIP6, false), jump("not_routed")),
				rule(proto4(), load(network, 16, 4), inSet(setIP4, false), jump("to_ip4")),
				to6,
			}},
			chain{name: "output", hook: nftables.ChainHookOutput, priority: -10, rules: [][]expr.Any{
				rule(proto4(), load(network, 16, 4), inSet(setIP4, false), jump("out_ip4")),
				to6,
			}},
		),
	}
}

// discovery lets neighbour discovery from and to a blocked address pass on its
// link. What a quarantined MAC sends was dropped before; this is how the next
// owner of its address is noticed, as ARP, which these hooks never see, does it
// for IPv4.
func discovery() [][]expr.Any {
	var out [][]expr.Any
	for _, kind := range []byte{icmp6NS, icmp6NA} {
		out = append(out, rule(icmp6(kind), onLink(), back()))
	}
	return out
}

// notRouted drops neighbour discovery that is about to be routed, which the way
// in let pass because it could not know that.
func notRouted() [][]expr.Any {
	var out [][]expr.Any
	for _, kind := range []byte{icmp6RS, icmp6RA, icmp6NS, icmp6NA} {
		out = append(out, rule(icmp6(kind), drop()))
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
