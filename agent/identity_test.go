package agent

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/cordon-security/cordon/agent/procfs"
	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

// inNamespace starts a script in a mount namespace of its own.
func inNamespace(t *testing.T, script string, words ...string) {
	t.Helper()
	launch(t, append([]string{"/usr/bin/unshare", "--mount", "--propagation", "private", "/bin/sh", "-ec", script, "sh"}, words...)...)
}

// A file that is mounted over a packaged path is not the package's.
func TestFileMountedOverPackagedPath(t *testing.T) {
	a := newAgent(t, testConfig(t))
	dir, remote := dropDir(t), c2(t)
	exe := drop(t, dir+"/job")
	inNamespace(t, `mount --bind "$1" /usr/bin/login; exec /usr/bin/login -connect "$2"`, exe, remote.String())
	t.Cleanup(func() { killAll(t, remote.String()) })
	connected(t, a, remote)
	wantDone(t, a.Execute(t.Context(), task("over", cleanTask, remote)))
	if _, err := os.Lstat(exe); !os.IsNotExist(err) {
		t.Errorf("the executable is still there: %v", err)
	}
	if _, err := os.Lstat("/usr/bin/login"); err != nil {
		t.Error(err)
	}
}

// What the agent cannot see it cannot call removed; and the host's file of the
// same name is another.
func TestExecutableOfAnotherMountNamespace(t *testing.T) {
	a := newAgent(t, testConfig(t))
	remote := c2(t)
	exe := drop(t, "/mnt/cordon-test/job")
	t.Cleanup(func() { _ = os.RemoveAll("/mnt/cordon-test") })
	const own = "/mnt/cordon-test/job"
	inNamespace(t, `cp "$1" /run/copy; mount -t tmpfs none /mnt; mkdir /mnt/cordon-test; mv /run/copy "$2"; exec "$2" -connect "$3"`, exe, own, remote.String())
	t.Cleanup(func() { killAll(t, remote.String()) })
	connected(t, a, remote)
	r := a.Execute(t.Context(), task("elsewhere", cleanTask, remote))
	if r.GetStatus() != wirev1.TaskStatus_TASK_STATUS_UNRESOLVED || r.GetVerdict() != wirev1.Verdict_VERDICT_CONFIRMED ||
		!strings.Contains(strings.Join(r.GetReasons(), "\n"), "another namespace") {
		t.Errorf("%s", protojson.Format(r))
	}
	if left := running(t, remote.String()); len(left) != 0 {
		t.Errorf("still running: %v", left)
	}
	if _, err := os.Lstat(own); err != nil {
		t.Errorf("the host's own file: %v", err)
	}
	items, err := a.vault.List()
	if err != nil || len(items) != 1 || !items[0].Nameless {
		t.Errorf("the vault has %+v, %v", items, err)
	}
}

// A program that is installed anew runs on as the old file.
func TestReplacedLocalProgramIsLeftAlone(t *testing.T) {
	a := newAgent(t, testConfig(t))
	remote := c2(t)
	exe := drop(t, "/usr/local/bin/cordon-test-tool")
	launch(t, exe, "-connect", remote.String())
	t.Cleanup(func() { killAll(t, exe) })
	connected(t, a, remote)
	if err := os.WriteFile(exe+".new", []byte("new"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(exe+".new", exe); err != nil {
		t.Fatal(err)
	}
	r := a.Execute(t.Context(), task("replaced", cleanTask, remote))
	if r.GetVerdict() == wirev1.Verdict_VERDICT_CONFIRMED || len(r.GetActions()) != 0 || len(running(t, exe)) != 1 {
		t.Errorf("%s", protojson.Format(r))
	}
}

func TestHardLinkOutlivesTheName(t *testing.T) {
	a := newAgent(t, testConfig(t))
	dir, remote := dropDir(t), c2(t)
	exe := drop(t, dir+"/job")
	if err := os.Link(exe, dir+"/other"); err != nil {
		t.Fatal(err)
	}
	launch(t, exe, "-remove", "-connect", remote.String())
	t.Cleanup(func() { killAll(t, exe) })
	connected(t, a, remote)
	r := a.Execute(t.Context(), task("names", cleanTask, remote))
	if r.GetStatus() != wirev1.TaskStatus_TASK_STATUS_UNRESOLVED || !strings.Contains(strings.Join(r.GetReasons(), "\n"), "other name") {
		t.Errorf("%s", protojson.Format(r))
	}
	items, err := a.vault.List()
	if err != nil || len(items) != 1 || !items[0].Nameless {
		t.Errorf("the vault has %+v, %v", items, err)
	}
}

func TestTwoNamelessOfOneName(t *testing.T) {
	a := newAgent(t, testConfig(t))
	dir, remote := dropDir(t), c2(t)
	for _, name := range []string{"/a", "/b"} {
		exe := drop(t, filepath.Join(dir, name))
		f, err := os.OpenFile(exe, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(name); err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		launch(t, exe, "-memfd", "-connect", remote.String())
	}
	t.Cleanup(func() { killAll(t, remote.String()) })
	eventually(t, "both connect", func() bool { return len(a.history.Find(remote, 0)) == 2 })
	wantDone(t, a.Execute(t.Context(), task("memfds", cleanTask, remote)))
	items, err := a.vault.List()
	if err != nil {
		t.Fatal(err)
	}
	sums := make(map[string]bool)
	for _, i := range items {
		if i.Nameless {
			sums[i.SHA256] = true
		}
	}
	if len(sums) != 2 {
		t.Errorf("the vault has %+v", items)
	}
}

// A process lives as long as one of its threads.
func TestFirstThreadThatHasEnded(t *testing.T) {
	onHost(t)
	if _, err := os.Stat("/usr/bin/python3"); err != nil {
		unable(t, "/usr/bin/python3 is not installed")
	}
	a := newAgent(t, testConfig(t))
	dir, remote := dropDir(t), c2(t)
	script := dir + "/run"
	text := "import socket,threading,time,ctypes,sys\ns=socket.create_connection((sys.argv[1],int(sys.argv[2])))\n" +
		"def work():\n while True: time.sleep(0.1)\nthreading.Thread(target=work).start()\nctypes.CDLL(None).syscall(60,0)\n"
	if err := os.WriteFile(script, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	launch(t, "/usr/bin/python3", script, remote.Addr().String(), strings.Split(remote.String(), ":")[1])
	runs := func() bool {
		lines, _ := filepath.Glob("/proc/[0-9]*/task/*/cmdline")
		return slices.ContainsFunc(lines, func(name string) bool {
			data, err := os.ReadFile(name)
			return err == nil && strings.Contains(string(data), script)
		})
	}
	t.Cleanup(func() {
		for _, p := range running(t, script) {
			_ = syscall.Kill(p.PID, syscall.SIGKILL)
		}
	})
	eventually(t, "its first thread ended", func() bool {
		table, err := procfs.FS{}.Snapshot(false)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range table {
			if p.State == "Z" && p.Threads > 1 {
				return true
			}
		}
		return false
	})
	wantDone(t, a.Execute(t.Context(), task("thread", cleanTask, remote)))
	if runs() {
		t.Error("a thread still runs")
	}
}
