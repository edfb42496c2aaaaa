package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cordon-security/cordon/agent/procfs"
	"github.com/cordon-security/cordon/agent/vault"
	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if done() {
			return
		}
	}
	t.Fatalf("%s: not so after 30 s", what)
}

func testConfig(t testing.TB) Config {
	c := DefaultConfig()
	c.StateDir = filepath.Join(t.TempDir(), "state")
	c.Watch = 300 * time.Millisecond
	return c
}

// newAgent returns an agent that observes the host until the test ends.
func newAgent(t testing.TB, c Config) *Agent {
	t.Helper()
	onHost(t)
	a, err := New(Options{Config: c, Log: slog.New(slog.DiscardHandler), Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Observe(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = a.Close()
	})
	eventually(t, "the history is kept", func() bool { live, _ := a.history.Processes(); return len(live) > 0 })
	return a
}

// c2 listens and keeps what connects.
func c2(t testing.TB) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = c.Close() })
		}
	}()
	return netip.MustParseAddrPort(l.Addr().String())
}

// drop copies the payload to a path of its own.
func drop(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(os.Getenv(payloadVariable))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(path) })
	return path
}

// dropDir is a folder in /tmp, where malware likes to lie.
func dropDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "x")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// launch starts a program that is not the test's child, as an attacker's is
// not the agent's: the test would otherwise be among the suspects' ancestors.
func launch(t testing.TB, args ...string) {
	t.Helper()
	script := `setsid "$@" </dev/null >/dev/null 2>&1 &`
	cmd := exec.Command("/bin/sh", append([]string{"-c", script, "sh"}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("start %v: %v: %s", args, err, out)
	}
}

// running lists the processes whose command line holds the text.
func running(t testing.TB, text string) []procfs.Process {
	t.Helper()
	table, err := procfs.FS{}.Snapshot(true)
	if err != nil {
		t.Fatal(err)
	}
	var found []procfs.Process
	for _, p := range table {
		if !p.Dead() && p.PID != os.Getpid() && strings.Contains(strings.Join(append(p.Args, p.Exe), " "), text) {
			found = append(found, p)
		}
	}
	return found
}

func killAll(t testing.TB, text string) {
	t.Helper()
	for range 50 {
		found := running(t, text)
		if len(found) == 0 {
			return
		}
		for _, p := range found {
			_ = syscall.Kill(p.PID, syscall.SIGKILL)
		}
	}
}

func task(id string, kind wirev1.TaskKind, remote netip.AddrPort) *wirev1.Task {
	return &wirev1.Task{Id: id, Kind: kind, Flows: []*wirev1.Flow{{
		Protocol: 6, RemoteAddress: remote.Addr().AsSlice(), RemotePort: uint32(remote.Port()), SeenAt: timestamppb.Now(), Outbound: true,
	}}}
}

const (
	assessTask = wirev1.TaskKind_TASK_KIND_ASSESS
	cleanTask  = wirev1.TaskKind_TASK_KIND_CLEAN
)

func wantDone(t testing.TB, r *wirev1.TaskResult) {
	t.Helper()
	if r.GetStatus() != wirev1.TaskStatus_TASK_STATUS_DONE || r.GetVerdict() != wirev1.Verdict_VERDICT_CONFIRMED {
		t.Fatalf("not cleaned:\n%s", protojson.Format(r))
	}
	if !r.GetStoppedAt().IsValid() {
		t.Error("it does not say when the tree was stopped")
	}
}

func connected(t testing.TB, a *Agent, remote netip.AddrPort) {
	t.Helper()
	eventually(t, "the connection is seen", func() bool {
		found := a.history.Find(remote, 0)
		return len(found) > 0 && found[0].Local.Port() != 0
	})
}

// bystanders starts an innocent program and returns a check that it, and every
// process and file that was there, is untouched but for what may change.
func bystanders(t *testing.T, mayChange ...string) func() {
	t.Helper()
	innocent := exec.Command("/bin/sleep", "1000")
	if err := innocent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = innocent.Process.Kill(); _ = innocent.Wait() })
	before := changed(t)
	return func() {
		t.Helper()
		p, err := procfs.FS{}.Stat(innocent.Process.Pid)
		if err != nil || p.State == "T" || p.State == "Z" {
			t.Errorf("the bystander is not as it was: %v %v", p.State, err)
		}
		after := changed(t)
		paths := slices.Sorted(maps.Keys(before))
		paths = append(paths, slices.Sorted(maps.Keys(after))...)
		for _, path := range paths {
			if before[path] == after[path] || slices.ContainsFunc(mayChange, func(m string) bool { return strings.HasPrefix(path, m) }) {
				continue
			}
			t.Errorf("%s changed: %q, then %q", path, before[path], after[path])
		}
	}
}

func TestRespawningTreeIsStoppedWhole(t *testing.T) {
	a := newAgent(t, testConfig(t))
	dir, remote := dropDir(t), c2(t)
	exe := drop(t, dir+"/.upd")
	ring := dir + "/ring"
	if err := os.Mkdir(ring, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { killAll(t, exe) })
	launch(t, exe, "-connect", remote.String(), "-ring", ring, "-size", "8")
	eventually(t, "the ring runs", func() bool {
		for i := range 8 {
			data, err := os.ReadFile(filepath.Join(ring, strconv.Itoa(i)))
			if pid, e := strconv.Atoi(string(data)); err != nil || e != nil || syscall.Kill(pid, 0) != nil {
				return false
			}
		}
		return true
	})
	connected(t, a, remote)
	untouched := bystanders(t, dir, a.o.Config.StateDir)
	r := a.Execute(t.Context(), task("ring", cleanTask, remote))
	wantDone(t, r)
	if left := running(t, exe); len(left) != 0 {
		t.Errorf("still running: %v", left)
	}
	if _, err := os.Lstat(exe); !os.IsNotExist(err) {
		t.Errorf("the executable is still there: %v", err)
	}
	untouched()
}

func TestExecutablesWithoutName(t *testing.T) {
	for name, option := range map[string]string{"deleted": "-remove", "memfd": "-memfd"} {
		t.Run(name, func(t *testing.T) {
			a := newAgent(t, testConfig(t))
			dir, remote := dropDir(t), c2(t)
			exe := drop(t, dir+"/job")
			want, err := os.ReadFile(exe)
			if err != nil {
				t.Fatal(err)
			}
			launch(t, exe, option, "-connect", remote.String())
			t.Cleanup(func() { killAll(t, remote.String()) })
			connected(t, a, remote)
			r := a.Execute(t.Context(), task(name, cleanTask, remote))
			wantDone(t, r)
			if left := running(t, remote.String()); len(left) != 0 {
				t.Errorf("still running: %v", left)
			}
			items, err := a.vault.List()
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(items, func(i vault.Item) bool { return i.Nameless && i.Size == int64(len(want)) }) {
				t.Errorf("the nameless executable is not in the vault: %+v", items)
			}
		})
	}
}

func TestEndedConnectionIsFound(t *testing.T) {
	a := newAgent(t, testConfig(t))
	dir, remote := dropDir(t), c2(t)
	exe := drop(t, dir+"/job")
	launch(t, exe, "-connect", remote.String(), "-hold", "10ms")
	t.Cleanup(func() { killAll(t, exe) })
	eventually(t, "the connection ended", func() bool {
		found := a.history.Find(remote, 0)
		return len(found) == 1 && !found[0].Closed.IsZero()
	})
	wantDone(t, a.Execute(t.Context(), task("ended", cleanTask, remote)))
	if left := running(t, exe); len(left) != 0 {
		t.Errorf("still running: %v", left)
	}
}

func TestScriptIsVaultedAndInterpreterIsNot(t *testing.T) {
	remotePart := func(r netip.AddrPort) string { return r.Addr().String() + "/" + strconv.Itoa(int(r.Port())) }
	for _, c := range []struct{ name, interpreter, script string }{
		{"bash", "/bin/bash", "exec 3<>/dev/tcp/%s\nwhile :; do sleep 1; done\n"},
		{"python", "/usr/bin/python3", "import socket,time\na,p='%s'.split('/')\ns=socket.create_connection((a,int(p)))\nwhile True: time.sleep(1)\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			onHost(t)
			if _, err := os.Stat(c.interpreter); err != nil {
				unable(t, c.interpreter+" is not installed")
			}
			a := newAgent(t, testConfig(t))
			dir, remote := dropDir(t), c2(t)
			script := dir + "/run"
			if err := os.WriteFile(script, fmt.Appendf(nil, c.script, remotePart(remote)), 0o644); err != nil {
				t.Fatal(err)
			}
			launch(t, c.interpreter, script)
			t.Cleanup(func() { killAll(t, script) })
			connected(t, a, remote)
			untouched := bystanders(t, dir, a.o.Config.StateDir)
			wantDone(t, a.Execute(t.Context(), task(c.name, cleanTask, remote)))
			if _, err := os.Lstat(script); !os.IsNotExist(err) {
				t.Errorf("the script is still there: %v", err)
			}
			if _, err := os.Stat(c.interpreter); err != nil {
				t.Errorf("the interpreter: %v", err)
			}
			if left := running(t, script); len(left) != 0 {
				t.Errorf("still running: %v", left)
			}
			untouched()
		})
	}
}

func TestPackagedProgramIsLeftAlone(t *testing.T) {
	a := newAgent(t, testConfig(t))
	remote := c2(t)
	program := fmt.Sprintf("use IO::Socket::INET; my $s = IO::Socket::INET->new('%s') or die; sleep 1000", remote)
	launch(t, "/usr/bin/perl", "-e", program)
	t.Cleanup(func() { killAll(t, program) })
	connected(t, a, remote)
	untouched := bystanders(t, a.o.Config.StateDir)
	for _, kind := range []wirev1.TaskKind{assessTask, cleanTask} {
		r := a.Execute(t.Context(), task("browser"+kind.String(), kind, remote))
		if r.GetStatus() != wirev1.TaskStatus_TASK_STATUS_DONE || r.GetVerdict() != wirev1.Verdict_VERDICT_NOT_CONFIRMED || len(r.GetActions()) != 0 {
			t.Errorf("%s: %s", kind, protojson.Format(r))
		}
	}
	if found := running(t, program); len(found) != 1 || found[0].State == "T" {
		t.Errorf("the program is not as it was: %+v", found)
	}
	untouched()
}

// A name of the threat's for a package's file brings no harm to those that run
// the package's.
func TestHardLinkOfPackagedProgram(t *testing.T) {
	a := newAgent(t, testConfig(t))
	remote := c2(t)
	const link, original = "/usr/share/.pl", "/usr/bin/perl"
	if err := os.Link(original, link); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(link) })
	innocent := exec.Command(original, "-e", "sleep 1000")
	if err := innocent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = innocent.Process.Kill(); _ = innocent.Wait() })
	program := fmt.Sprintf("use IO::Socket::INET; my $s = IO::Socket::INET->new('%s') or die; sleep 1000", remote)
	launch(t, link, "-e", program)
	t.Cleanup(func() { killAll(t, program) })
	connected(t, a, remote)
	// A further innocent one begins while the tree is being stopped.
	launch(t, original, "-e", "sleep 1001")
	t.Cleanup(func() { killAll(t, "sleep 1001") })
	r := a.Execute(t.Context(), task("link", cleanTask, remote))
	if r.GetVerdict() != wirev1.Verdict_VERDICT_CONFIRMED || len(running(t, program)) != 0 {
		t.Errorf("%s", protojson.Format(r))
	}
	for _, text := range []string{"sleep 1000", "sleep 1001"} {
		found := slices.DeleteFunc(running(t, text), func(p procfs.Process) bool { return p.Exe != original })
		if len(found) != 1 || found[0].State == "T" {
			t.Errorf("%s is not as it was: %+v", text, found)
		}
	}
	if _, err := os.Stat(original); err != nil {
		t.Error(err)
	}
}

func TestNobodyThere(t *testing.T) {
	a := newAgent(t, testConfig(t))
	r := a.Execute(t.Context(), task("nobody", assessTask, netip.MustParseAddrPort("192.0.2.1:443")))
	if r.GetVerdict() != wirev1.Verdict_VERDICT_UNKNOWN || len(r.GetReasons()) == 0 {
		t.Errorf("%s", protojson.Format(r))
	}
}

func TestPersistenceIsDisabledEntryByEntry(t *testing.T) {
	a := newAgent(t, testConfig(t))
	dir, remote := dropDir(t), c2(t)
	exe := drop(t, dir+"/job")
	cron, unit, link := "/etc/cron.d/zz-cordon-test", "/etc/systemd/system/zz-cordon-test.service", "/etc/systemd/system/multi-user.target.wants/zz-cordon-test.service"
	keep := "# kept\nPATH=/usr/bin\n17 * * * * root /bin/true\n"
	line := "* * * * * root " + exe + " -quiet"
	files := map[string]string{cron: keep + line + "\n5 5 * * * root /bin/false", unit: "[Service]\nExecStart=-" + exe + " -x\n[Install]\nWantedBy=multi-user.target\n"}
	for path, text := range files {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Remove(path) })
	}
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(unit, link); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(link) })
	launch(t, exe, "-connect", remote.String())
	t.Cleanup(func() { killAll(t, exe) })
	connected(t, a, remote)
	untouched := bystanders(t, dir, a.o.Config.StateDir, cron, unit, link)
	r := a.Execute(t.Context(), task("cron", cleanTask, remote))
	wantDone(t, r)
	got, err := os.ReadFile(cron)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(got, []byte(keep)) || !bytes.HasSuffix(got, []byte("\n5 5 * * * root /bin/false")) || bytes.Contains(got, []byte("\n"+line)) {
		t.Errorf("the crontab is now:\n%s", got)
	}
	for _, path := range []string{unit, link, exe} {
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
	untouched()

	restore := &wirev1.Task{Id: "undo", Kind: wirev1.TaskKind_TASK_KIND_RESTORE}
	items, err := a.vault.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range items {
		restore.VaultIds = append(restore.VaultIds, i.ID)
	}
	if r := a.Execute(t.Context(), restore); r.GetStatus() != wirev1.TaskStatus_TASK_STATUS_DONE {
		t.Fatalf("restore: %s", protojson.Format(r))
	}
	for path, text := range files {
		if got, err := os.ReadFile(path); err != nil || string(got) != text {
			t.Errorf("%s came back as %q, %v", path, got, err)
		}
	}
	if target, err := os.Readlink(link); err != nil || target != unit {
		t.Errorf("the link came back as %q, %v", target, err)
	}
}

func TestReadOnlyMountAndReviverAreUnresolved(t *testing.T) {
	a := newAgent(t, testConfig(t))
	remote := c2(t)
	mount := "/opt/cordon-test-image"
	if err := os.MkdirAll(mount, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("image", mount, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(mount, syscall.MNT_DETACH) })
	exe := drop(t, mount+"/helper")
	if err := syscall.Mount("", mount, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	// The test plays the reviver: the guard keeps it, as the agent's own.
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			cmd := exec.Command(exe, "-connect", remote.String())
			if cmd.Start() == nil {
				_ = cmd.Wait()
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	t.Cleanup(func() { close(stop); killAll(t, exe); <-done })
	connected(t, a, remote)
	r := a.Execute(t.Context(), task("image", cleanTask, remote))
	reasons := strings.Join(r.GetReasons(), "\n")
	if r.GetStatus() != wirev1.TaskStatus_TASK_STATUS_UNRESOLVED || r.GetVerdict() != wirev1.Verdict_VERDICT_CONFIRMED ||
		!strings.Contains(reasons, "came back") || !strings.Contains(reasons, "read-only") {
		t.Errorf("%s", protojson.Format(r))
	}
}

func TestRepeatedTaskDoesNothingTwice(t *testing.T) {
	a := newAgent(t, testConfig(t))
	dir, remote := dropDir(t), c2(t)
	exe := drop(t, dir+"/job")
	launch(t, exe, "-connect", remote.String())
	t.Cleanup(func() { killAll(t, exe) })
	connected(t, a, remote)
	first := a.Execute(t.Context(), task("twice", cleanTask, remote))
	wantDone(t, first)
	// Somebody else's file at the same place is not the task's any more.
	if err := os.WriteFile(exe, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	second := a.Execute(t.Context(), task("twice", cleanTask, remote))
	if protojson.Format(first) != protojson.Format(second) {
		t.Errorf("the results differ:\n%s\n%s", protojson.Format(first), protojson.Format(second))
	}
	if got, err := os.ReadFile(exe); err != nil || string(got) != "mine" {
		t.Errorf("the other file: %q, %v", got, err)
	}
}

// execution is what a separate process is to carry out.
type execution struct {
	Config Config
	Task   []byte
}

// executeOnce is the agent as a process of its own, which a test can kill.
func executeOnce() int {
	var e execution
	var t wirev1.Task
	if err := json.NewDecoder(os.Stdin).Decode(&e); err != nil {
		return complain(err)
	}
	if err := protojson.Unmarshal(e.Task, &t); err != nil {
		return complain(err)
	}
	a, err := New(Options{Config: e.Config, Log: slog.New(slog.DiscardHandler), Version: "test"})
	if err != nil {
		return complain(err)
	}
	out, err := protojson.Marshal(a.Execute(context.Background(), &t))
	if err != nil {
		return complain(err)
	}
	_, err = os.Stdout.Write(out)
	return code(err)
}

func agentProcess(t *testing.T, c Config, task *wirev1.Task) *exec.Cmd {
	t.Helper()
	b, err := protojson.Marshal(task)
	if err != nil {
		t.Fatal(err)
	}
	in, err := json.Marshal(execution{c, b})
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), stageVariable+"=execute")
	cmd.Stdin = bytes.NewReader(in)
	return cmd
}

func TestKilledInTheMiddleGoesOn(t *testing.T) {
	onHost(t)
	for _, point := range []string{"journal", "vault", "early", "late"} {
		t.Run(point, func(t *testing.T) {
			c := testConfig(t)
			dir, remote := dropDir(t), c2(t)
			exe := drop(t, dir+"/.upd")
			launch(t, exe, "-connect", remote.String())
			t.Cleanup(func() { killAll(t, exe) })
			eventually(t, "the payload connects", func() bool { return hasSocket(t, exe) })
			want := task("killed", cleanTask, remote)
			// The first one watches for so long that it cannot finish before it is
			// killed.
			slow := c
			slow.Watch = time.Minute
			first := agentProcess(t, slow, want)
			if err := first.Start(); err != nil {
				t.Fatal(err)
			}
			switch point {
			case "journal":
				eventually(t, "the journal is written", func() bool { return hasFile(c.StateDir + "/journal") })
			case "vault":
				eventually(t, "the vault has an item", func() bool { return hasDir(c.StateDir + "/vault") })
			case "early":
				time.Sleep(150 * time.Millisecond)
			case "late":
				time.Sleep(400 * time.Millisecond)
			}
			_ = first.Process.Kill()
			_ = first.Wait()
			if hasResult(t, c.StateDir+"/journal") {
				t.Fatal("it finished before it was killed")
			}
			second := agentProcess(t, c, want)
			var out, errs bytes.Buffer
			second.Stdout, second.Stderr = &out, &errs
			if err := second.Run(); err != nil {
				t.Fatalf("%v: %s", err, errs.String())
			}
			var r wirev1.TaskResult
			if err := protojson.Unmarshal(out.Bytes(), &r); err != nil {
				t.Fatal(err)
			}
			wantDone(t, &r)
			if left := running(t, exe); len(left) != 0 {
				t.Errorf("still running: %v", left)
			}
			if _, err := os.Lstat(exe); !os.IsNotExist(err) {
				t.Errorf("the executable is still there: %v", err)
			}
			v, err := OpenVault(c, "/")
			if err != nil {
				t.Fatal(err)
			}
			items, err := v.List()
			if err != nil || len(items) != 1 {
				t.Errorf("the vault has %d items, %v", len(items), err)
			}
		})
	}
}

func hasSocket(t *testing.T, exe string) bool {
	for _, p := range running(t, exe) {
		for i := range 16 {
			if link, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", p.PID, i)); err == nil && strings.HasPrefix(link, "socket:") {
				return true
			}
		}
	}
	return false
}

func hasFile(dir string) bool {
	entries, _ := os.ReadDir(dir)
	return slices.ContainsFunc(entries, func(e os.DirEntry) bool { return strings.HasSuffix(e.Name(), ".json") })
}

func hasResult(t *testing.T, dir string) bool {
	t.Helper()
	files, err := filepath.Glob(dir + "/*.json")
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(files, func(name string) bool {
		var record struct{ Result []byte }
		data, err := os.ReadFile(name)
		if err != nil || json.Unmarshal(data, &record) != nil {
			t.Errorf("%s is not readable: %v", name, err)
		}
		return len(record.Result) > 0
	})
}

func hasDir(dir string) bool {
	entries, _ := os.ReadDir(dir)
	return slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.IsDir() })
}

func TestBestObserverWorksInNamespaces(t *testing.T) {
	if a := newAgent(t, testConfig(t)); a.Observer() != "bpf" {
		t.Errorf("observer %s: %+v", a.Observer(), a.tried)
	}
}
