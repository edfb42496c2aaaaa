// Package intake takes events in from data sources and hands them, classified,
// to whoever makes them durable.
//
//	source ──Arrival──▶ Pipeline (home networks, roles, filters, exceptions) ──Batch──▶ Sink
//
// A source reads and parses; it decides nothing. The pipeline gives every event
// a disposition and drops none. The sink makes a batch durable together with the
// source's cursor, so that after a crash at any point the source resumes exactly
// behind what is stored.
//
// A new data source is a new package that implements Source, and one case where
// the program builds its sources from the configuration.
package intake

import (
	"context"
	"time"

	"github.com/cordon-security/cordon/mitigator/event"
)

// MaxBatch bounds the events and rejects of one batch, each.
const MaxBatch = 256

// Source reads one data source.
type Source interface {
	// Name is the configured, unique name; Kind is "suricata-file" and the like;
	// Target is the path or address that it reads.
	Name() string
	Kind() string
	Target() string
	// Run reads until ctx ends and then returns nil. What can pass (a missing
	// file, a full disk) it reports through the feed and waits for; an error is
	// what only a person can repair. Delivered records are in order.
	Run(ctx context.Context, feed Feed) error
}

// Feed is what a source delivers to. It is safe for concurrent use.
type Feed interface {
	// Cursor is where the source shall resume: what came with the last arrival
	// that was made durable; nil for never.
	Cursor(ctx context.Context) ([]byte, error)
	// Deliver returns when the arrival is durable. It retries while the sink
	// fails, so its only error is that of ctx; nothing of the arrival is stored
	// then, or all of it.
	Deliver(ctx context.Context, a Arrival) error
	// Healthy and Unhealthy set the source's status; why is for a person and says
	// what to do.
	Healthy()
	Unhealthy(why error)
}

// Arrival is what a source read at once; at most MaxBatch events and rejects,
// or the pipeline splits it (only the last part then carries the cursor).
type Arrival struct {
	Events  []event.Event
	Rejects []event.Reject
	// Ignored counts well-formed records that are no detections.
	Ignored uint64
	// Cursor is where to resume behind this arrival; nil for a source that cannot.
	Cursor []byte
}

// Batch is what becomes durable at once.
type Batch struct {
	Source  string
	Events  []event.Classified
	Rejects []event.Reject
	// Cursor is stored with it; nil leaves the stored one as it is.
	Cursor []byte
}

// Sink makes batches durable. It is called by one goroutine per source.
type Sink interface {
	// Cursor returns what the source's last durable batch carried; nil for none.
	Cursor(ctx context.Context, source string) ([]byte, error)
	// Deliver makes the batch durable in one transaction with its cursor. An event
	// whose (Source, Key) is stored already has no second effect. On an error
	// nothing of the batch is stored; the caller tries the same batch again.
	Deliver(ctx context.Context, b Batch) error
}

// Status is how a source is doing.
type Status struct {
	Name   string
	Kind   string
	Target string
	// Healthy: it reads, or waits for the next record.
	Healthy bool
	// Error says what is wrong and what to do; empty when healthy.
	Error string
	// Since is when it became so.
	Since time.Time
	// Counts since the program started. Ignored are records that are no detections.
	Events   uint64
	Rejected uint64
	Ignored  uint64
	// ByDisposition counts the events.
	ByDisposition map[event.Disposition]uint64
	// LastEvent is when the last event was made durable; zero for never.
	LastEvent time.Time
	// TooOld is the last event's own time when it was older than the configuration
	// lets become a threat, so that it was logged only; zero when it was not.
	TooOld time.Time
}
