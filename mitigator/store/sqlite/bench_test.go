package sqlite

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cordon-security/cordon/mitigator/event"
	"github.com/cordon-security/cordon/mitigator/store"
)

// BenchmarkUpdateBesidePrune measures one small update, alone and while
// retention removes events in transactions of so many rows.
func BenchmarkUpdateBesidePrune(b *testing.B) {
	for _, rows := range []int{0, 100, 500} {
		b.Run(fmt.Sprintf("rows=%d", rows), func(b *testing.B) { besidePrune(b, rows) })
	}
}

func besidePrune(b *testing.B, rows int) {
	s, err := Open(b.Context(), filepath.Join(b.TempDir(), "cordon.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	const stored = 60_000
	for n := 0; n < stored; n += 10_000 {
		if err := s.Update(b.Context(), func(tx store.Tx) error { return someEvents(tx, n, 10_000) }); err != nil {
			b.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(b.Context())
	var beside sync.WaitGroup
	beside.Go(func() { pruneUntil(ctx, b, s, rows) })
	defer beside.Wait()
	defer cancel()
	took := make([]time.Duration, 0, b.N)
	for n := uint64(0); b.Loop(); n++ {
		began := time.Now()
		if err := s.Update(b.Context(), func(tx store.Tx) error { return tx.SetCursor("eve", binary.BigEndian.AppendUint64(nil, n)) }); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
}

// pruneUntil removes events down to one, refills nothing: the benchmark's time
// should end before them.
func pruneUntil(ctx context.Context, b *testing.B, s *Store, rows int) {
	if rows == 0 {
		return
	}
	c := store.Cutoffs{MaxEvents: 1}
	for ctx.Err() == nil {
		err := s.Update(ctx, func(tx store.Tx) error {
			p, err := tx.Prune(c, rows)
			c.From = p.Next
			return err
		})
		if err != nil && !errors.Is(err, context.Canceled) {
			b.Error(err)
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func someEvents(tx store.Tx, first, n int) error {
	now := time.Unix(1e9, 0)
	for i := first; i < first+n; i++ {
		r := event.Record{Classified: event.Classified{Disposition: event.Kept, Event: event.Event{Source: "eve", Time: now, Received: now,
			Key: event.StreamKey("eve", fmt.Append(nil, i)), Severity: event.Low, Raw: make([]byte, 1500)}}}
		if _, err := tx.AddEvent(&r); err != nil {
			return err
		}
	}
	return nil
}
