package clean

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cordon-security/cordon/agent/guard"
	"github.com/cordon-security/cordon/agent/procfs"
)

const (
	// freezeTime bounds how long a tree that keeps forking is chased.
	freezeTime = 10 * time.Second
	// deathTime bounds the wait for killed processes: one that sleeps in the
	// kernel without interruption dies when it wakes up.
	deathTime = 5 * time.Second
)

// Stopper freezes and kills trees of processes.
type Stopper struct {
	Proc  procfs.FS
	Guard *guard.Guard
	// Trusted reports whether a process runs a package's own file. The same
	// inode may have a name of the threat's beside the package's.
	Trusted func(procfs.Process) bool
}

// Tree is a set of processes that are held: frozen first, then killed. Each is
// held by a pidfd, so that a pid that was given to another process is never
// hit. Close it.
type Tree struct {
	s       *Stopper
	members map[procfs.ID]*member
	// inodes are executables whose processes belong to the tree wherever they
	// appear.
	inodes map[procfs.FileID]bool
	seen   map[procfs.ID]bool
	frozen []string // cgroups
}

type member struct {
	process procfs.Process
	fd      int
	gone    bool
	// inFrozen is true when it lies in a cgroup that is frozen: its state says
	// nothing then.
	inFrozen bool
	err      error
}

// Outcome is what became of one process.
type Outcome struct {
	Process procfs.Process
	// Err is nil when the process is gone; a *guard.Refusal when the guard
	// kept it.
	Err error
}

// Freeze stops the processes and whatever descends from them or runs one of the
// executables, until a look at the process table finds nothing new and nothing
// moving. When that takes too long it returns an error, and the tree is still
// to be killed.
func (s *Stopper) Freeze(ctx context.Context, start []procfs.Process, inodes map[procfs.FileID]bool) (*Tree, error) {
	t := &Tree{s: s, members: make(map[procfs.ID]*member), inodes: inodes, seen: make(map[procfs.ID]bool)}
	for _, p := range start {
		t.hold(p)
	}
	t.freezeCgroups()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), freezeTime)
	defer cancel()
	for quiet := 0; quiet < 2; {
		if ctx.Err() != nil {
			return t, fmt.Errorf("freeze the tree: it still moves after %s", freezeTime)
		}
		moving, added, err := t.look()
		if err != nil {
			return t, err
		}
		switch {
		case added:
			quiet = 0
		case moving:
			quiet = 0
			time.Sleep(200 * time.Microsecond)
		default:
			quiet++
		}
	}
	return t, nil
}

// hold opens and stops one process.
func (t *Tree) hold(p procfs.Process) {
	if _, ok := t.members[p.ID]; ok {
		return
	}
	m := &member{process: p, fd: -1}
	t.members[p.ID] = m
	if err := t.s.Guard.Process(p); err != nil {
		m.err = err
		return
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		m.gone = true
		return
	}
	if err != nil {
		m.err = fmt.Errorf("hold pid %d: %w", p.PID, err)
		return
	}
	// The descriptor names one process for good; whether it is the right one
	// is known now.
	now, err := t.s.Proc.Stat(p.PID)
	if err != nil || now.Start != p.Start || now.Dead() {
		_ = unix.Close(fd)
		m.gone = true
		return
	}
	m.fd = fd
	m.signal(unix.SIGSTOP)
}

func (m *member) signal(sig unix.Signal) {
	switch err := unix.PidfdSendSignal(m.fd, sig, nil, 0); {
	case errors.Is(err, unix.ESRCH):
		m.gone = true
	case err != nil:
		m.err = fmt.Errorf("signal pid %d: %w", m.process.PID, err)
	}
}

// look passes over the process table once: it takes in what belongs to the tree
// and tells whether a member still moves.
func (t *Tree) look() (moving, added bool, err error) {
	table, err := t.s.Proc.Snapshot(false)
	if err != nil {
		return false, false, err
	}
	for again := true; again; {
		again = false
		for _, p := range table {
			if _, ok := t.members[p.ID]; ok || !t.owns(&p, table) {
				continue
			}
			t.hold(p)
			again, added = true, true
		}
	}
	for _, p := range table {
		t.seen[p.ID] = true
	}
	for _, m := range t.members {
		if m.fd < 0 || m.gone {
			continue
		}
		switch p, ok := table[m.process.PID]; {
		case !ok || p.Start != m.process.Start || p.Dead():
			m.gone = true
		case !m.inFrozen && t.s.Proc.Moves(p):
			// One that waits in the kernel (D) stops before it runs on. It may
			// wait for a stopped child to come out of vfork(2), for ever.
			moving = true
		}
	}
	return moving, added, nil
}

// owns reports whether a process belongs to the tree by its parent, its session
// or its executable, and reads the details of one that does.
func (t *Tree) owns(p *procfs.Process, table map[int]procfs.Process) bool {
	if p.Kernel || p.PID <= 1 || p.Dead() {
		return false
	}
	if parent, ok := table[p.PPID]; ok && t.stopping(parent.ID) {
		t.s.Proc.Detail(p)
		return true
	}
	if leader, ok := table[p.SID]; ok && p.SID != p.PID && leader.SID == leader.PID && t.stopping(leader.ID) {
		t.s.Proc.Detail(p)
		return true
	}
	if t.seen[p.ID] {
		return false // Its executable was looked at before.
	}
	file := t.s.Proc.Exe(p.PID)
	if file.IsZero() || !t.inodes[file] {
		return false
	}
	t.s.Proc.Detail(p)
	return t.inodes[p.ExeFile] && !t.s.Trusted(*p)
}

// stopping is false for a member that the guard keeps: its children are not
// taken in because of it.
func (t *Tree) stopping(id procfs.ID) bool {
	m, ok := t.members[id]
	return ok && m.fd >= 0
}

// Kill ends what Freeze froze and waits until it is gone.
func (t *Tree) Kill() []Outcome {
	for _, m := range t.members {
		if m.fd >= 0 && !m.gone {
			m.signal(unix.SIGKILL)
		}
	}
	t.thawCgroups()
	end := time.Now().Add(deathTime)
	var outcomes []Outcome
	for _, m := range t.members {
		if m.fd >= 0 && !m.gone && m.err == nil && !dead(m.fd, time.Until(end)) {
			m.err = fmt.Errorf("pid %d was killed and is still there: it waits in the kernel", m.process.PID)
		}
		outcomes = append(outcomes, Outcome{m.process, m.err})
	}
	slices.SortFunc(outcomes, func(a, b Outcome) int { return a.Process.PID - b.Process.PID })
	return outcomes
}

// dead waits until the process of a pidfd has ended.
func dead(fd int, wait time.Duration) bool {
	end := time.Now().Add(wait)
	for {
		left := max(0, time.Until(end))
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return n > 0
	}
}

// Close lets go of the processes.
func (t *Tree) Close() {
	t.thawCgroups()
	for _, m := range t.members {
		if m.fd >= 0 {
			_ = unix.Close(m.fd)
			m.fd = -1
		}
	}
}
