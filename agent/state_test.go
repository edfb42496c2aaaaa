package agent

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/cordon-security/cordon/agent/link"
	"github.com/cordon-security/cordon/internal/dirlock"
)

func TestOneAgentRunsInAStateDirectory(t *testing.T) {
	onHost(t)
	c := testConfig(t)
	run := func() error {
		a, err := New(Options{Config: c, Log: slog.New(slog.DiscardHandler), Version: "test"})
		if err != nil {
			t.Fatal(err)
		}
		return a.Run(t.Context(), func() {})
	}
	if err := run(); !errors.Is(err, link.ErrNotEnrolled) {
		t.Fatalf("error %v, want link.ErrNotEnrolled", err)
	}
	held, err := dirlock.Try(c.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	// What the running agent is about to rename.
	half := filepath.Join(c.StateDir, "journal", ".x.json.1")
	if err := os.WriteFile(half, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(); !errors.Is(err, dirlock.ErrInUse) {
		t.Fatalf("error %v, want dirlock.ErrInUse", err)
	}
	if _, err := os.Stat(half); err != nil {
		t.Fatal("a file of the running agent was removed")
	}
	if err := held.Release(); err != nil {
		t.Fatal(err)
	}
	if err := run(); !errors.Is(err, link.ErrNotEnrolled) {
		t.Fatalf("error %v, want link.ErrNotEnrolled", err)
	}
	if _, err := os.Stat(half); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("what a crash left is still there: %v", err)
	}
}
