package packages_test

import (
	"crypto/md5"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cordon-security/cordon/agent/packages"
)

// host is a root directory with one package, whose files are as they came.
type host struct {
	t    *testing.T
	root string
}

const content = "#!/bin/sh\necho packaged\n"

func newHost(t *testing.T, status string) host {
	h := host{t, t.TempDir()}
	sum := md5.Sum([]byte(content))
	h.write("usr/sbin/sshd", content)
	h.write("var/lib/dpkg/info/openssh-server.list", "/.\n/usr\n/usr/sbin\n/usr/sbin/sshd\n/usr/sbin/nosum\n/usr/bin/link\n")
	h.write("var/lib/dpkg/info/openssh-server.md5sums", hex.EncodeToString(sum[:])+"  usr/sbin/sshd\n")
	h.write("var/lib/dpkg/status", "Package: openssh-server\nStatus: "+status+"\nVersion: 1\n\nPackage: other\nStatus: install ok installed\n")
	return h
}

func (h host) write(name, text string) {
	h.t.Helper()
	path := filepath.Join(h.root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
	if strings.HasPrefix(name, "usr/") && os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			h.t.Fatal("packaged files belong to root: this test needs root")
		}
		h.t.Skip("packaged files belong to root: this test needs root")
	}
}

func (h host) check(path string, want packages.State) {
	h.t.Helper()
	s, err := packages.New(h.root).Check(path)
	if err != nil || s.State != want {
		h.t.Errorf("%s is %q (%s), %v; want %q", path, s.State, s.Why, err, want)
	}
}

func TestEachStatusOfAPackage(t *testing.T) {
	for status, want := range map[string]packages.State{
		"install ok installed":             packages.Unchanged,
		"hold ok installed":                packages.Unchanged,
		"install reinstreq installed":      packages.Unchanged,
		"deinstall ok installed":           packages.Unchanged,
		"install ok unpacked":              packages.Unchanged,
		"install ok half-configured":       packages.Unchanged,
		"install ok triggers-awaited":      packages.Unchanged,
		"install ok triggers-pending":      packages.Unchanged,
		"install reinstreq half-installed": packages.Unchanged,
		"deinstall ok config-files":        packages.Unpackaged,
		"purge ok not-installed":           packages.Unpackaged,
	} {
		t.Run(status, func(t *testing.T) { newHost(t, status).check("/usr/sbin/sshd", want) })
	}
}

func TestChangedFiles(t *testing.T) {
	for name, c := range map[string]struct {
		status string
		do     func(path string) error
		want   packages.State
	}{
		"content":           {"install ok installed", func(p string) error { return os.WriteFile(p, []byte("other"), 0o644) }, packages.Changed},
		"half configured":   {"install ok half-configured", func(p string) error { return os.WriteFile(p, []byte("other"), 0o644) }, packages.Changed},
		"being unpacked":    {"install ok half-installed", func(p string) error { return os.WriteFile(p, []byte("new"), 0o644) }, packages.Unverified},
		"writable":          {"install ok installed", func(p string) error { return os.Chmod(p, 0o666) }, packages.Changed},
		"somebody else's":   {"install ok installed", func(p string) error { return os.Chown(p, 1000, 1000) }, packages.Changed},
		"a link instead":    {"install ok installed", func(p string) error { return replaceByLink(p) }, packages.Changed},
		"untouched, copied": {"install ok installed", func(p string) error { return os.WriteFile(p, []byte(content), 0o644) }, packages.Unchanged},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, c.status)
			if err := c.do(filepath.Join(h.root, "usr/sbin/sshd")); err != nil {
				t.Fatal(err)
			}
			h.check("/usr/sbin/sshd", c.want)
		})
	}
}

func replaceByLink(path string) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	return os.Symlink("/bin/true", path)
}

func TestFilesWithoutASum(t *testing.T) {
	h := newHost(t, "install ok installed")
	h.write("usr/sbin/nosum", "text")
	h.check("/usr/sbin/nosum", packages.Unverified)
	if err := os.MkdirAll(filepath.Join(h.root, "usr/bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../sbin/sshd", filepath.Join(h.root, "usr/bin/link")); err != nil {
		t.Fatal(err)
	}
	h.check("/usr/bin/link", packages.Unverified)
	h.check("/usr/bin/elsewhere", packages.Unpackaged)
}
