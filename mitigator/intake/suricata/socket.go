package suricata

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/cordon-security/cordon/mitigator/event"
	"github.com/cordon-security/cordon/mitigator/intake"
)

const (
	// maxConnections bounds the detectors that are connected at once.
	maxConnections = 16
	// queued bounds the records between the connections and the sink.
	queued = 64
	// lastWords is how long records that were read already may take to become
	// durable when the program ends.
	lastWords = 5 * time.Second
)

// SocketOptions are what a Socket needs.
type SocketOptions struct {
	// Name is the source's configured name.
	Name string
	// Path is absolute: where the socket is made, mode 0660.
	Path string
	// Datagram makes it a datagram socket (filetype: unix_dgram).
	Datagram bool
	// Logger gets what a person should know once; nil for slog.Default.
	Logger *slog.Logger
	// Now is the clock; nil for time.Now.
	Now func() time.Time
}

// Socket is a Unix socket that Suricata connects to. There is no going back in
// it: what Suricata writes while Cordon is down, or while its own socket buffer
// is full, Suricata drops. Where nothing may be lost, use a File.
type Socket struct {
	o SocketOptions
}

// NewSocket checks the options; it opens nothing.
func NewSocket(o SocketOptions) (*Socket, error) {
	if o.Name == "" {
		return nil, errors.New("a socket source needs a name")
	}
	if !filepath.IsAbs(o.Path) {
		return nil, fmt.Errorf("source %s: path %q must be absolute", o.Name, o.Path)
	}
	if len(o.Path) > 107 {
		return nil, fmt.Errorf("source %s: path %q is longer than the 107 bytes that unix(7) allows", o.Name, o.Path)
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Socket{o: o}, nil
}

// Name is the configured name.
func (s *Socket) Name() string { return s.o.Name }

// Kind is "suricata-socket".
func (s *Socket) Kind() string { return intake.KindSuricataSocket }

// Target is the socket's path.
func (s *Socket) Target() string { return s.o.Path }

// Run makes the socket and reads until ctx ends; then it delivers what it has
// read already.
func (s *Socket) Run(ctx context.Context, feed intake.Feed) error {
	if err := s.clear(); err != nil {
		return err
	}
	lines := make(chan parsed, queued)
	serve, err := s.listen(ctx, lines)
	if err != nil {
		return err
	}
	feed.Healthy()
	failed := make(chan error, 1)
	go func() {
		failed <- serve()
		close(lines)
	}()
	if err := s.deliver(ctx, feed, lines); err != nil && ctx.Err() == nil {
		return err
	}
	return quiet(ctx, <-failed)
}

// clear removes a socket that a process left which is gone.
func (s *Socket) clear() error {
	info, err := os.Lstat(s.o.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at %s: %w", s.o.Path, err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is there already and is no socket: remove it or choose another path", s.o.Path)
	}
	for _, network := range [...]string{"unix", "unixgram"} {
		conn, err := net.Dial(network, s.o.Path)
		if err == nil {
			conn.Close()
			return fmt.Errorf("another process listens on %s: stop it or choose another path", s.o.Path)
		}
	}
	if err := os.Remove(s.o.Path); err != nil {
		return fmt.Errorf("remove the stale socket: %w", err)
	}
	return nil
}

// listen makes the socket and returns what serves it until ctx ends.
func (s *Socket) listen(ctx context.Context, lines chan<- parsed) (func() error, error) {
	if s.o.Datagram {
		conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: s.o.Path, Net: "unixgram"})
		if err != nil {
			return nil, s.explain(err)
		}
		return func() error { return s.datagrams(ctx, conn, lines) }, s.open(conn)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.o.Path, Net: "unix"})
	if err != nil {
		return nil, s.explain(err)
	}
	return func() error { return s.accept(ctx, listener, lines) }, s.open(listener)
}

func (s *Socket) explain(err error) error {
	return fmt.Errorf("make the socket %s: %w (its directory must exist and be writable for the mitigator)", s.o.Path, err)
}

// open lets the group write, which is what connecting needs.
func (s *Socket) open(c io.Closer) error {
	if err := os.Chmod(s.o.Path, 0o660); err != nil {
		c.Close()
		return fmt.Errorf("open the socket for its group: %w", err)
	}
	return nil
}

// accept serves connections side by side until ctx ends.
func (s *Socket) accept(ctx context.Context, listener *net.UnixListener, lines chan<- parsed) error {
	ctx, cancel := context.WithCancel(ctx)
	slots := make(chan struct{}, maxConnections)
	var open sync.WaitGroup
	defer open.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { listener.Close() })()
	defer listener.Close()
	for {
		conn, err := listener.AcceptUnix()
		if err != nil {
			return fmt.Errorf("accept on %s: %w", s.o.Path, err)
		}
		select {
		case slots <- struct{}{}:
		default:
			s.o.Logger.Warn("source refuses a connection", "source", s.o.Name, "limit", maxConnections)
			conn.Close()
			continue
		}
		open.Go(func() {
			defer func() { <-slots }()
			s.stream(ctx, conn, lines)
		})
	}
}

// stream reads one connection to its end.
func (s *Socket) stream(ctx context.Context, conn *net.UnixConn, lines chan<- parsed) {
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	defer conn.Close()
	var split splitter
	buf := make([]byte, 64<<10)
	for {
		n, err := conn.Read(buf)
		split.write(buf[:n])
		for l, ok := split.next(); ok; l, ok = split.next() {
			lines <- s.parse(l)
		}
		if err != nil {
			break
		}
	}
	if l, ok := split.rest(); ok {
		lines <- s.parse(l)
	}
}

// datagrams reads records that come one a datagram.
func (s *Socket) datagrams(ctx context.Context, conn *net.UnixConn, lines chan<- parsed) error {
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	defer os.Remove(s.o.Path)
	defer conn.Close()
	buf := make([]byte, MaxLine+2)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return fmt.Errorf("read %s: %w", s.o.Path, err)
		}
		var split splitter
		split.write(buf[:n])
		for l, ok := split.next(); ok; l, ok = split.next() {
			lines <- s.parse(l)
		}
		if l, ok := split.rest(); ok {
			lines <- s.parse(l)
		}
	}
}

// parsed is one line's outcome.
type parsed = intake.Arrival

func (s *Socket) parse(l line) parsed {
	c := collector{source: s.o.Name, now: s.o.Now}
	key := func(raw []byte) event.Key { return event.StreamKey(s.o.Name, raw) }
	if l.long {
		c.tooLong(l.raw, l.size, key)
	} else {
		c.add(l.raw, key)
	}
	return c.take()
}

// deliver takes what has come, one record or many, until lines is closed.
func (s *Socket) deliver(ctx context.Context, feed intake.Feed, lines <-chan parsed) error {
	// What was read cannot be asked for again, so it may outlast ctx a little.
	last, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(lastWords, cancel) })()
	var failed error
	for first := range lines {
		a := first
		for more := true; more && len(a.Events)+len(a.Rejects) < intake.MaxBatch; {
			select {
			case l, ok := <-lines:
				more = ok
				a.Events, a.Rejects, a.Ignored = append(a.Events, l.Events...), append(a.Rejects, l.Rejects...), a.Ignored+l.Ignored
			default:
				more = false
			}
		}
		// After a failure the rest is only taken off, so that no reader hangs.
		if failed == nil {
			failed = feed.Deliver(last, a)
		}
	}
	return failed
}
