package storetest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Disk is a small file system of a test's own, that can be filled up.
type Disk struct {
	// Dir is where it is mounted.
	Dir string
	t   *testing.T
}

// smallDiskEnv names the test that runs in a mount namespace of its own.
const smallDiskEnv = "CORDON_TEST_SMALL_DISK"

// OnSmallDisk runs the calling test once more, in a process with a mount
// namespace of its own, on a tmpfs with the options ("size=3m"), and there calls
// fn. It needs root. Call it first, from a top-level test.
func OnSmallDisk(t *testing.T, options string, fn func(d *Disk)) {
	t.Helper()
	if os.Getenv(smallDiskEnv) == t.Name() {
		fn(&Disk{Dir: mountSmall(t, options), t: t})
		return
	}
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("a small disk needs root to be mounted")
		}
		t.Skip("a small disk needs root to be mounted")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+regexp.QuoteMeta(t.Name())+"$", "-test.v", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), smallDiskEnv+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("on the small disk: %v\n%s", err, out)
	}
	t.Logf("on the small disk:\n%s", out)
}

func mountSmall(t *testing.T, options string) string {
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	parent, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", os.Getppid()))
	if err != nil || own == parent {
		t.Fatalf("not in a mount namespace of its own: %s, the parent's %s, %v", own, parent, err)
	}
	dir := t.TempDir()
	if err := unix.Mount("cordon-test", dir, "tmpfs", 0, options); err != nil {
		t.Fatalf("mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// Fill writes a file until the disk has no more than leave bytes, rounded to
// pages.
func (d *Disk) Fill(leave int64) {
	d.t.Helper()
	f, err := os.OpenFile(d.filler(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 4096)
	for d.Free() > leave {
		if _, err := f.Write(block); errors.Is(err, syscall.ENOSPC) {
			return
		} else if err != nil {
			d.t.Fatal(err)
		}
	}
}

// Empty removes what Fill wrote.
func (d *Disk) Empty() {
	d.t.Helper()
	if err := os.Remove(d.filler()); err != nil {
		d.t.Fatal(err)
	}
}

// Free is how many bytes the disk has left.
func (d *Disk) Free() int64 {
	d.t.Helper()
	var fs unix.Statfs_t
	if err := unix.Statfs(d.Dir, &fs); err != nil {
		d.t.Fatal(err)
	}
	return int64(fs.Bavail) * fs.Bsize
}

func (d *Disk) filler() string { return filepath.Join(d.Dir, "filler") }

// Eventually polls until ok, and fails the test after a minute.
func Eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}
