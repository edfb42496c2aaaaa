package neighbor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/cordon-security/cordon/internal/guard"
)

// Kernel is the source that follows this machine's own neighbour tables: what
// it resolved by ARP and neighbour discovery, and static entries.
type Kernel struct{ log *slog.Logger }

// NewKernel makes a source for the network namespace of the process.
func NewKernel(log *slog.Logger) *Kernel { return &Kernel{log: log} }

const (
	neighborBuffer = 4 << 20
	resubscribe    = 200 * time.Millisecond
)

// Run implements Source. When notifications were lost it subscribes anew, which
// lists everything again.
func (k *Kernel) Run(ctx context.Context, report func(Observation)) error {
	for ctx.Err() == nil {
		if err := k.follow(ctx, report); err != nil && ctx.Err() == nil {
			k.log.Warn("neighbour events are followed anew", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(resubscribe):
		}
	}
	return nil
}

var errEnded = errors.New("the subscription ended")

func (k *Kernel) follow(ctx context.Context, report func(Observation)) error {
	updates := make(chan netlink.NeighUpdate, 1024)
	done := make(chan struct{})
	defer close(done)
	failed := make(chan error, 1)
	err := netlink.NeighSubscribeWithOptions(updates, done, netlink.NeighSubscribeOptions{
		ListExisting:      true,
		ReceiveBufferSize: neighborBuffer, ReceiveBufferForceSize: true,
		ErrorCallback: func(err error) {
			select {
			case failed <- err:
			default:
			}
		},
	})
	if err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	defer func() {
		go func() {
			for range updates {
			}
		}()
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case u, ok := <-updates:
			if !ok {
				return errEnded
			}
			if o, ok := observation(u, time.Now()); ok {
				report(o)
			}
		}
	}
}

// observation reads a neighbour event. Entries without a resolved MAC end a
// binding only when the kernel gave up on them; those that need no resolution
// (multicast, loopback) and bridge forwarding entries say nothing.
func observation(u netlink.NeighUpdate, now time.Time) (Observation, bool) {
	address, ok := netip.AddrFromSlice(u.IP)
	if !ok || (u.Family != unix.AF_INET && u.Family != unix.AF_INET6) || u.State&unix.NUD_NOARP != 0 {
		return Observation{}, false
	}
	o := Observation{Address: address.Unmap(), Seen: now}
	mac, err := guard.MACFrom(u.HardwareAddr)
	if u.Type == unix.RTM_DELNEIGH || u.State&unix.NUD_FAILED != 0 {
		if err == nil {
			o.MAC = mac
		}
		return o, true
	}
	const resolved = unix.NUD_REACHABLE | unix.NUD_STALE | unix.NUD_DELAY | unix.NUD_PROBE | unix.NUD_PERMANENT
	if err != nil || u.State&resolved == 0 {
		return Observation{}, false
	}
	o.MAC, o.Present = mac, true
	return o, true
}
