package testlan

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// payloadPackage is the program that plays malware.
const payloadPackage = "github.com/cordon-security/cordon/internal/testlan/payload"

// payloadBinary is the built payload program on the machine.
type payloadBinary struct {
	mu   sync.Mutex
	path string
}

// Payload returns the machine's path of the payload program, a small static
// binary that may be copied to a host under any name. It is built at the first
// call, unless Options.Payload named it.
func (l *LAN) Payload(ctx context.Context) (string, error) {
	l.payload.mu.Lock()
	defer l.payload.mu.Unlock()
	if l.payload.path != "" {
		return l.payload.path, nil
	}
	path := filepath.Join(l.dir, "payload")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", path, payloadPackage)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the payload program: %w: %s", err, out)
	}
	l.payload.path = path
	return path, nil
}

// PayloadOptions says what a payload does. Its program takes the same as flags,
// see Args.
type PayloadOptions struct {
	// C2 is what it connects to.
	C2 netip.AddrPort
	// Name is what it calls itself to the C2, one word.
	Name string
	// Children are processes that it starts, which beacon too. They are
	// children of each other: a tree as deep as their number.
	Children int
	// Orphans are processes that it starts by forking twice, so that their
	// parent is the host's first process.
	Orphans int
}

// Args returns the flags of the payload program.
func (o PayloadOptions) Args() []string {
	args := []string{"-c2", o.C2.String()}
	if o.Name != "" {
		args = append(args, "-name", o.Name)
	}
	if o.Children > 0 {
		args = append(args, "-children", strconv.Itoa(o.Children))
	}
	if o.Orphans > 0 {
		args = append(args, "-orphans", strconv.Itoa(o.Orphans))
	}
	return args
}

// DropPayload copies the payload program to a path of the host, executable.
func (h *Host) DropPayload(ctx context.Context, path string) error {
	binary, err := h.lan.Payload(ctx)
	if err != nil {
		return err
	}
	return h.CopyFile(binary, path, 0o755)
}

// StartPayload drops the payload program at a path of the host and starts it
// from there.
func (h *Host) StartPayload(ctx context.Context, path string, o PayloadOptions) (*Process, error) {
	if err := h.DropPayload(ctx, path); err != nil {
		return nil, err
	}
	return h.Start(ctx, Cmd{Args: append([]string{path}, o.Args()...)})
}

// StartReviver starts, out of reach of all programs of the host, a process that
// keeps argv running in the host: when it is gone it comes back within 100 ms.
// argv itself is in the host's PID namespace and can be seen and killed there.
func (h *Host) StartReviver(ctx context.Context, argv ...string) (*Process, error) {
	return h.StartOutsidePID(ctx, actorCmd(reviverActor, argv...))
}

// revivePause is between the end of the program and its new start.
const revivePause = 50 * time.Millisecond

func runReviver(argv []string) error {
	if len(argv) == 0 {
		return errors.New("no program named")
	}
	// Children are born on this thread, into the PID namespace that it names.
	runtime.LockOSThread()
	ns, err := unix.Open("/proc/1/ns/pid", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the host's PID namespace: %w", err)
	}
	if err := unix.Setns(ns, unix.CLONE_NEWPID); err != nil {
		return fmt.Errorf("enter the host's PID namespace: %w", err)
	}
	for {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Run(); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", argv[0], err)
		}
		time.Sleep(revivePause)
	}
}
