package testlan

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Cmd is a program to run on a host. Every path in it is one of the host.
type Cmd struct {
	// Path is the program. Empty: Args[0], looked up in the host's PATH.
	Path string
	// Args is the argument list, the program's name first.
	Args []string
	// Env is added to a small environment (PATH, HOME, LANG, and
	// CORDON_TEST_LAN with the LAN's name).
	Env []string
	// Dir is the working directory. Empty: "/".
	Dir string
	// UID and GID are whom it runs as, root when zero.
	UID, GID uint32
	// Stdin, Stdout and Stderr as in os/exec. On a LAN that is kept they must be
	// files, which outlive this process: use Log.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Log is a file of the host that Stdout and Stderr are appended to, where
	// those are nil.
	Log string
}

// ExitError is a program on a host that ended with a status other than 0.
type ExitError struct {
	Host   string
	Args   []string
	Code   int // -1 when a signal ended it
	Signal syscall.Signal
	Stderr string
}

// Error names the host, the command, its end and what it said.
func (e *ExitError) Error() string {
	end := fmt.Sprintf("exit status %d", e.Code)
	if e.Code < 0 {
		end = "ended by signal " + e.Signal.String()
	}
	s := fmt.Sprintf("%s: %s: %s", e.Host, strings.Join(e.Args, " "), end)
	if said := strings.TrimSpace(e.Stderr); said != "" {
		s += ": " + said
	}
	return s
}

// Run runs a program on the host to its end and returns its standard output.
// A status other than 0 is an *ExitError. When ctx ends the program is killed.
func (h *Host) Run(ctx context.Context, argv ...string) (string, error) {
	if len(argv) == 0 {
		return "", errors.New("run: no program named")
	}
	var out, said bytes.Buffer
	p, err := h.Start(ctx, Cmd{Args: argv, Stdout: &out, Stderr: &said})
	if err != nil {
		return "", err
	}
	select {
	case <-p.Done():
	case <-ctx.Done():
		return "", errors.Join(fmt.Errorf("run %s on %s: %w", argv[0], h.name, ctx.Err()), p.Kill())
	}
	err = p.Wait()
	if exit, ok := errors.AsType[*ExitError](err); ok {
		exit.Stderr = said.String()
	}
	return out.String(), err
}

// Process is a program that was started on a host.
type Process struct {
	host *Host
	cmd  *exec.Cmd
	hpid int
	done chan struct{}
	err  error // set before done is closed
}

// Start starts a program on the host. It runs until it ends, is killed, or the
// LAN goes; ctx bounds the start alone.
func (h *Host) Start(ctx context.Context, c Cmd) (*Process, error) {
	return h.start(ctx, h.inside, c)
}

// StartOutsidePID starts a program in the host's network and files, but not in
// its PID namespace: no program of the host can see or signal it. It can start
// processes in the host's PID namespace, through /proc/1/ns/pid.
func (h *Host) StartOutsidePID(ctx context.Context, c Cmd) (*Process, error) {
	t, err := h.outsideThread()
	if err != nil {
		return nil, fmt.Errorf("start outside the PID namespace of %s: %w", h.name, err)
	}
	p, err := h.start(ctx, t, c)
	if err != nil {
		return nil, err
	}
	id := identify(p.PID())
	err = h.lan.record(func(s *state) {
		entry := s.host(h.name)
		entry.Outside = append(entry.Outside, id)
	})
	if err != nil {
		return nil, errors.Join(err, p.Kill())
	}
	return p, nil
}

func (h *Host) outsideThread() (*thread, error) {
	h.outside.Lock()
	defer h.outside.Unlock()
	if h.outside.thread != nil {
		return h.outside.thread, nil
	}
	t, err := newThread(func() error { return enter(h.PID(), hostNamespaces&^unix.CLONE_NEWPID) })
	if err != nil {
		return nil, err
	}
	h.outside.thread = t
	return t, nil
}

func (h *Host) start(ctx context.Context, t *thread, c Cmd) (*Process, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(c.Args) == 0 {
		return nil, errors.New("start: no program named")
	}
	p := &Process{host: h, done: make(chan struct{})}
	// What is in the host's PID namespace ends with the host's first process. A
	// death signal there would hit at once: package syscall takes the parent
	// that the namespace hides for one that has died.
	var death syscall.Signal
	if t != h.inside {
		death = h.lan.deathSignal()
	}
	err := t.do(func() error { return p.start(c, death) })
	if err != nil {
		return nil, fmt.Errorf("start %s on %s: %w", c.Args[0], h.name, err)
	}
	p.hpid = namespacePID(p.PID())
	go p.reap()
	return p, nil
}

// start runs on a thread in the host's mount namespace, so that every path
// means the host's.
func (p *Process) start(c Cmd, death syscall.Signal) error {
	path, err := lookPath(c)
	if err != nil {
		return err
	}
	p.cmd = &exec.Cmd{Path: path, Args: c.Args, Dir: c.Dir, Stdin: c.Stdin, Stdout: c.Stdout, Stderr: c.Stderr}
	if p.cmd.Dir == "" {
		p.cmd.Dir = "/"
	}
	p.cmd.Env = append([]string{"PATH=" + hostPath, "HOME=/root", "LANG=C.UTF-8", "CORDON_TEST_LAN=" + p.host.lan.name}, c.Env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid: true, Pdeathsig: death,
		Credential: &syscall.Credential{Uid: c.UID, Gid: c.GID},
	}
	log, err := openLog(c)
	if err != nil {
		return err
	}
	if log != nil {
		defer log.Close()
		if p.cmd.Stdout == nil {
			p.cmd.Stdout = log
		}
		if p.cmd.Stderr == nil {
			p.cmd.Stderr = log
		}
	}
	return p.startInCgroup()
}

func openLog(c Cmd) (*os.File, error) {
	if c.Log == "" {
		return nil, nil
	}
	if err := os.MkdirAll(filepath.Dir(c.Log), 0o755); err != nil {
		return nil, err
	}
	return os.OpenFile(c.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
}

func lookPath(c Cmd) (string, error) {
	name := c.Path
	if name == "" {
		name = c.Args[0]
	}
	if strings.ContainsRune(name, '/') {
		return name, nil
	}
	for _, dir := range filepath.SplitList(hostPath) {
		path := filepath.Join(dir, name)
		if unix.Access(path, unix.X_OK) == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: %w", name, exec.ErrNotFound)
}

// PID returns its process id on the machine.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// HostPID returns its process id in the host, as programs of the host see it.
// It is that of the machine for a program that runs outside, and 0 when the
// program ended at once.
func (p *Process) HostPID() int { return p.hpid }

// namespacePID returns the id of a process in the innermost PID namespace.
func namespacePID(pid int) int {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		rest, ok := strings.CutPrefix(line, "NSpid:")
		if !ok {
			continue
		}
		ids := strings.Fields(rest)
		id, err := strconv.Atoi(ids[len(ids)-1])
		if err != nil {
			return 0
		}
		return id
	}
	return 0
}

func (p *Process) reap() {
	err := p.cmd.Wait()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if ok {
		status, _ := exit.Sys().(syscall.WaitStatus)
		e := &ExitError{Host: p.host.name, Args: slices.Clone(p.cmd.Args), Code: exit.ExitCode()}
		if status.Signaled() {
			e.Signal = status.Signal()
		}
		err = e
	}
	p.err = err
	close(p.done)
}

// Done is closed when the program has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the program's end. A status other than 0 is an *ExitError.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// Running tells whether the program has not ended.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Signal sends a signal; to a program that has ended it does nothing.
func (p *Process) Signal(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s on %s: %w", p.cmd.Args[0], p.host.name, err)
	}
	return nil
}

// Kill ends the program with SIGKILL and waits until it has gone. Its children
// live on.
func (p *Process) Kill() error {
	if err := p.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-p.done
	return nil
}
