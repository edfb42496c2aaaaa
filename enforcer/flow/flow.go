// Package flow ends the connections that this machine tracks for an address.
package flow

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Tracking deletes connection tracking entries in the network namespace of the
// process.
type Tracking struct{}

// End deletes the entries that have one of the addresses on any side, before or
// after translation. A kernel that tracks no connections has none.
func (Tracking) End(addresses []netip.Addr) error {
	m := make(match, len(addresses))
	four, six := false, false
	for _, a := range addresses {
		m[a.Unmap()] = struct{}{}
		four, six = four || a.Unmap().Is4(), six || !a.Unmap().Is4()
	}
	var errs []error
	for family, wanted := range map[netlink.InetFamily]bool{unix.AF_INET: four, unix.AF_INET6: six} {
		if !wanted {
			continue
		}
		_, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, m)
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("delete connection tracking entries: %w", err))
		}
	}
	return errors.Join(errs...)
}

type match map[netip.Addr]struct{}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (m match) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	for _, ip := range []net.IP{f.Forward.SrcIP, f.Forward.DstIP, f.Reverse.SrcIP, f.Reverse.DstIP} {
		a, ok := netip.AddrFromSlice(ip)
		if _, hit := m[a.Unmap()]; ok && hit {
			return true
		}
	}
	return false
}
