package suricata

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cordon-security/cordon/mitigator/event"
	"github.com/cordon-security/cordon/mitigator/intake"
)

// dataFolder holds the recorded alerts, beside the repository.
const dataFolder = "../../../../shared/data/alerts/suricata"

var errDisk = errors.New("no space left on device")

// disk is a durable sink: what it returned nil for is there with its cursor,
// whatever happens to the program around it.
type disk struct {
	mu      sync.Mutex
	events  []event.Classified
	rejects []event.Reject
	cursor  []byte
	batches int
	seen    map[event.Key]bool
	// before and after are called around the commit; an error of before means
	// that nothing is stored, one of after that all is and the answer got lost.
	before, after func() error
}

func (d *disk) Cursor(context.Context, string) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return bytes.Clone(d.cursor), nil
}

func (d *disk) Deliver(_ context.Context, b intake.Batch) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.before != nil {
		if err := d.before(); err != nil {
			return err
		}
	}
	for _, e := range b.Events {
		if !d.seen[e.Key] {
			d.events = append(d.events, e)
		}
		if d.seen == nil {
			d.seen = map[event.Key]bool{}
		}
		d.seen[e.Key] = true
	}
	d.rejects = append(d.rejects, b.Rejects...)
	if b.Cursor != nil {
		d.cursor = bytes.Clone(b.Cursor)
	}
	d.batches++
	if d.after != nil {
		return d.after()
	}
	return nil
}

// ids lists the signature ids in the order in which they became durable.
func (d *disk) ids() []uint32 {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]uint32, len(d.events))
	for i, e := range d.events {
		out[i] = e.SignatureID
	}
	return out
}

func (d *disk) counts() (events, rejects int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.events), len(d.rejects)
}

var silent = slog.New(slog.NewTextHandler(io.Discard, nil))

// start runs a source into the sink until stop is called or the test ends.
func start(t *testing.T, source intake.Source, sink intake.Sink) (p *intake.Pipeline, stop func()) {
	t.Helper()
	p, err := intake.New(intake.Options{
		Config:  intake.Config{HomeNetworks: intake.HomeNetworksConfig{Include: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}},
		Sources: []intake.Source{source}, Sink: sink, Logger: silent,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := p.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return p, stop
}

func newFile(t *testing.T, path string) *File {
	t.Helper()
	f, err := NewFile(FileOptions{Name: "eve", Path: path, Logger: silent})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// until waits for a condition, generously.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func untilEvents(t *testing.T, d *disk, n int) {
	t.Helper()
	until(t, fmt.Sprintf("%d events", n), func() bool { got, _ := d.counts(); return got >= n })
}

// numbered is an alert line with the signature id n, at a time of its own.
func numbered(n int) string {
	line := alertWith("", fmt.Sprintf(`,"signature_id":%d`, n))
	return strings.Replace(line, ".123456", fmt.Sprintf(".%06d", n), 1) + "\n"
}

// wantInOrder holds that exactly first..last arrived, each once, in order.
func wantInOrder(t *testing.T, d *disk, first, last int) {
	t.Helper()
	ids := d.ids()
	if len(ids) != last-first+1 {
		t.Fatalf("%d events arrived, want %d: %v", len(ids), last-first+1, ids)
	}
	for i, id := range ids {
		if int(id) != first+i {
			t.Fatalf("event %d is number %d, want %d: %v", i, id, first+i, ids)
		}
	}
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// recorded reads the 244 real alerts.
func recorded(t testing.TB) [][]byte {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dataFolder, "*.json"))
	if err != nil || len(names) == 0 {
		if os.Getenv("CI") == "true" {
			t.Fatalf("the recorded alerts are not at %s", dataFolder)
		}
		t.Skipf("the recorded alerts are not at %s", dataFolder)
	}
	var lines [][]byte
	for _, name := range names {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, bytes.Split(bytes.TrimSuffix(raw, []byte("\n")), []byte("\n"))...)
	}
	if len(lines) != 244 {
		t.Fatalf("%d recorded alerts, want 244", len(lines))
	}
	return lines
}

func wantRecorded(t *testing.T, d *disk, lines [][]byte) {
	t.Helper()
	if _, rejects := d.counts(); rejects != 0 {
		t.Errorf("%d rejected: %s", rejects, d.rejects[0].Reason)
	}
	for i, e := range d.events {
		if !bytes.Equal(e.Raw, lines[i]) {
			t.Fatalf("event %d is not line %d", i, i)
		}
	}
}
