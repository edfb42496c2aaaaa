package guard_test

import (
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cordon-security/cordon/agent/guard"
	"github.com/cordon-security/cordon/agent/packages"
	"github.com/cordon-security/cordon/agent/procfs"
)

// host is a root directory with sshd from a package.
func host(t *testing.T, status string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("packaged files belong to root: this test needs root")
		}
		t.Skip("packaged files belong to root: this test needs root")
	}
	root := t.TempDir()
	sum := md5.Sum([]byte("sshd"))
	for name, text := range map[string]string{
		"usr/sbin/sshd":                            "sshd",
		"opt/own":                                  "own",
		"var/lib/dpkg/status":                      "Package: openssh-server\nStatus: " + status + "\n",
		"var/lib/dpkg/info/openssh-server.list":    "/usr/sbin/sshd\n/usr/sbin/agetty\n",
		"var/lib/dpkg/info/openssh-server.md5sums": hex.EncodeToString(sum[:]) + "  usr/sbin/sshd\n",
	} {
		write(t, filepath.Join(root, name), text)
	}
	return root
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

func newGuard(t *testing.T, root string) *guard.Guard {
	t.Helper()
	g, err := guard.New(guard.Options{
		Packages: packages.New(root), Self: os.Getpid(), Services: guard.DefaultServices(), Own: []string{"/opt/own"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func refused(err error) bool {
	var r *guard.Refusal
	return errors.As(err, &r)
}

func TestSshdIsKeptInEveryStateOfItsPackage(t *testing.T) {
	for status, want := range map[string]bool{
		"install ok installed": true, "install ok unpacked": true, "install ok half-configured": true,
		"install ok triggers-awaited": true, "deinstall ok config-files": false,
	} {
		t.Run(status, func(t *testing.T) {
			g := newGuard(t, host(t, status))
			p := procfs.Process{ID: procfs.ID{PID: 1 << 22, Start: 1}, PPID: 2, Exe: "/usr/sbin/sshd"}
			if err := g.Process(p); refused(err) != want {
				t.Errorf("stopping sshd: %v", err)
			}
			if err := g.File("/usr/sbin/sshd"); refused(err) != want {
				t.Errorf("moving sshd: %v", err)
			}
		})
	}
}

func TestUnverifiedSshdIsKept(t *testing.T) {
	root := host(t, "install ok installed")
	if err := os.Remove(filepath.Join(root, "var/lib/dpkg/info/openssh-server.md5sums")); err != nil {
		t.Fatal(err)
	}
	p := procfs.Process{ID: procfs.ID{PID: 1 << 22, Start: 1}, PPID: 2, Exe: "/usr/sbin/sshd"}
	if err := newGuard(t, root).Process(p); !refused(err) {
		t.Errorf("stopping sshd: %v", err)
	}
}

// table is a proc file system with the processes of a test.
func table(t *testing.T, processes ...procfs.Process) procfs.FS {
	t.Helper()
	fs := procfs.FS{Path: t.TempDir()}
	for _, p := range processes {
		stat := fmt.Sprintf("%d (x) S %d 0 0 0 0 0 0 0 0 0 0 0 0 0 20 0 1 0 %d 0 0", p.PID, p.PPID, p.Start)
		write(t, fs.File(p.PID, "stat"), stat)
		write(t, fs.File(p.PID, "cgroup"), "0::"+p.Cgroup+"\n")
	}
	return fs
}

func TestMainProcessOfAListedService(t *testing.T) {
	const cgroup = "/system.slice/cron.service"
	child := func(pid, parent int) procfs.Process {
		return procfs.Process{ID: procfs.ID{PID: pid, Start: uint64(pid)}, PPID: parent, Cgroup: cgroup, Exe: "/opt/x"}
	}
	main, orphan, job := child(100, 1), child(200, 1), child(150, 100)
	answer := func(pid int, err error) func(string) (int, error) {
		return func(string) (int, error) { return pid, err }
	}
	for name, c := range map[string]struct {
		mainPID                  func(string) (int, error)
		main, orphan, job, other bool
	}{
		"systemd says":       {mainPID: answer(100, nil), main: true},
		"systemd says other": {mainPID: answer(200, nil), orphan: true},
		"none runs":          {mainPID: answer(0, nil)},
		"systemd is silent":  {mainPID: answer(0, errors.New("no answer")), main: true},
		"no systemd":         {main: true},
	} {
		t.Run(name, func(t *testing.T) {
			g, err := guard.New(guard.Options{
				Packages: packages.New(t.TempDir()), Proc: table(t, main, orphan, job), Self: os.Getpid(), Services: guard.DefaultServices(), MainPID: c.mainPID,
			})
			if err != nil {
				t.Fatal(err)
			}
			other := orphan
			other.Cgroup = "/system.slice/evil.service"
			for p, want := range map[*procfs.Process]bool{&main: c.main, &orphan: c.orphan, &job: c.job, &other: c.other} {
				for range 2 { // The second answer is from memory.
					if err := g.Process(*p); refused(err) != want {
						t.Errorf("stopping pid %d of %s: %v", p.PID, p.Cgroup, err)
					}
				}
			}
		})
	}
}

// The path of an essential program protects only what the package brought.
func TestEssentialByWhatRuns(t *testing.T) {
	g := newGuard(t, host(t, "install ok installed"))
	now := time.Now()
	for name, c := range map[string]struct {
		p    procfs.Process
		want bool
	}{
		"the package's own":      {procfs.Process{}, true},
		"on another mount":       {procfs.Process{ExeElsewhere: true}, false},
		"replaced by an upgrade": {procfs.Process{ExeDeleted: true, ExeRoots: true, ExeChanged: now.Add(-time.Hour)}, true},
		"removed since":          {procfs.Process{ExeDeleted: true, ExeRoots: true, ExeChanged: now.Add(time.Hour)}, false},
		"a user's, and removed":  {procfs.Process{ExeDeleted: true, ExeChanged: now.Add(-time.Hour)}, false},
		"never had that name":    {procfs.Process{ExeDeleted: true, Memfd: true, ExeRoots: true, ExeChanged: now.Add(-time.Hour)}, false},
	} {
		c.p.ID, c.p.PPID, c.p.Exe = procfs.ID{PID: 1 << 22, Start: 1}, 2, "/usr/sbin/sshd"
		if err := g.Process(c.p); refused(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFiles(t *testing.T) {
	root := host(t, "install ok installed")
	write(t, filepath.Join(root, "tmp/x"), "x")
	g := newGuard(t, root)
	for path, want := range map[string]bool{
		"/tmp/x": false, "/tmp/absent": false, "/usr/sbin/agetty": false, // Packaged, and gone.
		"/usr/sbin/sshd": true, "/etc/passwd": true, "/opt/own": true, "/opt/own/vault": true, "/boot/vmlinuz": true,
	} {
		if err := g.File(path); refused(err) != want || err != nil && !want {
			t.Errorf("moving %s: %v", path, err)
		}
	}
	write(t, filepath.Join(root, "usr/sbin/sshd"), "changed")
	if err := g.File("/usr/sbin/sshd"); err != nil {
		t.Errorf("moving a changed sshd: %v", err)
	}
}

// Whoever cannot read the package lists must not move what may be a package's.
func TestUnreadableListsMoveNothing(t *testing.T) {
	root := host(t, "install ok installed")
	status := filepath.Join(root, "var/lib/dpkg/status")
	if err := errors.Join(os.Remove(status), os.Mkdir(status, 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := newGuard(t, root).File("/usr/sbin/sshd"); !refused(err) {
		t.Errorf("moving sshd: %v", err)
	}
}
