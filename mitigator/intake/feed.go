package intake

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/cordon-security/cordon/mitigator/event"
)

// feed is the pipeline's end of one source.
type feed struct {
	pipeline *Pipeline
	source   Source
	// deliver serialises batches, so that cursors are stored in order.
	deliver sync.Mutex

	mu sync.Mutex
	st Status
	// sinkErr and sourceErr are independent: a full disk does not hide a missing
	// file, and the one's end does not clear the other.
	sinkErr, sourceErr error
}

func newFeed(p *Pipeline, s Source) *feed {
	return &feed{pipeline: p, source: s, sourceErr: errors.New("not started"), st: Status{
		Name: s.Name(), Kind: s.Kind(), Target: s.Target(), Since: p.now(),
		ByDisposition: map[event.Disposition]uint64{},
	}}
}

func (f *feed) run(ctx context.Context) {
	pause := firstPause
	for ctx.Err() == nil {
		started := time.Now()
		err := f.source.Run(ctx, f)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = errors.New("the source ended by itself")
		}
		f.Unhealthy(err)
		if time.Since(started) > lastPause {
			pause = firstPause
		}
		sleep(ctx, pause)
		pause = min(2*pause, lastPause)
	}
}

func (f *feed) Cursor(ctx context.Context) ([]byte, error) {
	return f.pipeline.sink.Cursor(ctx, f.source.Name())
}

func (f *feed) Deliver(ctx context.Context, a Arrival) error {
	f.deliver.Lock()
	defer f.deliver.Unlock()
	now := f.pipeline.now().UTC()
	for len(a.Events) > MaxBatch || len(a.Rejects) > MaxBatch {
		part := Arrival{Events: a.Events[:min(MaxBatch, len(a.Events))], Rejects: a.Rejects[:min(MaxBatch, len(a.Rejects))]}
		if err := f.batch(ctx, part, now); err != nil {
			return err
		}
		a.Events, a.Rejects = a.Events[len(part.Events):], a.Rejects[len(part.Rejects):]
	}
	return f.batch(ctx, a, now)
}

// batch delivers until the sink has it, or ctx ends.
func (f *feed) batch(ctx context.Context, a Arrival, now time.Time) error {
	b := Batch{Source: f.source.Name(), Rejects: a.Rejects, Cursor: a.Cursor}
	for _, e := range a.Events {
		if e.Received.IsZero() {
			e.Received = now
		}
		b.Events = append(b.Events, f.pipeline.classifier.classify(e, now))
	}
	if len(b.Events) == 0 && len(b.Rejects) == 0 && b.Cursor == nil {
		f.count(b, a.Ignored)
		return nil
	}
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		err := f.pipeline.sink.Deliver(ctx, b)
		if err == nil {
			f.setSinkErr(nil)
			f.count(b, a.Ignored)
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		f.setSinkErr(fmt.Errorf("events wait, none is lost: storing them failed (is the disk full?): %w", err))
		if !sleep(ctx, pause) {
			return ctx.Err()
		}
	}
}

func (f *feed) count(b Batch, ignored uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.st.Events += uint64(len(b.Events))
	f.st.Rejected += uint64(len(b.Rejects))
	f.st.Ignored += ignored
	for _, e := range b.Events {
		f.st.ByDisposition[e.Disposition]++
	}
	if len(b.Events) == 0 {
		return
	}
	f.st.LastEvent, f.st.TooOld = f.pipeline.now().UTC(), time.Time{}
	if last := b.Events[len(b.Events)-1].Event; f.pipeline.classifier.tooOld(last, f.st.LastEvent) {
		f.st.TooOld = last.Time
	}
}

func (f *feed) Healthy() { f.setErrs(func() { f.sourceErr = nil }) }

func (f *feed) Unhealthy(why error) { f.setErrs(func() { f.sourceErr = why }) }

func (f *feed) setSinkErr(err error) { f.setErrs(func() { f.sinkErr = err }) }

// setErrs changes the status and logs it when it reads differently now.
func (f *feed) setErrs(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.trouble()
	change()
	after := f.trouble()
	if before == after {
		return
	}
	f.st.Since = f.pipeline.now().UTC()
	log := f.pipeline.log.With("source", f.st.Name, "target", f.st.Target)
	if after == "" {
		log.Info("source is read")
		return
	}
	log.Warn("source is in trouble", "error", after)
}

func (f *feed) trouble() string {
	if err := errors.Join(f.sinkErr, f.sourceErr); err != nil {
		return err.Error()
	}
	return ""
}

func (f *feed) status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	st := f.st
	st.Error = f.trouble()
	st.Healthy = st.Error == ""
	st.ByDisposition = maps.Clone(f.st.ByDisposition)
	return st
}

// sleep waits, and returns false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
