// Package local finds what of the machine itself must never be cut off: its own
// addresses and MACs, and its default gateways.
package local

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/cordon-security/cordon/internal/guard"
)

// Machine reads the network namespace of the process. It is not safe for
// concurrent use.
type Machine struct{ gateways *gateways }

// New makes a Machine that keeps the MACs of the default gateways in dir.
func New(dir string, log *slog.Logger) *Machine {
	return &Machine{gateways: openGateways(filepath.Join(dir, "gateways.json"), log)}
}

// Protected lists the entries, in an order that is the same when they are. A
// gateway's MAC is learned when it is seen first, unless it is suspect.
func (m *Machine) Protected(suspect func(guard.MAC) bool) ([]guard.Protected, error) {
	var out []guard.Protected
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	for _, l := range links {
		if mac, ok := usableHardware(l.Attrs().HardwareAddr); ok {
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
	list, err := defaultGateways()
	if err != nil {
		return nil, err
	}
	for _, g := range list {
		out = append(out, protected(g, "a default gateway"))
	}
	macs, err := m.gateways.protect(list, suspect)
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

func usable(m guard.MAC) bool { return !m.IsZero() && !m.IsGroup() }

func usableHardware(hw net.HardwareAddr) (guard.MAC, bool) {
	mac, err := guard.MACFrom(hw)
	return mac, err == nil && usable(mac)
}

func defaultGateways() ([]netip.Addr, error) {
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
