package suricata

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/cordon-security/cordon/mitigator/intake"
)

func newSocket(t *testing.T, path string, datagram bool) *Socket {
	t.Helper()
	s, err := NewSocket(SocketOptions{Name: "eve", Path: path, Datagram: datagram, Logger: silent})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// socketPath is short: unix(7) allows 107 bytes.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "eve")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "eve.sock")
}

// dial connects as Suricata does.
func dial(t *testing.T, network, path string) net.Conn {
	t.Helper()
	var conn net.Conn
	until(t, "the socket", func() bool {
		var err error
		conn, err = net.Dial(network, path)
		return err == nil
	})
	t.Cleanup(func() { conn.Close() })
	return conn
}

func send(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := conn.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

func TestSocketTakesAllRecordedAlerts(t *testing.T) {
	lines := recorded(t)
	for _, network := range []string{"unix", "unixgram"} {
		t.Run(network, func(t *testing.T) {
			path := socketPath(t)
			d := &disk{}
			_, stop := start(t, newSocket(t, path, network == "unixgram"), d)
			conn := dial(t, network, path)
			for _, line := range lines {
				send(t, conn, string(line)+"\n")
			}
			untilEvents(t, d, len(lines))
			stop()
			wantRecorded(t, d, lines)
		})
	}
}

func TestSocketReconnectsAndSeveralSpeak(t *testing.T) {
	path := socketPath(t)
	d := &disk{}
	_, stop := start(t, newSocket(t, path, false), d)
	first := dial(t, "unix", path)
	half := numbered(1)
	send(t, first, half[:50])
	send(t, first, half[50:])
	untilEvents(t, d, 1)
	last := numbered(2)
	send(t, first, last[:len(last)-1]) // dies without the line's end
	first.Close()
	untilEvents(t, d, 2)

	var speakers sync.WaitGroup
	for i := range 4 {
		conn := dial(t, "unix", path)
		speakers.Go(func() {
			for n := range 50 {
				_, _ = conn.Write([]byte(numbered(100 + 50*i + n)))
			}
			conn.Close()
		})
	}
	speakers.Wait()
	untilEvents(t, d, 202)
	stop()
	if _, err := os.Stat(path); err == nil {
		t.Error("the socket is still there after the end")
	}
}

func TestSocketHostileLines(t *testing.T) {
	path := socketPath(t)
	d := &disk{}
	p, _ := start(t, newSocket(t, path, false), d)
	conn := dial(t, "unix", path)
	for _, line := range hostile {
		send(t, conn, line+"\n")
	}
	send(t, conn, numbered(1))
	untilEvents(t, d, 1)
	if _, rejects := d.counts(); rejects != len(hostile) {
		t.Errorf("%d rejects, want %d", rejects, len(hostile))
	}
	until(t, "the counts", func() bool { return p.Statuses()[0].Rejected == uint64(len(hostile)) })
}

func TestSocketBoundsConnections(t *testing.T) {
	path := socketPath(t)
	d := &disk{}
	start(t, newSocket(t, path, false), d)
	held := make([]net.Conn, maxConnections)
	for i := range held {
		held[i] = dial(t, "unix", path)
		send(t, held[i], numbered(i+1))
	}
	untilEvents(t, d, maxConnections)
	refused := dial(t, "unix", path)
	if n, err := refused.Read(make([]byte, 1)); err == nil {
		t.Fatalf("read %d bytes from a connection above the limit", n)
	}
	held[0].Close()
	until(t, "a free place", func() bool {
		conn, err := net.Dial("unix", path)
		if err != nil {
			return false
		}
		defer conn.Close()
		_, err = conn.Write([]byte(numbered(99)))
		n, _ := d.counts()
		return err == nil && n > maxConnections
	})
}

func TestSocketPath(t *testing.T) {
	t.Run("mode", func(t *testing.T) {
		path := socketPath(t)
		start(t, newSocket(t, path, false), &disk{})
		until(t, "mode 0660", func() bool {
			info, err := os.Stat(path)
			return err == nil && info.Mode().Perm() == 0o660
		})
	})
	t.Run("stale", func(t *testing.T) {
		path := socketPath(t)
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		l.Close()
		d := &disk{}
		start(t, newSocket(t, path, false), d)
		send(t, dial(t, "unix", path), numbered(1))
		untilEvents(t, d, 1)
	})
	t.Run("taken", func(t *testing.T) {
		path := socketPath(t)
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		d := &disk{}
		p, _ := start(t, newSocket(t, path, false), d)
		until(t, "a status that says so", func() bool { return strings.Contains(p.Statuses()[0].Error, "another process listens") })
		l.Close()
		send(t, dial(t, "unix", path), numbered(1))
		untilEvents(t, d, 1)
	})
	t.Run("a file", func(t *testing.T) {
		path := socketPath(t)
		appendTo(t, path, "precious")
		p, _ := start(t, newSocket(t, path, false), &disk{})
		until(t, "a status that says so", func() bool { return strings.Contains(p.Statuses()[0].Error, "is no socket") })
		if raw, err := os.ReadFile(path); err != nil || !bytes.Equal(raw, []byte("precious")) {
			t.Errorf("the file was touched: %q, %v", raw, err)
		}
	})
}

func TestSocketWaitsOutAFullDisk(t *testing.T) {
	path := socketPath(t)
	full := true
	d := &disk{}
	d.before = func() error {
		if full {
			return errDisk
		}
		return nil
	}
	p, _ := start(t, newSocket(t, path, false), d)
	conn := dial(t, "unix", path)
	for n := 1; n <= 200; n++ {
		send(t, conn, numbered(n))
	}
	until(t, "a status that says so", func() bool { return strings.Contains(p.Statuses()[0].Error, "disk full") })
	d.mu.Lock()
	full = false
	d.mu.Unlock()
	untilEvents(t, d, 200)
	wantInOrder(t, d, 1, 200)
}

func TestOptions(t *testing.T) {
	bad := []error{}
	for _, o := range []FileOptions{{}, {Name: "a"}, {Name: "a", Path: "eve.json"}} {
		_, err := NewFile(o)
		bad = append(bad, err)
	}
	for _, o := range []SocketOptions{{}, {Name: "a"}, {Name: "a", Path: "x"}, {Name: "a", Path: "/" + strings.Repeat("x", 108)}} {
		_, err := NewSocket(o)
		bad = append(bad, err)
	}
	for i, err := range bad {
		if err == nil {
			t.Errorf("options %d were taken", i)
		}
	}
	var _ = []intake.Source{&File{}, &Socket{}}
}

// BenchmarkParse measures one recorded alert, parsed; BenchmarkParseOther one
// record of another type.
func BenchmarkParse(b *testing.B) {
	lines := recorded(b)
	var size int
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		line := lines[i%len(lines)]
		size += len(line)
		if _, err := Parse(line); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(size)/float64(b.N), "bytes/record")
}

func BenchmarkParseOther(b *testing.B) {
	line := []byte(`{"timestamp":"2026-03-04T05:06:07.123456+0000","flow_id":1,"event_type":"flow","src_ip":"10.1.0.7","src_port":40000,"dest_ip":"203.0.113.9","dest_port":80,"proto":"TCP","flow":{"pkts_toserver":1}}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(line); err != ErrNotAlert {
			b.Fatal(fmt.Errorf("got %w", err))
		}
	}
}
