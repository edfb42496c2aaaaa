package nft

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/cordon-security/cordon/enforcer/reconcile"
)

// Change is what somebody else did to our tables in one transaction.
type Change struct {
	// Tables says that tables, chains, rules or whole sets changed.
	Tables bool
	// Members are the elements that changed, when the tables did not; their
	// Access means nothing.
	Members []reconcile.Member
	// Overrun says that notifications were lost: everything must be read back.
	Overrun bool
	// By names the program, as far as the kernel says.
	By string
}

// maxMembers is up to how many changed elements are looked at one by one.
const maxMembers = 4096

// watcher listens to nf_tables notifications. A filter in the kernel drops
// those that our own transactions cause, by the port they were sent from.
type watcher struct {
	fd   int
	once sync.Once
	end  int // the writing end of a pipe whose closing ends the wait
	wait int
	done bool // the reader's: its ends are closed
}

// Watch begins to listen, and returns what waits for the next change, for one
// goroutine. Call it before the first Prune, so that nothing changes unseen
// between the two. Its errors but ErrClosed pass: it can be called again.
func (m *Method) Watch() (next func() (Change, error), err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w, err := newWatcher()
	if err != nil {
		return nil, fmt.Errorf("listen to nf_tables: %w", err)
	}
	if err := w.ignore(m.sock.port, m.skeleton.port); err != nil {
		w.close()
		return nil, fmt.Errorf("listen to nf_tables: %w", err)
	}
	if err := unix.SetsockoptInt(w.fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, unix.NFNLGRP_NFTABLES); err != nil {
		w.close()
		return nil, fmt.Errorf("listen to nf_tables: %w", err)
	}
	m.watcher = w
	s := &socket{fd: w.fd, buf: make([]byte, recvBuffer)}
	return func() (Change, error) { return w.next(s) }, nil
}

func newWatcher() (*watcher, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	var pipe [2]int
	err = errors.Join(
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, socketBuffer),
		unix.Pipe2(pipe[:], unix.O_CLOEXEC))
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return &watcher{fd: fd, wait: pipe[0], end: pipe[1]}, nil
}

func (w *watcher) close() { w.once.Do(func() { _ = unix.Close(w.end) }) }

// ignore drops what comes from these ports before it wakes anybody.
func (w *watcher) ignore(ports ...uint32) error {
	// nlmsg_pid stands at byte 12 in this machine's order; BPF loads big endian.
	program := []bpf.Instruction{bpf.LoadAbsolute{Off: 12, Size: 4}}
	for i, port := range ports {
		var raw [4]byte
		binary.NativeEndian.PutUint32(raw[:], port)
		program = append(program, bpf.JumpIf{
			Cond: bpf.JumpEqual, Val: binary.BigEndian.Uint32(raw[:]), SkipTrue: uint8(len(ports) - i),
		})
	}
	program = append(program, bpf.RetConstant{Val: 1 << 31}, bpf.RetConstant{Val: 0})
	raw, err := bpf.Assemble(program)
	if err != nil {
		return err
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, in := range raw {
		filter[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	return unix.SetsockoptSockFprog(w.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
}

// ErrClosed says that the method was closed.
var ErrClosed = errors.New("nftables: closed")

// next waits for a transaction of somebody else that touched our tables.
func (w *watcher) next(s *socket) (Change, error) {
	var c Change
	touched := false
	for {
		if err := w.ready(); err != nil {
			return Change{}, err
		}
		complete := false
		err := s.receive(func(m message) error {
			if m.kind == nftType(unix.NFT_MSG_NEWGEN) {
				complete, c.By = true, generation(m.data)
				return nil
			}
			touched = c.note(m) || touched
			return nil
		})
		if errors.Is(err, unix.ENOBUFS) {
			return Change{Overrun: true, By: "somebody, faster than this program could follow"}, nil
		}
		if err != nil {
			return Change{}, err
		}
		if complete && touched {
			return c, nil
		}
		if complete {
			c = Change{}
		}
	}
}

// ready waits for something to read. Once the method is closed it returns
// ErrClosed, now and at every later call; after any other error it can be called
// again.
func (w *watcher) ready() error {
	if w.done {
		return ErrClosed
	}
	fds := []unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}, {Fd: int32(w.wait), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds, -1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if fds[1].Revents != 0 {
			w.done = true
			_ = unix.Close(w.fd)
			_ = unix.Close(w.wait)
			return ErrClosed
		}
		return nil
	}
}

// note takes in one notification; it reports whether it is about our tables.
func (c *Change) note(m message) bool {
	if len(m.data) < 4 || m.kind>>8 != unix.NFNL_SUBSYS_NFTABLES {
		return false
	}
	ours, set := false, ""
	attributes(m.data[4:], func(kind uint16, value []byte) {
		text := string(bytes.TrimRight(value, "\x00"))
		switch kind {
		case 1: // the table's name in every message of nf_tables
			ours = text == tableName
		case unix.NFTA_SET_ELEM_LIST_SET:
			set = text
		}
	})
	family := m.data[0]
	if !ours || (family != inet && family != bridge) {
		return false
	}
	kind := m.kind & 0xff
	isElement := kind == unix.NFT_MSG_NEWSETELEM || kind == unix.NFT_MSG_DELSETELEM
	if !isElement || slices.Contains([]string{setAllow4, setAllow6, setReserved4, setReserved6}, set) || len(c.Members) >= maxMembers {
		c.Tables = true
		c.Overrun = c.Overrun || isElement && len(c.Members) >= maxMembers
		return true
	}
	elements(m.data, func(k key) { c.Members = append(c.Members, k.member()) })
	return true
}

// generation is who made a transaction, out of NFT_MSG_NEWGEN.
func generation(data []byte) string {
	name, pid := "an unknown program", uint32(0)
	if len(data) < 4 {
		return name
	}
	attributes(data[4:], func(kind uint16, value []byte) {
		switch {
		case kind == unix.NFTA_GEN_PROC_NAME:
			name = string(bytes.TrimRight(value, "\x00"))
		case kind == unix.NFTA_GEN_PROC_PID && len(value) == 4:
			pid = binary.BigEndian.Uint32(value)
		}
	})
	return fmt.Sprintf("%s (process %d)", name, pid)
}
