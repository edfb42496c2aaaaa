package observe

import (
	"net/netip"
	"sync"
	"time"

	"github.com/cordon-security/cordon/agent/procfs"
)

const (
	maxEndedProcesses   = 8192
	maxEndedConnections = 16384
	maxLiveConnections  = 65536
	maxKeptArgs         = 16
	maxKeptArg          = 256
)

// Process is a process as the history knows it.
type Process struct {
	procfs.Process
	// Parent is who forked it, also when that one ended since; zero when the
	// process is older than the history.
	Parent procfs.ID `json:"parent,omitzero"`
	// Inherited is true of what a process runs since the fork: it did not
	// choose that program itself.
	Inherited bool `json:"inherited,omitempty"`
	// Ended is when it ended; zero while it runs.
	Ended time.Time `json:"ended,omitzero"`
}

// Connection is one TCP connection.
type Connection struct {
	Local  netip.AddrPort `json:"local"`
	Remote netip.AddrPort `json:"remote"`
	// Process opened it; zero when that is not known, as for an accepted one.
	Process procfs.ID `json:"process,omitzero"`
	Opened  time.Time `json:"opened"`
	// Closed is zero while the connection lives.
	Closed time.Time `json:"closed,omitzero"`
}

// History holds what lives and what ended within its time. It is safe for use
// by several goroutines, and bounded: above its bounds the oldest go first.
type History struct {
	keep time.Duration
	now  func() time.Time

	mu     sync.Mutex
	live   map[int]*Process
	ended  []*Process // in the order of their ends
	open   map[uint64]*Connection
	closed []*Connection
}

// NewHistory returns an empty history that forgets what ended longer ago than
// keep. now is the clock; nil means time.Now.
func NewHistory(keep time.Duration, now func() time.Time) *History {
	if now == nil {
		now = time.Now
	}
	return &History{keep: keep, now: now, live: make(map[int]*Process), open: make(map[uint64]*Connection)}
}

// Sync takes over the process table: who is missing in it has ended.
func (h *History) Sync(table map[int]procfs.Process) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for pid, p := range h.live {
		if now, there := table[pid]; !there || now.Start != p.Start {
			h.end(p)
		}
	}
	for pid, p := range table {
		if _, known := h.live[pid]; !known {
			kept := &Process{Process: trim(p)}
			if parent, ok := h.live[p.PPID]; ok {
				kept.Parent = parent.ID
			}
			h.live[pid] = kept
		}
	}
	h.expire()
}

// Fork notes that parent made child.
func (h *History) Fork(parent, child procfs.ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := &Process{Process: procfs.Process{ID: child, PPID: parent.PID}, Parent: parent, Inherited: true}
	if from, ok := h.live[parent.PID]; ok {
		p.Process = from.Process
		p.ID, p.PPID = child, parent.PID
		p.Parent = from.ID
	}
	if old, ok := h.live[child.PID]; ok && old.Start != child.Start {
		h.end(old)
	}
	h.live[child.PID] = p
}

// Exec notes that a process is another program now.
func (h *History) Exec(p procfs.Process) {
	h.mu.Lock()
	defer h.mu.Unlock()
	kept := &Process{Process: trim(p)}
	if old, ok := h.live[p.PID]; ok && (old.Start == p.Start || p.Start == 0) {
		kept.Parent = old.Parent
		kept.Start = old.Start
		// The program that it was before belongs to its story.
		if old.Exe != "" && old.Exe != p.Exe {
			before := *old
			before.Ended = h.now()
			h.ended = append(h.ended, &before)
		}
	}
	h.live[p.PID] = kept
	h.expire()
}

// Exit notes that a process ended.
func (h *History) Exit(id procfs.ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p, ok := h.live[id.PID]; ok && (id.Start == 0 || p.Start == id.Start) {
		h.end(p)
	}
	h.expire()
}

// Connect notes a connection that is being opened or was found open. key names
// it until Close; a repeated call fills in what was not known.
func (h *History) Connect(key uint64, c Connection) {
	h.mu.Lock()
	defer h.mu.Unlock()
	old, ok := h.open[key]
	if !ok {
		if len(h.open) >= maxLiveConnections {
			return
		}
		if c.Opened.IsZero() {
			c.Opened = h.now()
		}
		h.open[key] = &c
		return
	}
	if c.Local.Port() != 0 {
		old.Local = c.Local
	}
	if c.Remote.Port() != 0 {
		old.Remote = c.Remote
	}
	if c.Process.PID != 0 {
		old.Process = c.Process
	}
}

// Close notes that a connection ended.
func (h *History) Close(key uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c, ok := h.open[key]
	if !ok {
		return
	}
	delete(h.open, key)
	if c.Remote.Port() != 0 {
		c.Closed = h.now()
		h.closed = append(h.closed, c)
	}
	h.expire()
}

// OpenKeys lists the connections that have not ended.
func (h *History) OpenKeys() []uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	keys := make([]uint64, 0, len(h.open))
	for k := range h.open {
		keys = append(keys, k)
	}
	return keys
}

// Known reports whether a connection is in the history and its process known.
func (h *History) Known(key uint64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	c, ok := h.open[key]
	return ok && c.Process.PID != 0
}

// Find returns the connections with the remote side, and with the local port
// when it is not 0, newest first.
func (h *History) Find(remote netip.AddrPort, localPort uint16) []Connection {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.expire()
	match := func(c *Connection) bool {
		// The local port is unknown of a connection that never was established.
		return c.Remote == remote && (localPort == 0 || c.Local.Port() == 0 || c.Local.Port() == localPort)
	}
	var found []Connection
	for _, c := range h.open {
		if match(c) {
			found = merge(found, *c)
		}
	}
	for i := len(h.closed) - 1; i >= 0; i-- {
		if match(h.closed[i]) {
			found = merge(found, *h.closed[i])
		}
	}
	return found
}

// merge adds a connection, or joins it to the one that it is: a connection that
// opens while the table is first read is noted under its cookie and under its
// kernel address, and two with the same ends cannot live at the same time.
func merge(found []Connection, c Connection) []Connection {
	for i := range found {
		f := &found[i]
		if f.Local != c.Local || f.Remote != c.Remote || !overlap(*f, c) {
			continue
		}
		if f.Process.PID == 0 {
			f.Process = c.Process
		}
		if c.Opened.Before(f.Opened) {
			f.Opened = c.Opened
		}
		if f.Closed.IsZero() {
			f.Closed = c.Closed
		}
		return found
	}
	return append(found, c)
}

func overlap(a, b Connection) bool {
	return (a.Closed.IsZero() || !a.Closed.Before(b.Opened)) && (b.Closed.IsZero() || !b.Closed.Before(a.Opened))
}

// Processes returns what runs and what ended, the latter in order.
func (h *History) Processes() (live map[int]Process, ended []Process) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.expire()
	live = make(map[int]Process, len(h.live))
	for pid, p := range h.live {
		live[pid] = *p
	}
	ended = make([]Process, len(h.ended))
	for i, p := range h.ended {
		ended[i] = *p
	}
	return live, ended
}

func (h *History) end(p *Process) {
	delete(h.live, p.PID)
	if p.Kernel {
		return
	}
	p.Ended = h.now()
	h.ended = append(h.ended, p)
}

func (h *History) expire() {
	before := h.now().Add(-h.keep)
	i := max(0, len(h.ended)-maxEndedProcesses)
	for i < len(h.ended) && h.ended[i].Ended.Before(before) {
		i++
	}
	h.ended = drop(h.ended, i)
	i = max(0, len(h.closed)-maxEndedConnections)
	for i < len(h.closed) && h.closed[i].Closed.Before(before) {
		i++
	}
	h.closed = drop(h.closed, i)
}

// drop removes the first n without keeping them reachable.
func drop[T any](s []*T, n int) []*T {
	clear(s[:n])
	return s[n:]
}

// trim bounds what is kept of a process.
func trim(p procfs.Process) procfs.Process {
	if len(p.Args) > maxKeptArgs {
		p.Args = p.Args[:maxKeptArgs:maxKeptArgs]
	}
	for i, a := range p.Args {
		if len(a) > maxKeptArg {
			p.Args[i] = a[:maxKeptArg]
		}
	}
	return p
}
