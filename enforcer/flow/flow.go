// Package flow ends the connections that this machine tracks for an address.
package flow

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

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
		err := persist(func() error {
			_, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, m)
			return err
		})
		if err != nil && !(untracked(err) && !tracks()) {
			errs = append(errs, fmt.Errorf("delete connection tracking entries: %w", err))
		}
	}
	return errors.Join(errs...)
}

// attempts is how often a table is gone through that changes meanwhile.
const attempts = 5

// persist repeats a deletion whose listing was interrupted, and so incomplete.
func persist(del func() error) (err error) {
	for range attempts {
		if err = del(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return err
		}
	}
	return err
}

// untracked reports an error that a kernel gives which tracks no connections. It
// may mean something else where the kernel does.
func untracked(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL)
}

func tracks() bool {
	_, err := os.Stat("/proc/sys/net/netfilter/nf_conntrack_max")
	return err == nil
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
