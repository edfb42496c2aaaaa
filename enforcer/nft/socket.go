package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// socket is a lasting NETLINK_NETFILTER socket for set elements. It stands
// below google/nftables, which cuts off what does not fit a message, loses its
// place among the acknowledgements after an error, reads dumps in pages of 4 kB
// (the kernel walks a hash set from its start for each), and cannot ask for
// single elements. It is not safe for concurrent use.
type socket struct {
	fd   int
	port uint32
	seq  uint32
	buf  []byte
}

const (
	socketBuffer = 16 << 20
	// replyTimeout is generous: the kernel answers while it is asked.
	replyTimeout = 10 * time.Second
	// recvBuffer is larger than the largest piece of a dump (32 kB).
	recvBuffer = 1 << 16
)

// errUnknownState says that acknowledgements were lost: what was asked for may
// have been done or not, and must be read back.
var errUnknownState = errors.New("the kernel's answers were lost; what is in force must be read back")

func dial() (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	s := &socket{fd: fd, buf: make([]byte, recvBuffer)}
	if err := s.setUp(); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	return s, nil
}

func (s *socket) setUp() error {
	if err := unix.Bind(s.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	name, err := unix.Getsockname(s.fd)
	if err != nil {
		return err
	}
	s.port = name.(*unix.SockaddrNetlink).Pid
	for _, option := range []int{unix.SO_SNDBUFFORCE, unix.SO_RCVBUFFORCE} {
		if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, option, socketBuffer); err != nil {
			return fmt.Errorf("raise its buffers (CAP_NET_ADMIN is needed): %w", err)
		}
	}
	tv := unix.NsecToTimeval(int64(replyTimeout))
	return unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
}

func (s *socket) close() { _ = unix.Close(s.fd) }

func (s *socket) send(b []byte) error {
	for {
		err := unix.Sendto(s.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// message is one netlink message as it came.
type message struct {
	kind, flags uint16
	seq, port   uint32
	data        []byte
}

// receive calls each for every message of the next datagram. What it is handed
// is valid during the call.
func (s *socket) receive(each func(message) error) error {
	n, _, err := unix.Recvfrom(s.fd, s.buf, 0)
	for errors.Is(err, unix.EINTR) {
		n, _, err = unix.Recvfrom(s.fd, s.buf, 0)
	}
	if err != nil {
		return err
	}
	for b := s.buf[:n]; len(b) >= unix.NLMSG_HDRLEN; {
		length := int(binary.NativeEndian.Uint32(b))
		if length < unix.NLMSG_HDRLEN || length > len(b) {
			return fmt.Errorf("netlink: a message of %d bytes in %d", length, len(b))
		}
		m := message{
			kind: binary.NativeEndian.Uint16(b[4:]), flags: binary.NativeEndian.Uint16(b[6:]),
			seq: binary.NativeEndian.Uint32(b[8:]), port: binary.NativeEndian.Uint32(b[12:]),
			data: b[unix.NLMSG_HDRLEN:length],
		}
		if err := each(m); err != nil {
			return err
		}
		b = b[min(align(length), len(b)):]
	}
	return nil
}

func align(n int) int { return (n + 3) &^ 3 }

// errno is the code of an NLMSG_ERROR message; nil is an acknowledgement.
func (m message) errno() error {
	if len(m.data) < 4 {
		return errUnknownState
	}
	if code := int32(binary.NativeEndian.Uint32(m.data)); code != 0 {
		return syscall.Errno(-code)
	}
	return nil
}

// outgoing builds what is sent.
type outgoing struct {
	b    []byte
	last int
}

func (o *outgoing) reset() { o.b, o.last = o.b[:0], 0 }

// begin starts a message with its nfgenmsg header.
func (o *outgoing) begin(kind uint16, flags uint16, seq uint32, family byte, resource uint16) {
	o.last = len(o.b)
	o.b = append(o.b, 0, 0, 0, 0)
	o.b = binary.NativeEndian.AppendUint16(o.b, kind)
	o.b = binary.NativeEndian.AppendUint16(o.b, flags)
	o.b = binary.NativeEndian.AppendUint32(o.b, seq)
	o.b = append(o.b, 0, 0, 0, 0, family, 0)
	o.b = binary.BigEndian.AppendUint16(o.b, resource)
}

func (o *outgoing) end() {
	binary.NativeEndian.PutUint32(o.b[o.last:], uint32(len(o.b)-o.last))
}

func (o *outgoing) attribute(kind uint16, value []byte, zero bool) {
	n := 4 + len(value)
	if zero {
		n++
	}
	o.b = binary.NativeEndian.AppendUint16(o.b, uint16(n))
	o.b = binary.NativeEndian.AppendUint16(o.b, kind)
	o.b = append(o.b, value...)
	for pad := 4 + len(value); pad < align(n); pad++ {
		o.b = append(o.b, 0)
	}
}

func (o *outgoing) text(kind uint16, s string) { o.attribute(kind, []byte(s), true) }

// nest opens a nested attribute; close it with unnest.
func (o *outgoing) nest(kind uint16) int {
	at := len(o.b)
	o.b = append(o.b, 0, 0)
	o.b = binary.NativeEndian.AppendUint16(o.b, kind|unix.NLA_F_NESTED)
	return at
}

func (o *outgoing) unnest(at int) {
	binary.NativeEndian.PutUint16(o.b[at:], uint16(len(o.b)-at))
}

// attributes calls each for every attribute in b, and stops at what is not one.
func attributes(b []byte, each func(kind uint16, value []byte)) {
	for len(b) >= 4 {
		n := int(binary.NativeEndian.Uint16(b))
		if n < 4 || n > len(b) {
			return
		}
		each(binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[4:n])
		b = b[min(align(n), len(b)):]
	}
}
