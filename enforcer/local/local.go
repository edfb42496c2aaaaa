// Package local finds what of the machine itself must never be cut off: its own
// addresses and MACs, and its default gateways.
package local

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/cordon-security/cordon/internal/guard"
)

// Machine reads the network namespace of the process. It is not safe for
// concurrent use.
type Machine struct {
	log *slog.Logger
	// gateways pins the first MAC that was seen of each default gateway: whoever
	// claims the gateway's address later must not become untouchable by that.
	gateways map[netip.Addr]guard.MAC
	told     map[netip.Addr]guard.MAC
}

// New makes a Machine.
func New(log *slog.Logger) *Machine {
	return &Machine{log: log, gateways: map[netip.Addr]guard.MAC{}, told: map[netip.Addr]guard.MAC{}}
}

// Protected lists the entries, in an order that is the same when they are.
func (m *Machine) Protected() ([]guard.Protected, error) {
	var out []guard.Protected
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	for _, l := range links {
		if mac, ok := usable(l.Attrs().HardwareAddr); ok {
			out = append(out, guard.Protected{MAC: mac, Origin: "this device's own MAC"})
		}
	}
	addresses, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addresses {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && !ip.IsLoopback() {
			out = append(out, protected(ip.Unmap(), "this device's own address"))
		}
	}
	gateways, err := gateways()
	if err != nil {
		return nil, err
	}
	for _, g := range gateways {
		out = append(out, protected(g, "a default gateway"))
	}
	macs, err := m.pin(gateways)
	if err != nil {
		return nil, err
	}
	out = append(out, macs...)
	slices.SortFunc(out, compare)
	return slices.Compact(out), nil
}

func protected(a netip.Addr, origin string) guard.Protected {
	return guard.Protected{Prefix: netip.PrefixFrom(a, a.BitLen()), Origin: origin}
}

func compare(a, b guard.Protected) int {
	if c := slices.Compare(a.MAC[:], b.MAC[:]); c != 0 {
		return c
	}
	if c := a.Prefix.Addr().Compare(b.Prefix.Addr()); c != 0 {
		return c
	}
	return slices.Compare([]byte(a.Origin), []byte(b.Origin))
}

func usable(hw net.HardwareAddr) (guard.MAC, bool) {
	mac, err := guard.MACFrom(hw)
	return mac, err == nil && !mac.IsZero() && !mac.IsGroup()
}

func gateways() ([]netip.Addr, error) {
	var out []netip.Addr
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		for _, r := range routes {
			if r.Dst != nil && !isDefault(r.Dst) {
				continue
			}
			hops := []net.IP{r.Gw}
			for _, hop := range r.MultiPath {
				hops = append(hops, hop.Gw)
			}
			for _, hop := range hops {
				if a, ok := netip.AddrFromSlice(hop); ok {
					out = append(out, a.Unmap())
				}
			}
		}
	}
	return out, nil
}

func isDefault(n *net.IPNet) bool {
	ones, _ := n.Mask.Size()
	return ones == 0 && n.IP.IsUnspecified()
}

// pin protects the MACs of the gateways.
func (m *Machine) pin(gateways []netip.Addr) ([]guard.Protected, error) {
	if len(gateways) == 0 {
		return nil, nil
	}
	neighbors, err := netlink.NeighList(0, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list neighbours: %w", err)
	}
	for _, n := range neighbors {
		a, ok := netip.AddrFromSlice(n.IP)
		a = a.Unmap()
		mac, good := usable(n.HardwareAddr)
		if !ok || !good || !slices.Contains(gateways, a) || n.State&(unix.NUD_FAILED|unix.NUD_INCOMPLETE|unix.NUD_NOARP) != 0 {
			continue
		}
		pinned, known := m.gateways[a]
		if !known {
			m.gateways[a] = mac
		} else if pinned != mac && m.told[a] != mac {
			m.told[a] = mac
			m.log.Warn("a default gateway answers with another MAC than at first; only the first is protected by itself: if the new one is right, list it under protected.macs or restart",
				"gateway", a, "first", pinned.String(), "now", mac.String())
		}
	}
	var out []guard.Protected
	for _, g := range gateways {
		if mac, ok := m.gateways[g]; ok {
			out = append(out, guard.Protected{MAC: mac, Origin: "the MAC of default gateway " + g.String()})
		}
	}
	return out, nil
}
