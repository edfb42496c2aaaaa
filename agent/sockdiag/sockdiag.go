// Package sockdiag lists and destroys sockets by sock_diag(7), and hears of TCP
// sockets that the kernel destroys. All of it is about the network namespace of
// the calling thread.
package sockdiag

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	byFamily = 20 // SOCK_DIAG_BY_FAMILY
	destroy  = 21 // SOCK_DESTROY

	requestSize = 56
	messageSize = 72

	tcpDestroyGroup  = 1 // SKNLGRP_INET_TCP_DESTROY
	tcp6DestroyGroup = 3 // SKNLGRP_INET6_TCP_DESTROY

	// receiveBuffer holds a burst of destroy notifications: with the default
	// of 208 kB most of a few thousand are lost.
	receiveBuffer = 32 << 20
)

// TCP states of tcp_states.h.
const (
	Established = 1
	SynSent     = 2
	TimeWait    = 6
	Closed      = 7
	Listen      = 10
)

// Socket is one inet socket.
type Socket struct {
	// Protocol is unix.IPPROTO_TCP or unix.IPPROTO_UDP.
	Protocol uint8
	State    uint8
	Local    netip.AddrPort
	// Remote is the zero address with port 0 for a socket that is not connected.
	Remote netip.AddrPort
	// Cookie names the socket as long as the machine is up.
	Cookie uint64
	// Inode is 0 for a socket that no process holds any more (TIME_WAIT).
	Inode uint64
	UID   uint32

	family uint8
	id     [48]byte // struct inet_diag_sockid
}

// List returns the TCP and UDP sockets, IPv4 and IPv6.
func List() ([]Socket, error) {
	c, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
	if err != nil {
		return nil, fmt.Errorf("open sock_diag: %w", err)
	}
	defer c.Close()
	var all []Socket
	for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			some, err := list(c, family, protocol)
			if err != nil {
				return nil, err
			}
			all = append(all, some...)
		}
	}
	return all, nil
}

func list(c *netlink.Conn, family, protocol uint8) ([]Socket, error) {
	messages, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: byFamily, Flags: netlink.Request | netlink.Dump},
		Data:   request(family, protocol, ^uint32(0), nil),
	})
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // This kernel has no such protocol.
	}
	if err != nil {
		return nil, fmt.Errorf("list sockets of protocol %d: %w", protocol, err)
	}
	sockets := make([]Socket, 0, len(messages))
	for _, m := range messages {
		if s, ok := parse(m.Data); ok {
			s.Protocol = protocol
			sockets = append(sockets, s)
		}
	}
	return sockets, nil
}

// request builds struct inet_diag_req_v2.
func request(family, protocol uint8, states uint32, id []byte) []byte {
	b := make([]byte, requestSize)
	b[0], b[1] = family, protocol
	binary.NativeEndian.PutUint32(b[4:], states)
	copy(b[8:], id)
	return b
}

// parse reads struct inet_diag_msg.
func parse(b []byte) (Socket, bool) {
	if len(b) < messageSize {
		return Socket{}, false
	}
	s := Socket{family: b[0], State: b[1]}
	copy(s.id[:], b[4:52])
	s.Local = endpoint(s.family, b[8:24], b[4:6])
	s.Remote = endpoint(s.family, b[24:40], b[6:8])
	s.Cookie = binary.NativeEndian.Uint64(b[44:52])
	s.UID = binary.NativeEndian.Uint32(b[64:68])
	s.Inode = uint64(binary.NativeEndian.Uint32(b[68:72]))
	return s, true
}

func endpoint(family uint8, address, port []byte) netip.AddrPort {
	var a netip.Addr
	if family == unix.AF_INET {
		a = netip.AddrFrom4([4]byte(address[:4]))
	} else {
		a = netip.AddrFrom16([16]byte(address)).Unmap()
	}
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(port))
}

// Destroy ends a TCP socket at once, as `ss -K` does: both sides get a reset.
// A socket that is gone already is no error.
func Destroy(s Socket) error {
	c, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
	if err != nil {
		return fmt.Errorf("open sock_diag: %w", err)
	}
	defer c.Close()
	_, err = c.Execute(netlink.Message{
		Header: netlink.Header{Type: destroy, Flags: netlink.Request | netlink.Acknowledge},
		Data:   request(s.family, s.Protocol, ^uint32(0), s.id[:]),
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("destroy the connection to %s: %w", s.Remote, err)
	}
	return nil
}

// Destroyed hears of TCP sockets that the kernel destroys. The notifications
// carry no inode, and after a reset no remote address: join them by cookie.
type Destroyed struct{ c *netlink.Conn }

// NewDestroyed subscribes; it needs CAP_NET_ADMIN.
func NewDestroyed() (*Destroyed, error) {
	c, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, &netlink.Config{Groups: 1<<(tcpDestroyGroup-1) | 1<<(tcp6DestroyGroup-1)})
	if err != nil {
		return nil, fmt.Errorf("subscribe to destroyed sockets: %w", err)
	}
	if err := force(c); err != nil {
		_ = c.Close()
		return nil, err
	}
	return &Destroyed{c: c}, nil
}

func force(c *netlink.Conn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return fmt.Errorf("set the receive buffer: %w", err)
	}
	var set error
	if err := raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer)
	}); err != nil {
		return fmt.Errorf("set the receive buffer: %w", err)
	}
	if set != nil {
		return fmt.Errorf("set the receive buffer: %w", set)
	}
	return nil
}

// Receive blocks until some sockets were destroyed. It returns an error that
// wraps unix.ENOBUFS when notifications were lost; the next call goes on.
func (d *Destroyed) Receive() ([]Socket, error) {
	messages, err := d.c.Receive()
	if err != nil {
		return nil, fmt.Errorf("hear of destroyed sockets: %w", err)
	}
	var sockets []Socket
	for _, m := range messages {
		if s, ok := parse(m.Data); ok {
			s.Protocol = unix.IPPROTO_TCP
			sockets = append(sockets, s)
		}
	}
	return sockets, nil
}

// Close ends a Receive that waits.
func (d *Destroyed) Close() error { return d.c.Close() }
