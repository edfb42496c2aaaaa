package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cordon-security/cordon/internal/testlan"
	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

// cleanAlice is scene (a).
func (s *stage) cleanAlice(ctx context.Context) error {
	alice := s.lan.Alice
	if err := settle(ctx, alice); err != nil {
		return err
	}
	if err := infectAlice(ctx, alice); err != nil {
		return err
	}
	src, err := s.holding(ctx, testlan.AliceIPv4, 4)
	if err != nil {
		return err
	}
	s.log.say("alice", "%s, started by the unit %s and by a line in root's crontab: 4 processes, each connected to the C2", aliceFile, aliceUnit)
	var sum string
	if err := alice.Do(func() (err error) { sum, err = checksum(aliceFile); return err }); err != nil {
		return err
	}
	before, err := takeSnapshot(alice)
	if err != nil {
		return err
	}
	others, err := lasting(ctx, alice)
	if err != nil {
		return err
	}
	others = slices.DeleteFunc(others, func(p process) bool { return p.exe == aliceFile })
	last, err := s.admin.lastThreat(ctx)
	if err != nil {
		return err
	}

	gone := ending(s.watch, alice, aliceFile)
	at, err := s.raise(src)
	if err != nil {
		return err
	}
	t, err := s.admin.waitThreat(ctx, testlan.AliceIPv4, last, "resolved")
	if err != nil {
		return err
	}
	s.tellCleanup(t, at, gone)
	s.log.check("appliance", "the threat went detected, assessing, confirmed, cleaning, resolved", wentThrough(t, "detected", "assessing", "confirmed", "cleaning", "resolved"))
	s.log.check("alice", "the whole process tree is gone and the unit does not bring it back", notRunning(alice, aliceFile))
	s.log.check("internet", "the C2 hears nothing from alice any more", s.unheard(ctx, testlan.AliceIPv4, time.Now()))
	s.log.check("alice", "the file is in the vault, with its SHA-256, and no longer in its place", vaulted(ctx, alice, aliceFile, sum))
	s.log.check("alice", "systemd: the unit is stopped, disabled and gone", unitGone(ctx, alice, aliceUnit))
	s.log.check("alice", "cron: the line is out, the one beside it is as it was", onlyOwnLine(alice))
	after, err := takeSnapshot(alice)
	if err != nil {
		return err
	}
	s.log.check("alice", fmt.Sprintf("of %d files that were looked at nothing else changed", len(before)),
		changedOnly(before, after, aliceFile, aliceUnitAt, aliceLinkAt, aliceCrontab))
	s.log.check("alice", fmt.Sprintf("all %d other processes run on, her own service among them", len(others)),
		errors.Join(undisturbed(alice, others), active(ctx, alice, aliceOwnUnit)))
	s.log.check("alice", "still reaches everybody", reaches(ctx, alice, theInternet, bobsHost, thePrinter, theMachine))
	return nil
}

// tellCleanup prints what the timeline of a cleaned threat says about times;
// gone is when the last process had gone, seen from outside.
func (s *stage) tellCleanup(t *wirev1.GetThreatResponse, alert time.Time, gone <-chan time.Time) {
	if a := tasks(t, wirev1.TaskKind_TASK_KIND_ASSESS); len(a) > 0 {
		s.log.measured("appliance", "alert to assessment ordered, durable", alert, a[0].GetCreatedAt().AsTime())
	}
	if c := tasks(t, wirev1.TaskKind_TASK_KIND_CLEAN); len(c) > 0 {
		s.log.measured("appliance", "alert to cleanup ordered, durable", alert, c[0].GetCreatedAt().AsTime())
		if r := c[0].GetResult(); r.GetStoppedAt().IsValid() {
			s.log.measured("alice", "alert to process tree stopped, by the agent's word", alert, r.GetStoppedAt().AsTime())
			defer s.log.say("alice", "found by %s; %d things in evidence, %d actions", r.GetObserver(), len(r.GetObjects()), len(r.GetActions()))
		}
	}
	select {
	case end := <-gone:
		s.log.measured("alice", "alert to last process gone, seen from outside", alert, end)
	case <-time.After(time.Second):
	}
	if end, n := entered(t, "resolved"); n > 0 {
		s.log.measured("appliance", "alert to resolved, four seconds of watching included", alert, end)
	}
}

// vaulted fails unless the vault of a host's agent has exactly one item of the
// path, with the content, and nothing is at the path.
func vaulted(ctx context.Context, h *testlan.Host, path, sum string) error {
	out, err := h.Run(ctx, programDir+"/"+agent, "vault", "list", "--json")
	if err != nil {
		return err
	}
	var items []struct {
		Path   []byte `json:"path"`
		SHA256 string `json:"sha256"`
	}
	if err := json.Unmarshal([]byte(out), &items); err != nil {
		return fmt.Errorf("read the vault's list: %w", err)
	}
	n := 0
	for _, i := range items {
		if string(i.Path) != path {
			continue
		}
		n++
		if i.SHA256 != sum {
			return fmt.Errorf("the vault's item of %s has SHA-256 %s, the file had %s", path, i.SHA256, sum)
		}
	}
	if n != 1 {
		return fmt.Errorf("the vault has %d items of %s, not one", n, path)
	}
	if h.Exists(path) {
		return fmt.Errorf("%s is still there", path)
	}
	return nil
}

// unitGone fails while systemd runs, enables or knows the unit.
func unitGone(ctx context.Context, h *testlan.Host, unit string) error {
	out, err := h.Run(ctx, "systemctl", "show", "--property=LoadState,ActiveState,UnitFileState", unit)
	if err != nil {
		return err
	}
	for _, want := range []string{"LoadState=not-found", "ActiveState=inactive"} {
		if !strings.Contains(out, want) {
			return fmt.Errorf("systemd says %q of %s, not %s", strings.Fields(out), unit, want)
		}
	}
	return nil
}

// active fails unless systemd runs the unit.
func active(ctx context.Context, h *testlan.Host, unit string) error {
	_, err := h.Run(ctx, "systemctl", "is-active", unit)
	return err
}

// onlyOwnLine fails unless alice's own line is the only one of her crontab that
// cron would run.
func onlyOwnLine(alice *testlan.Host) error {
	content, err := alice.ReadFile(aliceCrontab)
	if err != nil {
		return err
	}
	var lines []string
	for line := range strings.Lines(string(content)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	if !slices.Equal(lines, []string{aliceOwnLine}) {
		return fmt.Errorf("the crontab's lines are %q", lines)
	}
	return nil
}
