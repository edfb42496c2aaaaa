package observe

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/cordon-security/cordon/agent/procfs"
)

// connectorSource hears the kernel's proc connector (cn_proc.h), which speaks
// only in the initial network namespace and names initial pids.
type connectorSource struct {
	o      Options
	events chan netlink.ProcEvent
	errs   chan error
	done   chan struct{}
	stop   sync.Once
}

func newProcConnector(o Options) (Source, error) {
	s := &connectorSource{
		o:      o,
		events: make(chan netlink.ProcEvent, 4096),
		errs:   make(chan error, 16),
		done:   make(chan struct{}),
	}
	if err := netlink.ProcEventMonitor(s.events, s.done, s.errs); err != nil {
		return nil, fmt.Errorf("subscribe to the proc connector: %w", err)
	}
	err := proof(func(pid int) bool {
		for {
			select {
			case e := <-s.events:
				if x, ok := e.Msg.(*netlink.ExecProcEvent); ok && int(x.ProcessTgid) == pid {
					return true
				}
			default:
				return false
			}
		}
	})
	if err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

func (s *connectorSource) Name() string { return "proc-connector" }

func (s *connectorSource) Close() error {
	s.stop.Do(func() { close(s.done) })
	return nil
}

func (s *connectorSource) Run(ctx context.Context, h *History) error {
	table, err := fresh(s.o.Proc, h)
	if err != nil {
		return err
	}
	h.Sync(table)
	go resync(ctx, s.o.Proc, h, resyncPeriod)
	go pollSockets(ctx, s.o.Proc, h)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.errs:
			// Events were lost or one was unreadable: look at the whole table.
			if table, err := fresh(s.o.Proc, h); err == nil {
				h.Sync(table)
			}
			time.Sleep(100 * time.Millisecond)
		case e, ok := <-s.events:
			if !ok {
				return fmt.Errorf("the proc connector ended: %w", ErrUnavailable)
			}
			s.take(h, e)
		}
	}
}

func (s *connectorSource) take(h *History, e netlink.ProcEvent) {
	switch m := e.Msg.(type) {
	case *netlink.ForkProcEvent:
		if m.ChildPid != m.ChildTgid {
			return // A thread.
		}
		if child, err := s.o.Proc.Stat(int(m.ChildTgid)); err == nil {
			h.Fork(procfs.ID{PID: int(m.ParentTgid)}, child.ID)
		}
	case *netlink.ExecProcEvent:
		if p, err := s.o.Proc.Stat(int(m.ProcessTgid)); err == nil {
			s.o.Proc.Detail(&p)
			h.Exec(p)
		}
	case *netlink.ExitProcEvent:
		if m.ProcessPid == m.ProcessTgid && !s.o.Proc.Outlived(procfs.ID{PID: int(m.ProcessTgid)}) {
			h.Exit(procfs.ID{PID: int(m.ProcessTgid)})
		}
	}
}
