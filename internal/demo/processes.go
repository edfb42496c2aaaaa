package demo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cordon-security/cordon/internal/testlan"
)

// process is one program on a host, as the host's own /proc shows it.
type process struct {
	pid   int
	start string // clock ticks since boot: the same id with another start is another process
	state string
	exe   string
	args  string
}

func (p process) String() string { return fmt.Sprintf("%d %s", p.pid, p.args) }

// processes lists what runs on a host. Kernel threads have no executable.
func processes(h *testlan.Host) ([]process, error) {
	var all []process
	err := h.Do(func() error {
		entries, err := os.ReadDir("/proc")
		if err != nil {
			return err
		}
		for _, e := range entries {
			pid, err := strconv.Atoi(e.Name())
			if err != nil {
				continue
			}
			if p, ok := readProcess(pid); ok {
				all = append(all, p)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the processes of %s: %w", h.Name(), err)
	}
	return all, nil
}

// readProcess reports false for what has ended.
func readProcess(pid int) (process, bool) {
	dir := "/proc/" + strconv.Itoa(pid)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return process{}, false
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return process{}, false
	}
	p := process{pid: pid, state: fields[0], start: fields[19]}
	exe, err := os.Readlink(dir + "/exe")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return process{}, false
	}
	p.exe = strings.TrimSuffix(exe, " (deleted)")
	if line, err := os.ReadFile(dir + "/cmdline"); err == nil {
		p.args = strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " "))
	}
	return p, true
}

// running lists the processes of a host that run a file.
func running(h *testlan.Host, exe string) ([]process, error) {
	all, err := processes(h)
	return slices.DeleteFunc(all, func(p process) bool { return p.exe != exe }), err
}

// notRunning fails when something runs the file.
func notRunning(h *testlan.Host, exe string) error {
	left, err := running(h, exe)
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("%d processes run %s: %v", len(left), exe, left)
	}
	return err
}

// lasting lists what runs for longer than a moment: processes that are there
// twice in a row.
func lasting(ctx context.Context, h *testlan.Host) ([]process, error) {
	first, err := processes(h)
	if err != nil {
		return nil, err
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(400 * time.Millisecond):
	}
	second, err := processes(h)
	return slices.DeleteFunc(second, func(p process) bool {
		return !slices.ContainsFunc(first, func(q process) bool { return q.pid == p.pid && q.start == p.start })
	}), err
}

// undisturbed fails when one of the processes has ended or was stopped.
func undisturbed(h *testlan.Host, before []process) error {
	now, err := processes(h)
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range before {
		i := slices.IndexFunc(now, func(q process) bool { return q.pid == p.pid && q.start == p.start })
		switch {
		case i < 0:
			errs = append(errs, fmt.Errorf("ended: %s", p))
		case now[i].state == "T" || now[i].state == "t":
			errs = append(errs, fmt.Errorf("stopped: %s", p))
		}
	}
	return errors.Join(errs...)
}

// ending watches the processes that run a file until none is left, and tells
// when the last had gone. It watches from outside, with a grain of 2 ms.
func ending(ctx context.Context, h *testlan.Host, exe string) <-chan time.Time {
	gone := make(chan time.Time, 1)
	go func() {
		defer close(gone)
		for ctx.Err() == nil {
			now := time.Now()
			if left, err := running(h, exe); err == nil && len(left) == 0 {
				gone <- now
				return
			}
			time.Sleep(2 * time.Millisecond)
		}
	}()
	return gone
}
