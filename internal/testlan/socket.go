package testlan

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// NetNS runs f on a thread that is in the host's network: sockets that f opens
// are the host's, and stay so when used elsewhere. Goroutines that f starts are
// not in it. f must return: no t.Fatal, no runtime.Goexit.
func (h *Host) NetNS(f func() error) error {
	result := make(chan error, 1)
	offMainThread(func() {
		if err := unix.Setns(int(h.netns), unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("enter the network of %s: %w", h.name, err)
			return
		}
		result <- f()
	})
	return <-result
}

// Do runs f on a thread that is in all namespaces of the host: paths are the
// host's, sockets too, and processes that f starts. Calls of one host wait for
// each other. f must return: no t.Fatal, no runtime.Goexit.
func (h *Host) Do(f func() error) error { return h.inside.do(f) }

// Dial connects from the host. The address of a network connection is an IP
// literal with a port; that of "unix" is a path of the host.
func (h *Host) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	var conn net.Conn
	dial := func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	}
	var err error
	switch {
	case strings.HasPrefix(network, "unix"):
		err = h.Do(dial)
	case literal(address) != nil:
		err = literal(address)
	default:
		err = h.NetNS(dial)
	}
	if err != nil {
		return nil, fmt.Errorf("dial from %s: %w", h.name, err)
	}
	return conn, nil
}

// literal refuses a host name: looking it up would ask the machine's resolver.
func literal(address string) error {
	if _, err := netip.ParseAddrPort(address); err != nil {
		return fmt.Errorf("address %q is not an IP address with a port: %w", address, err)
	}
	return nil
}

// Listen listens in the host for connections (tcp, or unix with a path of the
// host).
func (h *Host) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	var l net.Listener
	listen := func() (err error) {
		l, err = (&net.ListenConfig{}).Listen(ctx, network, address)
		return err
	}
	enter := h.NetNS
	if strings.HasPrefix(network, "unix") {
		enter = h.Do
	}
	if err := enter(listen); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", h.name, err)
	}
	return l, nil
}

// ListenPacket listens in the host for datagrams.
func (h *Host) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	var c net.PacketConn
	err := h.NetNS(func() (err error) {
		c, err = (&net.ListenConfig{}).ListenPacket(ctx, network, address)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", h.name, err)
	}
	return c, nil
}

// DialTCP tells whether a TCP connection from the host can be made: nil, or
// why not.
func (h *Host) DialTCP(ctx context.Context, to netip.AddrPort) error {
	conn, err := h.Dial(ctx, "tcp", to.String())
	if err != nil {
		return err
	}
	return errors.Join(conn.Close())
}
