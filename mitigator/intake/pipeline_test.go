package intake

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cordon-security/cordon/mitigator/event"
)

var silent = slog.New(slog.NewTextHandler(io.Discard, nil))

// script is a source that delivers what it was given, once.
type script struct {
	name     string
	arrivals []Arrival
	err      error
	runs     int
}

func (s *script) Name() string   { return s.name }
func (s *script) Kind() string   { return "script" }
func (s *script) Target() string { return "/script" }

func (s *script) Run(ctx context.Context, feed Feed) error {
	if s.runs++; s.runs == 1 && s.err != nil {
		return s.err
	}
	feed.Healthy()
	for _, a := range s.arrivals {
		if err := feed.Deliver(ctx, a); err != nil {
			return err
		}
	}
	s.arrivals = nil
	<-ctx.Done()
	return nil
}

// memory is a sink that fails a number of times first.
type memory struct {
	mu      sync.Mutex
	fail    int
	batches []Batch
}

func (m *memory) Cursor(context.Context, string) ([]byte, error) { return nil, nil }

func (m *memory) Deliver(_ context.Context, b Batch) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail > 0 {
		m.fail--
		return errors.New("database or disk is full")
	}
	m.batches = append(m.batches, b)
	return nil
}

func baseConfig() Config {
	return Config{HomeNetworks: HomeNetworksConfig{Include: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")}}}
}

func sample(change ...func(*event.Event)) event.Event {
	e := event.Event{Src: netip.MustParseAddrPort("10.1.0.7:40000"), Dst: netip.MustParseAddrPort("203.0.113.9:80"),
		SignatureID: 100, Severity: event.Medium, Initiator: event.SrcSide, Proto: event.ProtoTCP}
	for _, c := range change {
		c(&e)
	}
	return e
}

func TestClassify(t *testing.T) {
	now := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	net := netip.MustParsePrefix
	tests := map[string]struct {
		change func(*Config)
		event  event.Event
		want   event.Disposition
		reason string
	}{
		"threat":       {nil, sample(), event.Threat, ""},
		"neither ours": {nil, sample(func(e *event.Event) { e.Src = netip.MustParseAddrPort("192.0.2.1:1") }), event.Kept, "home networks"},
		"no addresses": {nil, sample(func(e *event.Event) { e.Src, e.Dst = netip.AddrPort{}, netip.AddrPort{} }), event.Kept, "home networks"},
		"0.0.0.0":      {nil, sample(func(e *event.Event) { e.Src = netip.MustParseAddrPort("0.0.0.0:1") }), event.Kept, "home networks"},
		"too mild":     {func(c *Config) { c.Filters.MinSeverity = event.High }, sample(), event.Filtered, "below high"},
		"just enough":  {func(c *Config) { c.Filters.MinSeverity = event.Medium }, sample(), event.Threat, ""},
		"excluded":     {func(c *Config) { c.Filters.ExcludeSignatures = []uint32{100} }, sample(), event.Filtered, "100 is excluded"},
		"not included": {func(c *Config) { c.Filters.Signatures = []uint32{101} }, sample(), event.Filtered, "not among"},
		"included":     {func(c *Config) { c.Filters.Signatures = []uint32{100} }, sample(), event.Threat, ""},
		"too old": {func(c *Config) { c.Filters.MaxAge = time.Hour }, sample(func(e *event.Event) { e.Time = now.Add(-time.Hour - 1) }),
			event.Filtered, "older than 1h0m0s"},
		"old enough":  {func(c *Config) { c.Filters.MaxAge = time.Hour }, sample(func(e *event.Event) { e.Time = now.Add(-time.Hour) }), event.Threat, ""},
		"of any age":  {nil, sample(func(e *event.Event) { e.Time = now.AddDate(-9, 0, 0) }), event.Threat, ""},
		"clock ahead": {func(c *Config) { c.Filters.MaxAge = time.Hour }, sample(func(e *event.Event) { e.Time = now.Add(time.Hour) }), event.Threat, ""},
		"excepted by signature": {func(c *Config) { c.Exceptions = []ExceptionConfig{{Signature: 100, Comment: "our scanner"}} },
			sample(), event.Excepted, "our scanner"},
		"excepted by address": {func(c *Config) { c.Exceptions = []ExceptionConfig{{Addresses: []netip.Prefix{net("203.0.113.0/24")}}} },
			sample(), event.Excepted, "exception 1"},
		"signature fits, address not": {func(c *Config) {
			c.Exceptions = []ExceptionConfig{{Signature: 100, Addresses: []netip.Prefix{net("192.0.2.0/24")}}}
		}, sample(), event.Threat, ""},
		"expires later": {func(c *Config) { c.Exceptions = []ExceptionConfig{{Signature: 100, Expires: now.Add(1)}} }, sample(), event.Excepted, ""},
		"expired":       {func(c *Config) { c.Exceptions = []ExceptionConfig{{Signature: 100, Expires: now}} }, sample(), event.Threat, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := baseConfig()
			if tt.change != nil {
				tt.change(&c)
			}
			p, err := New(Options{Config: c, Sink: &memory{}, Logger: silent, Now: func() time.Time { return now }})
			if err != nil {
				t.Fatal(err)
			}
			got := p.Classify(tt.event)
			if got.Disposition != tt.want || !strings.Contains(got.Reason, tt.reason) {
				t.Errorf("%s (%s), want %s (%s)", got.Disposition, got.Reason, tt.want, tt.reason)
			}
			if (got.Reason == "") != (tt.want == event.Threat) {
				t.Errorf("reason %q for %s", got.Reason, got.Disposition)
			}
		})
	}
}

func TestPipelineLosesNothing(t *testing.T) {
	events := make([]event.Event, 3*MaxBatch/2)
	for i := range events {
		events[i] = sample(func(e *event.Event) { e.SignatureID = uint32(i) })
	}
	broken := &script{name: "broken", err: errors.New("no such device"), arrivals: []Arrival{{Events: events[:1]}}}
	source := &script{name: "a", arrivals: []Arrival{{Events: events, Ignored: 7, Cursor: []byte("end")}, {Rejects: []event.Reject{{Reason: "x"}}}}}
	sink := &memory{fail: 3}
	p, err := New(Options{Config: baseConfig(), Sources: []Source{source, broken}, Sink: sink, Logger: silent})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- p.Run(ctx) }()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		st := p.Statuses()
		if st[0].Rejected == 1 && st[1].Events == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %+v", st)
		}
	}
	st := p.Statuses()[0]
	if !st.Healthy || st.Events != uint64(len(events)) || st.Ignored != 7 || st.ByDisposition[event.Threat] != st.Events {
		t.Errorf("status %+v", st)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	sink.batches = slices.DeleteFunc(sink.batches, func(b Batch) bool { return b.Source != "a" })
	n := 0
	for i, b := range sink.batches {
		if len(b.Events) > MaxBatch {
			t.Errorf("a batch of %d", len(b.Events))
		}
		if want := i == 1; (b.Cursor != nil) != want {
			t.Errorf("batch %d: cursor %q; only the last part of an arrival carries it", i, b.Cursor)
		}
		for _, e := range b.Events {
			if e.SignatureID != uint32(n) {
				t.Fatalf("event %d is number %d", n, e.SignatureID)
			}
			n++
		}
	}
	if n != len(events) {
		t.Errorf("%d events, want %d", n, len(events))
	}
}

func TestConfigFaults(t *testing.T) {
	file := SourceConfig{Name: "a", Kind: KindSuricataFile, Path: "/var/log/suricata/eve.json"}
	tests := map[string]struct {
		change func(*Config)
		want   string
	}{
		"no home": {func(c *Config) {
			c.HomeNetworks.Include, c.Sources = nil, []SourceConfig{file}
		}, "name the LAN's prefixes"},
		"bits below":     {func(c *Config) { c.HomeNetworks.Exclude = []netip.Prefix{netip.MustParsePrefix("10.1.0.7/24")} }, "did you mean 10.1.0.0/24"},
		"no name":        {func(c *Config) { c.Sources = []SourceConfig{{Kind: KindSuricataFile, Path: "/x"}} }, "name: is missing"},
		"same name":      {func(c *Config) { c.Sources = []SourceConfig{file, file} }, "taken by another"},
		"unknown kind":   {func(c *Config) { c.Sources = []SourceConfig{{Name: "a", Kind: "snort", Path: "/x"}} }, "use suricata-file or suricata-socket"},
		"relative":       {func(c *Config) { c.Sources = []SourceConfig{{Name: "a", Kind: KindSuricataFile, Path: "eve.json"}} }, "must be absolute"},
		"file, datagram": {func(c *Config) { f := file; f.Datagram = true; c.Sources = []SourceConfig{f} }, "datagram: is for"},
		"excepts all":    {func(c *Config) { c.Exceptions = []ExceptionConfig{{Comment: "x"}} }, "except everything"},
	}
	for name, tt := range tests {
		c := baseConfig()
		tt.change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
	good := baseConfig()
	good.Sources = []SourceConfig{file}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	if _, err := New(Options{Config: baseConfig()}); err == nil {
		t.Error("a pipeline without a sink was made")
	}
	twins := []Source{&script{name: "a"}, &script{name: "a"}}
	if _, err := New(Options{Config: baseConfig(), Sink: &memory{}, Sources: twins}); err == nil {
		t.Error("two sources of one name were taken")
	}
}

// BenchmarkClassify measures the disposition of one event with ten exceptions.
func BenchmarkClassify(b *testing.B) {
	c := baseConfig()
	for i := range 10 {
		c.Exceptions = append(c.Exceptions, ExceptionConfig{Signature: uint32(1000 + i)})
	}
	p, err := New(Options{Config: c, Sink: &memory{}, Logger: silent})
	if err != nil {
		b.Fatal(err)
	}
	e := sample()
	b.ReportAllocs()
	for b.Loop() {
		if p.Classify(e).Disposition != event.Threat {
			b.Fatal("not a threat")
		}
	}
}
