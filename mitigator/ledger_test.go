package mitigator

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/cordon-security/cordon/mitigator/fleet"
	"github.com/cordon-security/cordon/mitigator/store/sqlite"
)

// TestLedgerEnrolsOnce holds the contract of a one-time token on the real store.
func TestLedgerEnrolsOnce(t *testing.T) {
	s, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "cordon.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	l := ledger{s}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	hash := [32]byte{1}
	if err := l.CreateToken(t.Context(), fleet.Token{Hash: hash, CreatedAt: now, ExpiresAt: now.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	agent := func(id, serial string) fleet.Agent {
		return fleet.Agent{ID: id, Hostname: "alice", EnrolledAt: now, Serial: serial, CertExpires: now.Add(time.Hour)}
	}
	enrol := func(what string, hash [32]byte, at time.Time, a fleet.Agent, want error) {
		t.Helper()
		if err := l.EnrollAgent(t.Context(), hash, at, a); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	enrol("an unknown token", [32]byte{2}, now, agent("a", "1"), fleet.ErrTokenUnknown)
	enrol("too late", hash, now.Add(time.Hour), agent("a", "1"), fleet.ErrTokenExpired)
	enrol("in time", hash, now, agent("a", "1"), nil)
	enrol("another agent", hash, now, agent("b", "1"), fleet.ErrTokenUsed)
	enrol("the same agent again", hash, now.Add(time.Minute), agent("a", "2"), nil)
	if a, err := l.Agent(t.Context(), "a"); err != nil || a.Serial != "2" || !a.EnrolledAt.Equal(now) {
		t.Errorf("agent %+v, %v", a, err)
	}
	if err := l.TouchAgent(t.Context(), "a", now.Add(time.Minute), "1.0", ""); err != nil {
		t.Fatal(err)
	}
	if a, err := l.Agent(t.Context(), "a"); err != nil || a.Version != "1.0" || !a.LastSeen.Equal(now.Add(time.Minute)) {
		t.Errorf("agent %+v, %v", a, err)
	}
	if err := l.RevokeAgent(t.Context(), "a", now, "carol", "lost"); err != nil {
		t.Fatal(err)
	}
	enrol("after its revocation", hash, now, agent("a", "3"), fleet.ErrTokenUsed)
	if a, err := l.Agent(t.Context(), "a"); err != nil || !a.RevokedAt.Equal(now) || a.Serial != "2" {
		t.Errorf("agent %+v, %v", a, err)
	}
	for what, err := range map[string]error{
		"look":   func() error { _, err := l.Agent(t.Context(), "b"); return err }(),
		"touch":  l.TouchAgent(t.Context(), "b", now, "", ""),
		"revoke": l.RevokeAgent(t.Context(), "b", now, "carol", ""),
	} {
		if !errors.Is(err, fleet.ErrAgentUnknown) {
			t.Errorf("%s an agent that is not there: %v", what, err)
		}
	}
}
