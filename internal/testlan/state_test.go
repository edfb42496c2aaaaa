package testlan

import (
	"fmt"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A host's first process that was killed counts as ended while a process of its
// PID namespace is dead and not reaped, as in a container whose own first
// process reaps nothing: else a LAN that was kept could not be removed there.
func TestKilledInitIsGoneBeforeAllAreReaped(t *testing.T) {
	needRoot(t)
	first := exec.Command("sleep", "600")
	first.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = first.Wait() }) // killed below
	t.Cleanup(func() { _ = first.Process.Kill() })
	init := identify(first.Process.Pid)
	if !init.alive() {
		t.Fatal("a process that runs counts as ended")
	}
	orphan := exec.Command("sleep", "600")
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this
		started <- startIn(orphan, fmt.Sprintf("/proc/%d/ns/pid", init.PID))
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = orphan.Wait() }) // until then it is a zombie
	t.Cleanup(func() { _ = orphan.Process.Kill() })

	if err := init.kill(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); init.alive(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it counts as running until the zombie is reaped")
		}
	}
}

// startIn starts a program in the PID namespace of that path; its thread stays
// there.
func startIn(cmd *exec.Cmd, path string) error {
	ns, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(ns)
	if err := unix.Setns(ns, unix.CLONE_NEWPID); err != nil {
		return err
	}
	return cmd.Start()
}
