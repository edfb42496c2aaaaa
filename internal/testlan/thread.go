package testlan

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// errThreadClosed is returned for work that comes after the host has gone.
var errThreadClosed = errors.New("the host has been closed")

// thread is one operating-system thread that does nothing but the work handed
// to it, one piece at a time. A thread that entered namespaces stays in them
// until it ends, and processes started on it with a parent-death signal get
// that signal when it ends.
type thread struct {
	jobs chan func()
	quit chan struct{}
	once sync.Once
}

// newThread starts a thread and runs setup on it. When setup fails the thread
// is thrown away, in whatever namespace it is.
func newThread(setup func() error) (*thread, error) {
	t := &thread{jobs: make(chan func()), quit: make(chan struct{})}
	ready := make(chan error, 1)
	offMainThread(func() {
		err := setup()
		ready <- err
		if err != nil {
			return
		}
		t.serve()
	})
	if err := <-ready; err != nil {
		return nil, err
	}
	return t, nil
}

// offMainThread runs f in a goroutine that keeps its thread for ever and is
// not the main one: /proc/self describes the main thread, so its namespaces
// must stay the machine's.
func offMainThread(f func()) {
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != os.Getpid() {
			f() // still locked at the end: the runtime ends the thread
			return
		}
		moved := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(moved)
			f()
		}()
		<-moved
		runtime.UnlockOSThread()
	}()
}

func (t *thread) serve() {
	for {
		select {
		case job := <-t.jobs:
			job()
		case <-t.quit:
			return
		}
	}
}

// do runs f on the thread and returns its error.
func (t *thread) do(f func() error) error {
	result := make(chan error, 1)
	select {
	case t.jobs <- func() { result <- f() }:
		return <-result
	case <-t.quit:
		return errThreadClosed
	}
}

func (t *thread) close() { t.once.Do(func() { close(t.quit) }) }

// enter moves the calling thread, which must be locked to its goroutine, into
// the namespaces of the process pid that flags name.
func enter(pid int, flags int) error {
	if flags&unix.CLONE_NEWNS != 0 {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare file-system attributes: %w", err)
		}
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("open process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, flags); err != nil {
		return fmt.Errorf("enter namespaces of process %d: %w", pid, err)
	}
	return nil
}
