package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The tests of this package run on a host of their own: the test binary starts
// itself again in new PID, network, mount and IPC namespaces, over an overlay
// whose upper layer is in memory, so that nothing reaches the machine.
const (
	stageVariable   = "CORDON_AGENT_TEST_STAGE"
	payloadVariable = "CORDON_AGENT_TEST_PAYLOAD"
	upperVariable   = "CORDON_AGENT_TEST_UPPER"
)

func TestMain(m *testing.M) {
	switch os.Getenv(stageVariable) {
	case "":
		os.Exit(outside(m))
	case "init":
		os.Exit(firstProcess())
	case "execute":
		os.Exit(executeOnce())
	default:
		os.Exit(m.Run())
	}
}

// outside builds the payload and starts the host. Without root the tests that
// need the host skip themselves.
func outside(m *testing.M) int {
	if os.Geteuid() != 0 {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "cordon-agent-test-")
	if err != nil {
		return complain(err)
	}
	defer os.RemoveAll(dir)
	payload := filepath.Join(dir, "payload")
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", payload, "./testdata/payload")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return complain(fmt.Errorf("build the payload: %w: %s", err, out))
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), stageVariable+"=init", payloadVariable+"="+payload, upperVariable+"="+filepath.Join(dir, "memory"))
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		Pdeathsig:  syscall.SIGKILL,
	}
	return code(cmd.Run())
}

func code(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() >= 0 {
		return exit.ExitCode()
	}
	if err != nil {
		return complain(err)
	}
	return 0
}

func complain(err error) int {
	fmt.Fprintln(os.Stderr, "agent tests:", err)
	return 1
}

// firstProcess makes the host's file systems, starts the tests and reaps.
func firstProcess() int {
	wd, err := os.Getwd()
	if err != nil {
		return complain(err)
	}
	self, err := os.Executable()
	if err != nil {
		return complain(err)
	}
	if err := hostRoot(os.Getenv(upperVariable), wd); err != nil {
		return complain(err)
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return complain(err)
	}
	if err := os.Setenv(stageVariable, "host"); err != nil {
		return complain(err)
	}
	tests, err := os.StartProcess(self, os.Args, &os.ProcAttr{
		Env: os.Environ(), Files: []*os.File{nil, os.Stdout, os.Stderr},
	})
	if err != nil {
		return complain(err)
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return complain(err)
		}
		if pid == tests.Pid {
			if status.Signaled() {
				return 128 + int(status.Signal())
			}
			return status.ExitStatus()
		}
	}
}

// hostRoot mounts the overlay and moves into it. The memory stays reachable
// below /run/upper, so that a test can list every file that changed.
func hostRoot(memory, wd string) error {
	root := memory + "-root"
	steps := []func() error{
		func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") },
		func() error { return errors.Join(os.MkdirAll(memory, 0o700), os.MkdirAll(root, 0o700)) },
		func() error { return unix.Mount("tmpfs", memory, "tmpfs", 0, "") },
		func() error { return errors.Join(os.Mkdir(memory+"/upper", 0o755), os.Mkdir(memory+"/work", 0o755)) },
		func() error {
			return unix.Mount("overlay", root, "overlay", 0, fmt.Sprintf("lowerdir=/,upperdir=%[1]s/upper,workdir=%[1]s/work", memory))
		},
		func() error { return unix.Mount("/dev", root+"/dev", "", unix.MS_BIND|unix.MS_REC, "") },
		func() error { return unix.Mount("proc", root+"/proc", "proc", 0, "") },
		func() error { return unix.Mount("sysfs", root+"/sys", "sysfs", unix.MS_RDONLY, "") },
		func() error { return unix.Mount("tmpfs", root+"/run", "tmpfs", 0, "") },
		func() error { return os.Mkdir(root+"/run/upper", 0o700) },
		func() error { return unix.Mount(memory+"/upper", root+"/run/upper", "", unix.MS_BIND, "") },
		func() error { return os.Chdir(root) },
		// As switch_root(8) does: it also works where / is an initramfs.
		func() error { return unix.Mount(root, "/", "", unix.MS_MOVE, "") },
		func() error { return unix.Chroot(".") },
		func() error { return os.Chdir(wd) },
	}
	for i, step := range steps {
		if err := step(); err != nil {
			return fmt.Errorf("make the host's root, step %d: %w", i, err)
		}
	}
	return nil
}

// onHost skips, or fails in CI, a test that has no host of its own.
func onHost(t testing.TB) {
	t.Helper()
	if os.Getenv(stageVariable) == "host" {
		return
	}
	unable(t, "this test needs root")
}

// unable skips a test that this machine cannot run; in CI it fails instead.
func unable(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// changed lists what differs from the machine's files, with size and time.
func changed(t *testing.T) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir("/run/upper", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		all[strings.TrimPrefix(path, "/run/upper")] = fmt.Sprintf("%s %d %d", info.Mode(), info.Size(), info.ModTime().UnixNano())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
