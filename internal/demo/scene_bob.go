package demo

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/cordon-security/cordon/internal/testlan"
	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

// cutBobOff is scene (b).
func (s *stage) cutBobOff(ctx context.Context) error {
	bob := s.lan.Bob
	args := testlan.PayloadOptions{C2: c2At, Name: "helper"}.Args()
	if _, err := bob.StartReviver(ctx, append([]string{bobFile}, args...)...); err != nil {
		return err
	}
	src, err := s.holding(ctx, testlan.BobIPv4, 1)
	if err != nil {
		return err
	}
	s.log.say("bob", "%s lies on a read-only file system; what starts it again runs outside of all that bob's agent can see", bobFile)
	outside, err := startStream(s.watch, "bob's connection to the internet", bob, testlan.WebIPv4)
	if err != nil {
		return err
	}
	inside, err := startStream(s.watch, "bob's connection to alice", bob, testlan.AliceIPv6)
	if err != nil {
		return err
	}
	last, err := s.admin.lastThreat(ctx)
	if err != nil {
		return err
	}
	packets, err := startTrickle(s.watch, bob, testlan.WebIPv4)
	if err != nil {
		return err
	}
	if err := packets.flowing(ctx); err != nil {
		return err
	}

	at, err := s.raise(src)
	if err != nil {
		return err
	}
	t, err := s.admin.waitThreat(ctx, testlan.BobIPv4, last, "quarantined")
	if err != nil {
		return err
	}
	unresolved, _ := entered(t, "unresolved")
	quarantined, _ := entered(t, "quarantined")
	s.log.measured("appliance", "alert to unresolved, the agent's attempts included", at, unresolved)
	s.tellDropped(packets, "bob", "unresolved to first packet dropped, seen by bob", unresolved)
	s.log.measured("appliance", "unresolved to quarantine in force, read back", unresolved, quarantined)
	s.log.check("appliance", "the threat went detected, assessing, confirmed, cleaning, unresolved, quarantined",
		wentThrough(t, "detected", "assessing", "confirmed", "cleaning", "unresolved", "quarantined"))
	for _, r := range reasons(t) {
		s.log.say("bob", "the agent says: %s", r)
	}
	s.log.check("bob", "his running connection to the internet is cut", outside.silentAfter(ctx, quarantined))
	s.log.check("bob", "his running connection to alice is cut", inside.silentAfter(ctx, quarantined))
	s.log.check("internet", "the C2 hears nothing from bob any more", s.unheard(ctx, testlan.BobIPv4, time.Now()))
	return s.bobIsCutOff(ctx, testlan.BobIPv4, testlan.BobIPv6)
}

// bobIsCutOff checks bob's quarantine from all sides.
func (s *stage) bobIsCutOff(ctx context.Context, addresses ...netip.Addr) error {
	bob := s.lan.Bob
	others := []place{theInternet, theC2, alicesHost}
	if !s.played["c"] || s.played["d"] {
		others = append(others, thePrinter)
	}
	s.log.check("bob", "reaches neither "+list(others)+", by IPv4 and IPv6", errors.Join(cutOffFrom(ctx, bob, others...), readsNothing(ctx, bob)))
	s.log.check("alice", "does not reach bob", cutOffFrom(ctx, s.lan.Alice, place{"bob", addresses}))
	s.log.check("bob", "the mitigator stays in reach, his agent connected", errors.Join(reaches(ctx, bob, theMachine), agentsPort(ctx, bob), s.admin.connected(ctx, "bob")))
	s.log.check("bob", "the quarantine is in force: the kernel's sets have his MAC, IPv4 and IPv6 addresses", s.holds(ctx, bob, addresses...))
	s.log.check("alice", "notices nothing", errors.Join(s.alices.flows(), reaches(ctx, s.lan.Alice, theInternet, theMachine)))
	return nil
}

// holds fails unless the quarantine of a host's MAC is in force, the mitigator
// knows the addresses as its, and the kernel's rules name MAC and addresses.
func (s *stage) holds(ctx context.Context, h *testlan.Host, addresses ...netip.Addr) error {
	mac, err := h.MAC(testlan.Port)
	if err != nil {
		return err
	}
	if _, err := s.admin.inForce(ctx, mac.String()); err != nil {
		return err
	}
	err = until(ctx, "the rules name the endpoint", func(ctx context.Context) error {
		rules, err := s.lan.Appliance.Run(ctx, "nft", "list", "ruleset")
		if err != nil {
			return err
		}
		wanted := []string{mac.String()}
		for _, a := range addresses {
			wanted = append(wanted, a.String())
		}
		for _, w := range wanted {
			if !names(rules, w) {
				return fmt.Errorf("%s is in no set of the kernel", w)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return until(ctx, "the addresses are known", func(ctx context.Context) error {
		var list wirev1.ListEndpointsResponse
		if err := s.admin.asks(ctx, &list, "endpoints"); err != nil {
			return err
		}
		i := slices.IndexFunc(list.GetEndpoints(), func(e *wirev1.Endpoint) bool { return slices.Contains(e.GetMacs(), mac.String()) })
		if i < 0 {
			return fmt.Errorf("no endpoint has the MAC %s", mac)
		}
		for _, a := range addresses {
			if !slices.Contains(list.GetEndpoints()[i].GetAddresses(), a.String()) {
				return fmt.Errorf("the endpoint has %v, not %s", list.GetEndpoints()[i].GetAddresses(), a)
			}
		}
		return nil
	})
}

// names reports whether the kernel's rules, as nft(8) prints them, have an
// address as an element.
func names(rules, address string) bool {
	return slices.Contains(strings.FieldsFunc(rules, func(r rune) bool { return strings.ContainsRune(" \t\n,{}", r) }), address)
}

// reasons are what the agent says about the threat's last task.
func reasons(t *wirev1.GetThreatResponse) []string {
	done := tasks(t, wirev1.TaskKind_TASK_KIND_CLEAN)
	if len(done) == 0 {
		return nil
	}
	all := done[len(done)-1].GetResult().GetReasons()
	return all[max(0, len(all)-3):]
}

// tellDropped ends a trickle and prints when its packets began to be dropped.
func (s *stage) tellDropped(packets *trickle, host, what string, since time.Time) {
	time.Sleep(300 * time.Millisecond) // the answers of the last packets, if any, are in
	dropped, ok := packets.firstDropped()
	if !ok {
		s.log.check(host, what, errors.New("packets are still answered"))
		return
	}
	s.log.measured(host, what, since, dropped)
}

// moveBob is scene (f).
func (s *stage) moveBob(ctx context.Context) error {
	bob := s.lan.Bob
	to4, to6 := netip.MustParseAddr("10.77.0.111"), netip.MustParseAddr("fd77::111")
	err := errors.Join(
		bob.ReplaceAddress(testlan.Port, netip.PrefixFrom(testlan.BobIPv4, testlan.LANIPv4.Bits()), netip.PrefixFrom(to4, testlan.LANIPv4.Bits())),
		bob.ReplaceAddress(testlan.Port, netip.PrefixFrom(testlan.BobIPv6, testlan.LANIPv6.Bits()), netip.PrefixFrom(to6, testlan.LANIPv6.Bits())),
	)
	if err != nil {
		return err
	}
	s.log.say("bob", "is %s and %s now, no longer %s and %s", to4, to6, testlan.BobIPv4, testlan.BobIPv6)
	// At once, before anybody has heard of the new addresses: the MAC is what counts.
	at := time.Now()
	s.log.check("bob", "is cut off at once, before anybody knows the new addresses", cutOffFrom(ctx, bob, theInternet, alicesHost))
	s.log.check("internet", "the C2 hears nothing from the new address", s.unheard(ctx, to4, at))
	return s.bobIsCutOff(ctx, to4, to6)
}
