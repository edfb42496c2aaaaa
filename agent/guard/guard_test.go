package guard_test

import (
	"crypto/md5"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"testing"

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
