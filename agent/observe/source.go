package observe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"time"

	"github.com/cordon-security/cordon/agent/procfs"
)

// ErrUnavailable is wrapped by the error of a source that this kernel or these
// rights do not offer.
var ErrUnavailable = errors.New("not available here")

// Source feeds a history with events.
type Source interface {
	// Name is "bpf", "proc-connector" or "poll".
	Name() string
	// Run feeds the history until the context ends.
	Run(ctx context.Context, h *History) error
	// Close gives back what opening took; Run must have returned or not begun.
	Close() error
}

// Candidate is one source and whether it works here.
type Candidate struct {
	Name string
	// Err is nil for a source that works.
	Err error
}

// Options is what a source needs.
type Options struct {
	Proc procfs.FS
	Log  *slog.Logger
	// Only names the one source to use; empty takes the best that works.
	Only string
}

type opener struct {
	name string
	open func(Options) (Source, error)
}

var openers = []opener{
	{"bpf", newBPF},
	{"proc-connector", newProcConnector},
	{"poll", newPoll},
}

// Open returns the best source that works, and what was tried before it.
func Open(o Options) (Source, []Candidate, error) {
	var tried []Candidate
	for _, c := range openers {
		if o.Only != "" && o.Only != c.name {
			continue
		}
		s, err := c.open(o)
		tried = append(tried, Candidate{c.name, err})
		if err == nil {
			return s, tried, nil
		}
	}
	if len(tried) == 0 {
		return nil, nil, fmt.Errorf("there is no observer %q; take bpf, proc-connector or poll", o.Only)
	}
	return nil, tried, fmt.Errorf("no observer works: %w", tried[len(tried)-1].Err)
}

// Probe opens and closes every source, for `cordon-agent doctor`.
func Probe(o Options) []Candidate {
	var all []Candidate
	for _, c := range openers {
		s, err := c.open(o)
		if err == nil {
			err = s.Close()
		}
		all = append(all, Candidate{c.name, err})
	}
	return all
}

// proof starts a harmless process and waits until heard reports its pid: some
// subscriptions succeed and stay silent.
func proof(heard func(pid int) bool) error {
	cmd := exec.Command("/bin/true")
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("start /bin/true to prove that events arrive: %w", err)
	}
	pid := cmd.Process.Pid
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if heard(pid) {
			return nil
		}
	}
	return fmt.Errorf("the kernel accepted the subscription and delivers nothing: %w", ErrUnavailable)
}

// resync takes over the process table again and again, which repairs what lost
// events left wrong.
func resync(ctx context.Context, fs procfs.FS, h *History, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if table, err := fresh(fs, h); err == nil {
				h.Sync(table)
			}
		}
	}
}

// fresh reads the process table, in detail only where it is new.
func fresh(fs procfs.FS, h *History) (map[int]procfs.Process, error) {
	table, err := fs.Snapshot(false)
	if err != nil {
		return nil, err
	}
	live, _ := h.Processes()
	for pid, p := range table {
		if known, ok := live[pid]; (!ok || known.Start != p.Start) && !p.Kernel {
			fs.Detail(&p)
			table[pid] = p
		}
	}
	return table, nil
}
