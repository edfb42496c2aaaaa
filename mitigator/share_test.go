package mitigator

import (
	"net"
	"net/netip"
	"testing"
)

// fakeListener gives out connections from the addresses that it is told.
type fakeListener struct {
	net.Listener
	from chan net.Addr
}

// Accept implements net.Listener.
func (l fakeListener) Accept() (net.Conn, error) {
	a, ok := <-l.from
	if !ok {
		return nil, net.ErrClosed
	}
	return &fakeConn{remote: a}, nil
}

type fakeConn struct {
	net.Conn
	remote net.Addr
}

func (c *fakeConn) RemoteAddr() net.Addr { return c.remote }
func (c *fakeConn) Close() error         { return nil }

// TestOneMachineDoesNotLockAdministratorsOut holds that a machine which opens all
// the connections that it can, as one that is quarantined may, leaves room for
// administrators elsewhere, and that many such leave room for one on the appliance.
func TestOneMachineDoesNotLockAdministratorsOut(t *testing.T) {
	const most, share = 10, 4
	l := newSharedListener(fakeListener{from: make(chan net.Addr, 100)}, most, share)
	raw := l.Listener.(fakeListener)
	knock := func(ip string, n int) {
		for range n {
			raw.from <- net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(ip), 4711))
		}
	}
	accept := func(want string) net.Conn {
		t.Helper()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if got := c.RemoteAddr().(*net.TCPAddr).IP.String(); got != want {
			t.Fatalf("a connection from %s was taken, want one from %s", got, want)
		}
		return c
	}
	knock("10.0.0.66", 50)
	knock("10.0.0.2", 1)
	var attackers []net.Conn
	for range share {
		attackers = append(attackers, accept("10.0.0.66"))
	}
	accept("10.0.0.2")

	for _, ip := range []string{"fe80::1", "2001:db8::1", "2001:db8::2"} { // of one /64 are two
		knock(ip, 3)
	}
	for range 3 {
		accept("fe80::1")
	}
	for range 2 { // the last of all
		accept("2001:db8::1")
	}
	knock("127.0.0.1", 1)
	knock("::1", share)
	accept("127.0.0.1")
	for range share - 1 {
		accept("::1")
	}
	for _, c := range attackers {
		_, _ = c.Close(), c.Close() // twice counts once
	}
	knock("10.0.0.66", share+1)
	knock("10.0.0.3", 1)
	for range share {
		accept("10.0.0.66")
	}
	close(raw.from)
	if c, err := l.Accept(); err == nil {
		t.Errorf("one more was taken, from %s", c.RemoteAddr())
	}
}
