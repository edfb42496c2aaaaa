package demo

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/cordon-security/cordon/internal/testlan"
)

const (
	// echoPort is where a host sends back what it gets (RFC 862).
	echoPort = 7
	// streamPause is between two messages of a stream.
	streamPause = 20 * time.Millisecond
	// streamPatience is how long an answer may take: a message that was lost is
	// sent again by TCP meanwhile.
	streamPatience = 3 * time.Second
)

// startEcho makes a host send back what comes in by TCP, until the context ends.
func startEcho(ctx context.Context, h *testlan.Host) error {
	l, err := h.Listen(ctx, "tcp", fmt.Sprintf(":%d", echoPort))
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				stop := context.AfterFunc(ctx, func() { conn.Close() })
				defer stop()
				_, _ = io.Copy(conn, conn) // the other side's end is the end
			}()
		}
	}()
	return nil
}

// stream is one TCP connection that is in use the whole time: a message each 20
// ms, each answered. It is never made again.
type stream struct {
	name string
	conn net.Conn

	mu       sync.Mutex
	answered int
	last     time.Time
	longest  time.Duration
	end      error
}

// startStream connects a host with another's echo and keeps talking until the
// context ends.
func startStream(ctx context.Context, name string, from *testlan.Host, to netip.Addr) (*stream, error) {
	conn, err := from.Dial(ctx, "tcp", netip.AddrPortFrom(to, echoPort).String())
	if err != nil {
		return nil, err
	}
	s := &stream{name: name, conn: conn, last: time.Now()}
	go s.talk(ctx)
	return s, nil
}

func (s *stream) talk(ctx context.Context) {
	defer s.conn.Close()
	for n := uint64(1); ctx.Err() == nil; n++ {
		if err := s.once(n); err != nil {
			s.mu.Lock()
			s.end = err
			s.mu.Unlock()
			return
		}
		time.Sleep(streamPause)
	}
}

func (s *stream) once(n uint64) error {
	var out, in [8]byte
	binary.BigEndian.PutUint64(out[:], n)
	start := time.Now()
	if err := s.conn.SetDeadline(start.Add(streamPatience)); err != nil {
		return err
	}
	if _, err := s.conn.Write(out[:]); err != nil {
		return err
	}
	if _, err := io.ReadFull(s.conn, in[:]); err != nil {
		return err
	}
	if in != out {
		return fmt.Errorf("the answer to %d is %d", n, binary.BigEndian.Uint64(in[:]))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answered, s.last = s.answered+1, time.Now()
	s.longest = max(s.longest, s.last.Sub(start))
	return nil
}

// state returns the number of answers, the slowest of them, the time of the
// last, and what ended the stream.
func (s *stream) state() (answered int, longest time.Duration, last time.Time, end error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.answered, s.longest, s.last, s.end
}

// flows fails when the stream has ended.
func (s *stream) flows() error {
	_, _, last, end := s.state()
	if end != nil {
		return fmt.Errorf("%s ended: %w", s.name, end)
	}
	if quiet := time.Since(last); quiet > streamPatience {
		return fmt.Errorf("%s is silent for %s", s.name, round(quiet))
	}
	return nil
}

// silentAfter waits until no answer has come for a second, and fails when
// answers still come.
func (s *stream) silentAfter(ctx context.Context, t time.Time) error {
	const quiet = time.Second
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(streamPause) {
		if _, _, last, _ := s.state(); time.Since(last) > quiet && time.Since(t) > quiet {
			return nil
		}
	}
	return fmt.Errorf("%s is still answered", s.name)
}
