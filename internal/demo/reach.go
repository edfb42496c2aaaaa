package demo

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/cordon-security/cordon/internal/testlan"
)

const (
	// reachable is how long an answer may take where one is expected, cutOff how
	// long none may come where none is.
	reachable = 5 * time.Second
	cutOff    = time.Second
)

// place is what a host may reach, by both families.
type place struct {
	name      string
	addresses []netip.Addr
}

var (
	theInternet = place{"the internet", []netip.Addr{testlan.WebIPv4, testlan.WebIPv6}}
	theC2       = place{"the C2", []netip.Addr{testlan.C2IPv4, testlan.C2IPv6}}
	alicesHost  = place{"alice", []netip.Addr{testlan.AliceIPv4, testlan.AliceIPv6}}
	bobsHost    = place{"bob", []netip.Addr{testlan.BobIPv4, testlan.BobIPv6}}
	thePrinter  = place{"printer", []netip.Addr{testlan.PrinterIPv4, testlan.PrinterIPv6}}
	theMachine  = place{"the mitigator", []netip.Addr{testlan.ApplianceIPv4, testlan.ApplianceIPv6}}
)

// list names places in a sentence.
func list(places []place) string {
	var out []string
	for _, p := range places {
		out = append(out, p.name)
	}
	if n := len(out); n > 1 {
		return strings.Join(out[:n-1], ", ") + " and " + out[n-1]
	}
	return strings.Join(out, "")
}

// each runs a probe for every address of the places, side by side.
func each(places []place, probe func(netip.Addr) error) error {
	var group sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	for _, p := range places {
		for _, a := range p.addresses {
			group.Go(func() {
				if err := probe(a); err != nil {
					mu.Lock()
					defer mu.Unlock()
					errs = append(errs, fmt.Errorf("%s: %w", p.name, err))
				}
			})
		}
	}
	group.Wait()
	return errors.Join(errs...)
}

// reaches fails when a host does not reach one of the places by ping.
func reaches(ctx context.Context, from *testlan.Host, places ...place) error {
	return each(places, func(a netip.Addr) error {
		_, err := from.Ping(ctx, a, reachable)
		return err
	})
}

// cutOffFrom fails when a host reaches one of the places by ping.
func cutOffFrom(ctx context.Context, from *testlan.Host, places ...place) error {
	return each(places, func(a netip.Addr) error {
		rtt, err := from.Ping(ctx, a, cutOff)
		switch {
		case err == nil:
			return fmt.Errorf("%s answers in %s", a, rtt)
		case errors.Is(err, testlan.ErrNoReply):
			return nil
		}
		return err
	})
}

// agentsPort fails when a host cannot connect to where agents are served.
func agentsPort(ctx context.Context, from *testlan.Host) error {
	ctx, cancel := context.WithTimeout(ctx, reachable)
	defer cancel()
	return each([]place{theMachine}, func(a netip.Addr) error {
		return from.DialTCP(ctx, netip.AddrPortFrom(a, 7443))
	})
}

// reads fails when a host does not get the internet's page, after asking for
// the server's address by name.
func reads(ctx context.Context, from *testlan.Host) error {
	ctx, cancel := context.WithTimeout(ctx, reachable)
	defer cancel()
	found, err := from.Resolve(ctx, netip.AddrPortFrom(testlan.DNSIPv4, 53), testlan.WebName)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return fmt.Errorf("%s has no address", testlan.WebName)
	}
	page, err := from.Fetch(ctx, "http://"+netip.AddrPortFrom(found[0], 80).String()+"/")
	if err == nil && !strings.Contains(page, testlan.WebText) {
		err = fmt.Errorf("the page is %q", page)
	}
	return err
}

// readsNothing fails when a host gets the page, asked by its address, or a name.
func readsNothing(ctx context.Context, from *testlan.Host) error {
	ctx, cancel := context.WithTimeout(ctx, cutOff)
	defer cancel()
	var named []netip.Addr
	var asked, fetched error
	var group sync.WaitGroup
	group.Go(func() {
		named, asked = from.Resolve(ctx, netip.AddrPortFrom(testlan.DNSIPv4, 53), testlan.WebName)
	})
	group.Go(func() {
		_, fetched = from.Fetch(ctx, "http://"+netip.AddrPortFrom(testlan.WebIPv4, 80).String()+"/")
	})
	group.Wait()
	if asked == nil {
		return fmt.Errorf("the name server answers: %v", named)
	}
	if fetched == nil {
		return errors.New("the web server answers")
	}
	return nil
}
