package observe

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"

	"github.com/cordon-security/cordon/agent/procfs"
	"github.com/cordon-security/cordon/agent/sockdiag"
)

const (
	ringSize     = 1 << 20
	resyncPeriod = time.Minute
	tick         = 10 * time.Millisecond // USER_HZ
)

// bpfSource hears raw tracepoints through BPF programs.
type bpfSource struct {
	o      Options
	ring   *ebpf.Map
	reader *ringbuf.Reader
	progs  []*ebpf.Program
	links  []link.Link
}

func newBPF(o Options) (Source, error) {
	// Kernels before 5.11 count maps against this limit; later ones ignore it.
	_ = rlimit.RemoveMemlock()
	at, err := kernelOffsets()
	if err != nil {
		return nil, err
	}
	// The type information took megabytes that are not needed again.
	defer debug.FreeOSMemory()
	b := &builder{offsets: at}
	if b.level, err = namespaceLevel(at); err != nil {
		return nil, err
	}
	if b.pidInum, err = namespace("/proc/self/ns/pid"); err != nil {
		return nil, err
	}
	if b.netInm, err = namespace("/proc/self/ns/net"); err != nil {
		return nil, err
	}
	s := &bpfSource{o: o}
	if err := s.attach(b); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

func (s *bpfSource) attach(b *builder) (err error) {
	s.ring, err = ebpf.NewMap(&ebpf.MapSpec{Name: "cordon_events", Type: ebpf.RingBuf, MaxEntries: ringSize})
	if err != nil {
		return fmt.Errorf("make the ring of events: %w", err)
	}
	b.ring = s.ring
	if s.reader, err = ringbuf.NewReader(s.ring); err != nil {
		return fmt.Errorf("open the ring of events: %w", err)
	}
	for _, p := range []struct {
		point string
		ins   asm.Instructions
	}{
		{"sched_process_fork", b.fork()},
		{"sched_process_exec", b.exec()},
		{"sched_process_exit", b.exit()},
		{"inet_sock_set_state", b.socket()},
	} {
		prog, err := newProgram("cordon", p.ins)
		if err != nil {
			return fmt.Errorf("%s: %w", p.point, err)
		}
		s.progs = append(s.progs, prog)
		l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: p.point, Program: prog})
		if err != nil {
			return fmt.Errorf("attach to %s: %w", p.point, err)
		}
		s.links = append(s.links, l)
	}
	return s.prove()
}

// prove reads the ring until the process that proof starts appears in it.
func (s *bpfSource) prove() error {
	return proof(func(pid int) bool {
		for {
			s.reader.SetDeadline(time.Now().Add(time.Millisecond))
			r, err := s.reader.Read()
			if err != nil {
				return false
			}
			if len(r.RawSample) >= execSize && kind(r.RawSample) == kindExec && eventPID(r.RawSample, 4) == pid {
				return true
			}
		}
	})
}

func (s *bpfSource) Name() string { return "bpf" }

func (s *bpfSource) Close() error {
	var errs []error
	for _, l := range s.links {
		errs = append(errs, l.Close())
	}
	for _, p := range s.progs {
		errs = append(errs, p.Close())
	}
	if s.reader != nil {
		errs = append(errs, s.reader.Close())
	}
	if s.ring != nil {
		errs = append(errs, s.ring.Close())
	}
	return errors.Join(errs...)
}

func (s *bpfSource) Run(ctx context.Context, h *History) error {
	s.reader.SetDeadline(time.Time{})
	// Connections that are older than the programs are known by their cookies.
	hearDestroyed(ctx, h, false)
	if err := seed(s.o.Proc, h); err != nil {
		return err
	}
	go resync(ctx, s.o.Proc, h, resyncPeriod)
	stop := context.AfterFunc(ctx, func() { _ = s.reader.Close() })
	defer stop()
	var record ringbuf.Record
	for {
		err := s.reader.ReadInto(&record)
		if errors.Is(err, ringbuf.ErrClosed) {
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("read BPF events: %w", err)
		}
		s.take(h, record.RawSample)
	}
}

func (s *bpfSource) take(h *History, b []byte) {
	if len(b) < exitSize {
		return
	}
	id := eventID(b, 4, 8)
	switch k := kind(b); {
	case k == kindFork && len(b) >= forkSize:
		h.Fork(id, eventID(b, 16, 24))
	case k == kindExec && len(b) >= execSize:
		for _, p := range s.executed(id, b[16:execSize]) {
			h.Exec(p)
		}
	case k == kindExit && !s.o.Proc.Outlived(id):
		// Other threads may outlive the first; the next look at the table sees
		// their end.
		h.Exit(id)
	case k == kindSocket && len(b) >= socketSize:
		takeSocket(h, id, b)
	}
}

// executed looks at a process that has just become another program, and falls
// back to what the event says when the process is gone already. One that has
// become yet another by then is both, in that order: a program that hides behind
// the next one must not be missed because the event was read late.
func (s *bpfSource) executed(id procfs.ID, event []byte) []procfs.Process {
	name := string(event[:max(bytes.IndexByte(event, 0), 0)])
	p, err := s.o.Proc.Stat(id.PID)
	if err != nil || p.Start != id.Start {
		return []procfs.Process{{ID: id, Exe: name}}
	}
	s.o.Proc.Detail(&p)
	if p.Exe == "" {
		p.Exe = name
	}
	if began, another := s.overtaken(p, name); another {
		return []procfs.Process{began, p}
	}
	return []procfs.Process{p}
}

// overtaken reports what a process began as by an event's word, if that is not
// what it is now. The name of a script stands among its interpreter's arguments;
// one that is relative, or that names a descriptor, leads nowhere any more.
func (s *bpfSource) overtaken(p procfs.Process, name string) (began procfs.Process, another bool) {
	if !strings.HasPrefix(name, "/") || strings.HasPrefix(name, "/dev/fd/") || strings.HasPrefix(name, "/proc/") ||
		name == p.Exe || slices.Contains(p.Args, name) || len(name) >= nameSize-1 {
		return began, false
	}
	began = s.o.Proc.Began(p.ID, name)
	return began, began.Exe != p.Exe && (began.ExeFile != p.ExeFile || began.ExeFile == procfs.FileID{})
}

func takeSocket(h *History, id procfs.ID, b []byte) {
	key := binary.NativeEndian.Uint64(b[16:])
	if binary.NativeEndian.Uint32(b[24:]) == stateClose {
		h.Close(key)
		return
	}
	address := func(at int) netip.Addr {
		if binary.NativeEndian.Uint16(b[28:]) == syscall.AF_INET6 {
			return netip.AddrFrom16([16]byte(b[at : at+16])).Unmap()
		}
		return netip.AddrFrom4([4]byte(b[at : at+4]))
	}
	c := Connection{
		Local:  netip.AddrPortFrom(address(40), binary.NativeEndian.Uint16(b[32:])),
		Remote: netip.AddrPortFrom(address(56), binary.BigEndian.Uint16(b[30:])),
	}
	if id.PID != 0 {
		c.Process = id
	}
	h.Connect(key, c)
}

func kind(b []byte) uint32 { return binary.NativeEndian.Uint32(b) }

func eventPID(b []byte, at int) int { return int(binary.NativeEndian.Uint32(b[at:])) }

func eventID(b []byte, pid, start int) procfs.ID {
	ns := binary.NativeEndian.Uint64(b[start:])
	return procfs.ID{PID: eventPID(b, pid), Start: ns / uint64(tick)}
}

// namespace returns the inode number of a namespace.
func namespace(path string) (uint32, error) {
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return uint32(st.Ino), nil
}

// seed puts what is there already into the history.
func seed(fs procfs.FS, h *History) error {
	table, err := fresh(fs, h)
	if err != nil {
		return err
	}
	h.Sync(table)
	sockets, err := sockdiag.List()
	if err != nil {
		return err
	}
	return found(fs, h, sockets)
}

// found notes connections that sock_diag lists, by cookie. A cookie is no kernel
// address, so these keys never meet those of BPF events.
func found(fs procfs.FS, h *History, sockets []sockdiag.Socket) error {
	wanted := make(map[uint64]bool)
	for _, s := range sockets {
		if tracked(s) && s.Inode != 0 && !h.Known(s.Cookie) {
			wanted[s.Inode] = true
		}
	}
	holders, err := fs.SocketHolders(wanted)
	if err != nil {
		return err
	}
	for _, s := range sockets {
		if !tracked(s) {
			continue
		}
		c := Connection{Local: s.Local, Remote: s.Remote}
		if pids := holders[s.Inode]; s.Inode != 0 && len(pids) > 0 {
			if p, err := fs.Stat(pids[0]); err == nil {
				c.Process = p.ID
			}
		}
		h.Connect(s.Cookie, c)
	}
	return nil
}

func tracked(s sockdiag.Socket) bool {
	return s.Protocol == syscall.IPPROTO_TCP && s.State != sockdiag.Listen && s.State != sockdiag.TimeWait && s.Remote.Port() != 0
}
