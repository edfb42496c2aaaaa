package mitigator

import (
	"net"
	"net/netip"
	"sync"
)

// sharedListener takes no more than most connections at a time, and no more than
// share of them from one source: an IPv4 address, or an IPv6 /64, which one
// machine has to itself. What is above is closed at once, so that nobody waits
// behind it. The appliance itself has a share beside the others, which nobody else
// can use up.
type sharedListener struct {
	net.Listener
	most, share int

	mu    sync.Mutex
	all   int
	local int
	held  map[netip.Prefix]int
}

func newSharedListener(l net.Listener, most, share int) *sharedListener {
	return &sharedListener{Listener: l, most: most, share: share, held: map[netip.Prefix]int{}}
}

// Accept implements net.Listener.
func (l *sharedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		source := sourceOf(conn.RemoteAddr())
		if l.take(source) {
			return &sharedConn{Conn: conn, gone: sync.OnceFunc(func() { l.giveBack(source) })}, nil
		}
		// There is nobody to tell of an error.
		_ = conn.Close()
	}
}

func (l *sharedListener) take(source netip.Prefix) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if source.Addr().IsLoopback() {
		if l.local >= l.share {
			return false
		}
		l.local++
		return true
	}
	if l.all >= l.most || l.held[source] >= l.share {
		return false
	}
	l.all++
	l.held[source]++
	return true
}

func (l *sharedListener) giveBack(source netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if source.Addr().IsLoopback() {
		l.local--
		return
	}
	l.all--
	if l.held[source]--; l.held[source] == 0 {
		delete(l.held, source)
	}
}

// sourceOf is what counts as one source; the zero prefix for what is not known.
func sourceOf(a net.Addr) netip.Prefix {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	addr := tcp.AddrPort().Addr().Unmap().WithZone("")
	bits := addr.BitLen()
	if addr.Is6() && !addr.IsLoopback() {
		bits = 64
	}
	p, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// sharedConn gives its place back when it is closed.
type sharedConn struct {
	net.Conn
	gone func()
}

// Close implements net.Conn.
func (c *sharedConn) Close() error {
	c.gone()
	return c.Conn.Close()
}
