package demo

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cordon-security/cordon/internal/testlan"
)

// cutPrinterOff is scene (c).
func (s *stage) cutPrinterOff(ctx context.Context) error {
	printer := s.lan.Printer
	if _, err := printer.StartPayload(ctx, printerFile, testlan.PayloadOptions{C2: c2At, Name: "job"}); err != nil {
		return err
	}
	src, err := s.holding(ctx, testlan.PrinterIPv4, 1)
	if err != nil {
		return err
	}
	s.log.say("printer", "%s holds a connection to the C2; there is no agent to look", printerFile)
	last, err := s.admin.lastThreat(ctx)
	if err != nil {
		return err
	}
	packets, err := startTrickle(s.watch, printer, testlan.WebIPv4)
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
	t, err := s.admin.waitThreat(ctx, testlan.PrinterIPv4, last, "quarantined")
	if err != nil {
		return err
	}
	quarantined, _ := entered(t, "quarantined")
	s.tellDropped(packets, "printer", "alert to first packet dropped, seen by the printer", at)
	s.log.measured("appliance", "alert to quarantine in force, read back", at, quarantined)
	s.log.check("appliance", "the threat went detected, unresolved, quarantined, by policy", wentThrough(t, "detected", "unresolved", "quarantined"))
	s.log.check("internet", "the C2 hears nothing from the printer any more", s.unheard(ctx, testlan.PrinterIPv4, time.Now()))
	s.log.check("printer", "reaches neither the internet nor alice, by IPv4 and IPv6", errors.Join(cutOffFrom(ctx, printer, theInternet, theC2, alicesHost), readsNothing(ctx, printer)))
	s.log.check("printer", "the mitigator stays in reach", reaches(ctx, printer, theMachine))
	s.log.check("printer", "the quarantine is in force: the kernel's sets have its MAC, IPv4 and IPv6 addresses", s.holds(ctx, printer, testlan.PrinterIPv4, testlan.PrinterIPv6))
	return nil
}

// releaseNote is what the administrator says when releasing.
const releaseNote = "firmware installed anew"

// releasePrinter is scene (d).
func (s *stage) releasePrinter(ctx context.Context) error {
	printer := s.lan.Printer
	name := testlan.PrinterIPv4.String()
	_, err := s.admin.types(ctx, "release", name, "--note", releaseNote)
	if err == nil {
		err = errors.New("the command was carried out without it")
	} else {
		err = nil
	}
	s.log.check("appliance", "a release without the confirmation that the threat is gone is refused", errors.Join(err, cutOffFrom(ctx, printer, theInternet)))

	if err := cleanByHand(ctx, printer); err != nil {
		return err
	}
	s.log.say("printer", "the administrator installs its firmware anew: the payload is gone")
	at := time.Now()
	if _, err := s.admin.types(ctx, "release", name, "--threat-is-gone", "--note", releaseNote); err != nil {
		return err
	}
	s.log.measured("appliance", "release, from the command to its answer", at, time.Now())
	s.log.check("printer", "traffic flows again: the internet, alice, names, pages", errors.Join(
		until(ctx, "the internet is reached", func(ctx context.Context) error {
			_, err := printer.Ping(ctx, testlan.WebIPv4, cutOff)
			return err
		}), reaches(ctx, printer, theInternet, alicesHost, theMachine), reads(ctx, printer)))
	s.log.check("appliance", "the kernel's sets have nothing of the printer any more", s.forgotten(ctx, printer, testlan.PrinterIPv4, testlan.PrinterIPv6))
	s.log.check("appliance", "the threat is released, with who confirmed it and why", s.released(ctx, at))
	return nil
}

// forgotten fails while the kernel's rules name a host's MAC or an address.
func (s *stage) forgotten(ctx context.Context, h *testlan.Host, addresses ...netip.Addr) error {
	mac, err := h.MAC(testlan.Port)
	if err != nil {
		return err
	}
	unwanted := []string{mac.String()}
	for _, a := range addresses {
		unwanted = append(unwanted, a.String())
	}
	return until(ctx, "the rules are as before", func(ctx context.Context) error {
		rules, err := s.lan.Appliance.Run(ctx, "nft", "list", "ruleset")
		for _, u := range unwanted {
			if err == nil && names(rules, u) {
				err = fmt.Errorf("%s is still in a set", u)
			}
		}
		return err
	})
}

// cleanByHand removes the printer's payload.
func cleanByHand(ctx context.Context, printer *testlan.Host) error {
	left, err := running(printer, printerFile)
	if err != nil {
		return err
	}
	for _, p := range left {
		if _, err := printer.Run(ctx, "kill", "-KILL", fmt.Sprint(p.pid)); err != nil {
			return err
		}
	}
	if err := printer.Remove(printerFile); err != nil {
		return err
	}
	return until(ctx, "the payload is gone", func(context.Context) error { return notRunning(printer, printerFile) })
}

// released fails unless the printer's threat ended by a person after the time.
func (s *stage) released(ctx context.Context, after time.Time) error {
	t, err := s.admin.waitThreat(ctx, testlan.PrinterIPv4, 0, "released")
	if err != nil {
		return err
	}
	if at, n := entered(t, "released"); n != 1 || at.Before(after) {
		return fmt.Errorf("it was released %d times, last at %s", n, at)
	}
	for _, step := range t.GetTimeline() {
		// What follows in the same state is a note: the device says that it is gone.
		if step.GetTo() == "released" && step.GetFrom() != "released" && step.GetActor() != "admin:demo" {
			return fmt.Errorf("it was released by %q", step.GetActor())
		}
	}
	if q := t.GetQuarantine(); q.GetState() != "ended" || q.GetEndedBy() != "admin:demo" || q.GetConfirmation() != releaseNote {
		return fmt.Errorf("the quarantine is %s, ended by %q, because %q", q.GetState(), q.GetEndedBy(), q.GetConfirmation())
	}
	return nil
}
