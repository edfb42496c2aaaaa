package observe

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cordon-security/cordon/agent/procfs"
	"github.com/cordon-security/cordon/agent/sockdiag"
)

const pollPeriod = 2 * time.Second

// pollSource reads /proc and sock_diag again and again. It misses what lives
// shorter than its period, but for connections that it saw once it hears of
// their end.
type pollSource struct{ o Options }

func newPoll(o Options) (Source, error) { return &pollSource{o: o}, nil }

func (s *pollSource) Name() string { return "poll" }

func (s *pollSource) Close() error { return nil }

func (s *pollSource) Run(ctx context.Context, h *History) error {
	go pollSockets(ctx, s.o.Proc, h)
	tick := time.NewTicker(pollPeriod)
	defer tick.Stop()
	for {
		table, err := fresh(s.o.Proc, h)
		if err != nil {
			return err
		}
		h.Sync(table)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// pollSockets keeps the history's connections from sock_diag, and from destroy
// notifications where the rights allow them.
func pollSockets(ctx context.Context, fs procfs.FS, h *History) {
	heard := hearDestroyed(ctx, h, true)
	tick := time.NewTicker(pollPeriod)
	defer tick.Stop()
	for {
		if sockets, err := sockdiag.List(); err == nil {
			_ = found(fs, h, sockets)
			if !heard {
				closeMissing(h, sockets)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// hearDestroyed closes connections in the history as the kernel destroys them,
// and reports whether it can. When unknown is set it also notes those that the
// history meets for the first time at their end.
func hearDestroyed(ctx context.Context, h *History, unknown bool) bool {
	d, err := sockdiag.NewDestroyed()
	if err != nil {
		return false
	}
	context.AfterFunc(ctx, func() { _ = d.Close() })
	go func() {
		for {
			sockets, err := d.Receive()
			if err != nil && !errors.Is(err, unix.ENOBUFS) {
				return
			}
			for _, s := range sockets {
				if unknown && s.Remote.Port() != 0 && s.Remote.Addr().IsValid() {
					h.Connect(s.Cookie, Connection{Local: s.Local, Remote: s.Remote})
				}
				h.Close(s.Cookie)
			}
		}
	}()
	return true
}

func closeMissing(h *History, sockets []sockdiag.Socket) {
	there := make(map[uint64]bool, len(sockets))
	for _, s := range sockets {
		there[s.Cookie] = true
	}
	for _, key := range h.OpenKeys() {
		if !there[key] {
			h.Close(key)
		}
	}
}
