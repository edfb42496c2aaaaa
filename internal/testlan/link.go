package testlan

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// quietNetwork makes a new host's network predictable: loopback up, addresses
// usable at once, none that come by themselves.
func (h *Host) quietNetwork() error {
	for _, s := range [][2]string{
		{"net.ipv6.conf.all.disable_ipv6", "0"}, {"net.ipv6.conf.default.disable_ipv6", "0"},
		{"net.ipv6.conf.all.accept_dad", "0"}, {"net.ipv6.conf.default.accept_dad", "0"},
		{"net.ipv6.conf.default.dad_transmits", "0"},
		{"net.ipv6.conf.all.accept_ra", "0"}, {"net.ipv6.conf.default.accept_ra", "0"},
		{"net.ipv4.conf.all.rp_filter", "0"}, {"net.ipv4.conf.default.rp_filter", "0"},
	} {
		if err := h.Sysctl(s[0], s[1]); err != nil {
			return err
		}
	}
	return h.up("lo")
}

// Sysctl sets a network setting of the host, such as "net.ipv4.ip_forward".
func (h *Host) Sysctl(key, value string) error {
	if !strings.HasPrefix(key, "net.") || strings.Contains(key, "..") {
		return fmt.Errorf("setting %s: only those below net. belong to a host", key)
	}
	path := "/proc/sys/" + strings.ReplaceAll(key, ".", "/")
	if err := h.NetNS(func() error { return os.WriteFile(path, []byte(value), 0) }); err != nil {
		return fmt.Errorf("set %s on %s: %w", key, h.name, err)
	}
	return nil
}

// Connect joins two hosts by a cable: interface ifA of a and ifB of b, both up.
func (l *LAN) Connect(a *Host, ifA string, b *Host, ifB string) error {
	link := &netlink.Veth{
		LinkAttrs:        netlink.NewLinkAttrs(),
		PeerName:         ifB,
		PeerHardwareAddr: b.nextMAC(ifB),
		PeerNamespace:    netlink.NsFd(int(b.netns)),
	}
	link.Name = ifA
	link.HardwareAddr = a.nextMAC(ifA)
	if err := a.links.LinkAdd(link); err != nil {
		return fmt.Errorf("connect %s %s with %s %s: %w", a.name, ifA, b.name, ifB, err)
	}
	return errors.Join(a.up(ifA), b.up(ifB))
}

// nextMAC is the address of a new link of the host.
func (h *Host) nextMAC(link string) net.HardwareAddr {
	h.lan.mu.Lock()
	defer h.lan.mu.Unlock()
	if h.o.MAC != nil && !h.macUsed {
		h.macUsed = true
		return h.o.MAC
	}
	return stableMAC(h.name, link)
}

// stableMAC makes a locally administered unicast address from names.
func stableMAC(host, link string) net.HardwareAddr {
	sum := sha256.Sum256([]byte(host + "/" + link))
	mac := net.HardwareAddr(sum[:6])
	mac[0] = mac[0]&^0x03 | 0x02
	return mac
}

func (h *Host) link(name string) (netlink.Link, error) {
	link, err := h.links.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("interface %s of %s: %w", name, h.name, err)
	}
	return link, nil
}

func (h *Host) up(name string) error {
	link, err := h.link(name)
	if err != nil {
		return err
	}
	if err := h.links.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring up %s of %s: %w", name, h.name, err)
	}
	return nil
}

// MAC returns the hardware address of an interface of the host.
func (h *Host) MAC(link string) (net.HardwareAddr, error) {
	l, err := h.link(link)
	if err != nil {
		return nil, err
	}
	return l.Attrs().HardwareAddr, nil
}

// AddBridge makes a bridge in the host out of interfaces that it has. Spanning
// tree and multicast snooping are off, and netfilter's hooks into bridged
// traffic too: Debian's kernel has them in a module that is not loaded.
func (h *Host) AddBridge(name string, ports ...string) error {
	off := false
	bridge := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs(), MulticastSnooping: &off}
	bridge.Name = name
	bridge.HardwareAddr = h.nextMAC(name)
	if err := h.links.LinkAdd(bridge); err != nil {
		return fmt.Errorf("make bridge %s on %s: %w", name, h.name, err)
	}
	for _, port := range ports {
		link, err := h.link(port)
		if err != nil {
			return err
		}
		if err := h.links.LinkSetMaster(link, bridge); err != nil {
			return fmt.Errorf("put %s into bridge %s of %s: %w", port, name, h.name, err)
		}
	}
	for _, table := range []string{"iptables", "ip6tables", "arptables"} {
		err := h.Sysctl("net.bridge.bridge-nf-call-"+table, "0")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return h.up(name)
}

// address is usable at once: no duplicate address detection.
func address(prefix netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: &net.IPNet{
		IP:   prefix.Addr().AsSlice(),
		Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen()),
	}}
	if prefix.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}

// SetAddress adds addresses, each with the length of its network's prefix, to
// an interface.
func (h *Host) SetAddress(link string, prefixes ...netip.Prefix) error {
	l, err := h.link(link)
	if err != nil {
		return err
	}
	for _, p := range prefixes {
		if err := h.links.AddrReplace(l, address(p)); err != nil {
			return fmt.Errorf("give %s to %s of %s: %w", p, link, h.name, err)
		}
	}
	return nil
}

// ReplaceAddress gives an interface another address in place of old. Routes
// through a gateway that the kernel dropped with the old address are set again.
// Neighbours learn of the change when the host next speaks.
func (h *Host) ReplaceAddress(link string, old, replacement netip.Prefix) error {
	l, err := h.link(link)
	if err != nil {
		return err
	}
	family := netlink.FAMILY_V4
	if old.Addr().Is6() {
		family = netlink.FAMILY_V6
	}
	routes, err := h.links.RouteList(l, family)
	if err != nil {
		return fmt.Errorf("routes of %s: %w", h.name, err)
	}
	if err := h.links.AddrDel(l, address(old)); err != nil {
		return fmt.Errorf("take %s from %s of %s: %w", old, link, h.name, err)
	}
	if err := h.SetAddress(link, replacement); err != nil {
		return err
	}
	for _, r := range routes {
		if r.Gw == nil {
			continue
		}
		r.Src = nil
		if err := h.links.RouteReplace(&r); err != nil {
			return fmt.Errorf("set route again on %s: %w", h.name, err)
		}
	}
	return nil
}

// AddRoute adds a route through a gateway that the host has a link to.
func (h *Host) AddRoute(to netip.Prefix, via netip.Addr) error {
	r := &netlink.Route{
		Dst: &net.IPNet{IP: to.Masked().Addr().AsSlice(), Mask: net.CIDRMask(to.Bits(), to.Addr().BitLen())},
		Gw:  via.AsSlice(),
	}
	if err := h.links.RouteReplace(r); err != nil {
		return fmt.Errorf("add route to %s via %s on %s: %w", to, via, h.name, err)
	}
	return nil
}

// DefaultRoute sends what has no other route to a gateway.
func (h *Host) DefaultRoute(via netip.Addr) error {
	all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if via.Is6() {
		all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return h.AddRoute(all, via)
}

// Forward makes the host a router.
func (h *Host) Forward() error {
	return errors.Join(h.Sysctl("net.ipv4.ip_forward", "1"), h.Sysctl("net.ipv6.conf.all.forwarding", "1"))
}
