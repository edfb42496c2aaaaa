package mitigator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cordon-security/cordon/internal/guard"
	"github.com/cordon-security/cordon/mitigator/endpoint"
)

// fleetGuard applies the rules of package guard to the whole fleet: the life
// cycle asks it before every quarantine, whoever orders it. The machine's own
// addresses, which come and go with leases and cables, are always among what it
// protects.
type fleetGuard struct {
	listed []guard.Protected
	limit  guard.Cap
	rules  atomic.Pointer[guard.Guard]
}

// ownEvery is how often the machine's own addresses are looked at.
const ownEvery = 5 * time.Second

// newFleetGuard also returns the machine's own addresses.
func newFleetGuard(listed []guard.Protected, limit guard.Cap) (*fleetGuard, []netip.Addr, error) {
	g := &fleetGuard{listed: listed, limit: limit}
	own, err := g.refresh()
	return g, own, err
}

func (g *fleetGuard) refresh() ([]netip.Addr, error) {
	own, protected, err := ownAddresses()
	if err != nil {
		return nil, err
	}
	rules, err := guard.New(slices.Concat(g.listed, protected), g.limit)
	if err != nil {
		return nil, err
	}
	g.rules.Store(rules)
	return own, nil
}

// Run keeps up with the machine's own addresses until ctx ends.
func (g *fleetGuard) Run(ctx context.Context, log *slog.Logger) error {
	tick := time.NewTicker(ownEvery)
	defer tick.Stop()
	failed := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		_, err := g.refresh()
		if err != nil && !failed {
			log.Error("own addresses not looked at; those of before stay protected", "err", err)
		}
		failed = err != nil
	}
}

// Check implements lifecycle.Guard.
func (g *fleetGuard) Check(now time.Time, e endpoint.Endpoint, bindings []endpoint.Binding, recent []time.Time, active int) error {
	macs := make([]guard.MAC, len(e.MACs))
	for i, m := range e.MACs {
		macs[i] = guard.MAC(m)
	}
	addresses := make([]netip.Addr, len(bindings))
	for i, b := range bindings {
		addresses[i] = b.Addr
	}
	rules := g.rules.Load()
	// What may never be cut off is said first: waiting at the cap would not help it.
	for _, refusal := range []*guard.Refusal{
		rules.Check(macs, addresses),
		rules.Cap().CheckTotal(active, 1),
		rules.Cap().CheckRate(recent, 1, now),
	} {
		if refusal != nil {
			return refusal
		}
	}
	return nil
}

// AtCap implements lifecycle.Guard.
func (g *fleetGuard) AtCap(err error) bool {
	var refusal *guard.Refusal
	return errors.As(err, &refusal) && (refusal.Rule == guard.RuleCapTotal || refusal.Rule == guard.RuleCapRate)
}

// Window implements lifecycle.Guard. Without a limit nothing is counted: each
// containment would list all the others.
func (g *fleetGuard) Window() time.Duration {
	if g.limit.New == 0 {
		return 0
	}
	return g.limit.Window
}

// AtOnce implements lifecycle.Guard.
func (g *fleetGuard) AtOnce() int { return g.limit.AtOnce }

// ownAddresses lists this machine's addresses and MACs. Cutting itself off would
// end every way to release anything.
func ownAddresses() (addrs []netip.Addr, protected []guard.Protected, err error) {
	links, err := net.Interfaces()
	if err != nil {
		return nil, nil, fmt.Errorf("own interfaces: %w", err)
	}
	for _, link := range links {
		if link.Flags&net.FlagLoopback != 0 {
			continue
		}
		if m, err := guard.MACFrom(link.HardwareAddr); err == nil && !m.IsZero() {
			protected = append(protected, guard.Protected{MAC: m, Origin: "the mitigator's own interface " + link.Name})
		}
		own, err := link.Addrs()
		if err != nil {
			return nil, nil, fmt.Errorf("addresses of %s: %w", link.Name, err)
		}
		for _, a := range own {
			p, err := netip.ParsePrefix(a.String())
			if err != nil || p.Addr().IsLinkLocalUnicast() {
				continue
			}
			addr := p.Addr().Unmap()
			addrs = append(addrs, addr)
			protected = append(protected, guard.Protected{Prefix: netip.PrefixFrom(addr, addr.BitLen()), Origin: "the mitigator's own address"})
		}
	}
	return addrs, protected, nil
}
