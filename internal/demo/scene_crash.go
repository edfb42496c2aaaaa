package demo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cordon-security/cordon/internal/testlan"
	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

// killMitigator is scene (e).
func (s *stage) killMitigator(ctx context.Context) error {
	alice := s.lan.Alice
	if _, err := alice.StartPayload(ctx, aliceSecondFile, testlan.PayloadOptions{C2: c2At, Name: "viewer", Children: 3}); err != nil {
		return err
	}
	src, err := s.holding(ctx, testlan.AliceIPv4, 4)
	if err != nil {
		return err
	}
	var sum string
	if err := alice.Do(func() (err error) { sum, err = checksum(aliceSecondFile); return err }); err != nil {
		return err
	}
	last, err := s.admin.lastThreat(ctx)
	if err != nil {
		return err
	}
	if _, err := s.raise(src); err != nil {
		return err
	}
	// The agent watches a cleaned host for four seconds before it reports, so
	// that the cleanup is still under way when the command line says so.
	if _, err := s.admin.waitState(ctx, testlan.AliceIPv4, last, "cleaning"); err != nil {
		return err
	}
	if err := s.mitigator.Kill(); err != nil {
		return err
	}
	killed := time.Now()
	s.log.say("appliance", "the mitigator is killed with SIGKILL when the command line says that the threat is cleaning")
	_, err = s.admin.types(ctx, "status")
	if err == nil {
		err = errors.New("it answers")
	} else {
		err = nil
	}
	s.log.check("appliance", "the mitigator is dead: the command line says so", err)
	if s.played["b"] {
		s.log.check("bob", "is still cut off meanwhile, the mitigator dead", cutOffFrom(ctx, s.lan.Bob, theInternet, alicesHost))
	}
	if err := until(ctx, "the agent cleans on", func(context.Context) error { return notRunning(alice, aliceSecondFile) }); err != nil {
		return err
	}
	start := time.Now()
	if err := s.startMitigator(ctx); err != nil {
		return err
	}
	s.log.measured("appliance", "mitigator started to answering again", start, time.Now())
	t, err := s.admin.waitThreat(ctx, testlan.AliceIPv4, last, "resolved")
	if err != nil {
		return err
	}
	s.log.check("appliance", "the threat reached its end once, with one cleanup", once(t, killed))
	s.log.check("alice", "the file was taken once, and nothing of it runs", errors.Join(vaulted(ctx, alice, aliceSecondFile, sum), notRunning(alice, aliceSecondFile)))
	s.log.check("internet", "the C2 hears nothing from alice any more", s.unheard(ctx, testlan.AliceIPv4, time.Now()))
	if s.played["b"] {
		s.log.check("bob", "is cut off as before, his quarantine in force", errors.Join(s.holds(ctx, s.lan.Bob), cutOffFrom(ctx, s.lan.Bob, theInternet, alicesHost)))
	}
	return nil
}

// once fails unless the threat's cleanup was ordered before the kill, ended
// after it, and each happened once.
func once(t *wirev1.GetThreatResponse, killed time.Time) error {
	errs := []error{wentThrough(t, "detected", "assessing", "confirmed", "cleaning", "resolved")}
	if end, n := entered(t, "resolved"); n != 1 || !end.After(killed) {
		errs = append(errs, fmt.Errorf("it was resolved %d times, last %s after the kill", n, end.Sub(killed)))
	}
	cleanups := tasks(t, wirev1.TaskKind_TASK_KIND_CLEAN)
	if len(cleanups) != 1 {
		return errors.Join(append(errs, fmt.Errorf("there were %d cleanups", len(cleanups)))...)
	}
	c := cleanups[0]
	if c.GetState() != "done" || !c.GetCreatedAt().AsTime().Before(killed) || !c.GetEndedAt().AsTime().After(killed) {
		errs = append(errs, fmt.Errorf("the cleanup is %s, from %s to %s; the kill was at %s", c.GetState(), c.GetCreatedAt().AsTime(), c.GetEndedAt().AsTime(), killed.UTC()))
	}
	return errors.Join(errs...)
}
