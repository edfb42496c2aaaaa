package agent

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/cordon-security/cordon/agent/assess"
	"github.com/cordon-security/cordon/agent/clean"
	"github.com/cordon-security/cordon/agent/journal"
	"github.com/cordon-security/cordon/agent/link"
	"github.com/cordon-security/cordon/agent/procfs"
	"github.com/cordon-security/cordon/internal/dirlock"
	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
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

func TestProcessIDsOfAnEarlierBootKillNobody(t *testing.T) {
	a := newAgent(t, testConfig(t))
	remote := c2(t)
	// Its id happens to be that of a process of the threat, before the boot.
	innocent := exec.Command("/bin/sleep", "1000")
	if err := innocent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = innocent.Process.Kill(); _ = innocent.Wait() })
	p, err := procfs.FS{}.Stat(innocent.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	earlier, err := journal.Open(journal.Options{Dir: filepath.Join(a.o.Config.StateDir, "journal"), Boot: "another"})
	if err != nil {
		t.Fatal(err)
	}
	err = earlier.Save(journal.Record{Task: "boot", Started: time.Now(), Evidence: assess.Evidence{
		Verdict: assess.Confirmed, Reasons: []string{"it was seen"},
		Processes: []assess.Suspect{{Process: procfs.Process{ID: p.ID, Exe: "/tmp/gone"}, Why: "it held the connection"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	r := a.Execute(t.Context(), task("boot", cleanTask, remote))
	if r.GetStatus() != wirev1.TaskStatus_TASK_STATUS_DONE || r.GetVerdict() != wirev1.Verdict_VERDICT_CONFIRMED || len(r.GetActions()) != 0 {
		t.Fatalf("result:\n%s", protojson.Format(r))
	}
	if o := r.GetObjects(); len(o) != 1 || o[0].GetId() != clean.ProcessObject(p.ID) || !strings.HasSuffix(o[0].GetName(), "(ended)") {
		t.Errorf("objects %v", o)
	}
	if now, err := (procfs.FS{}).Stat(innocent.Process.Pid); err != nil || now.ID != p.ID || now.State == "Z" || now.State == "T" {
		t.Errorf("the innocent process is not as it was: %+v, %v", now, err)
	}
}
