package intake

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cordon-security/cordon/mitigator/event"
)

// The pauses between tries when the sink fails or a source ends.
const (
	firstPause = 50 * time.Millisecond
	lastPause  = 5 * time.Second
)

// Options are what a Pipeline needs.
type Options struct {
	Config  Config
	Sources []Source
	Sink    Sink
	// Logger gets what goes wrong, once per change; nil for slog.Default.
	Logger *slog.Logger
	// Now is the clock; nil for time.Now.
	Now func() time.Time
}

// Pipeline runs sources and classifies what they deliver. Its methods are safe
// for concurrent use.
type Pipeline struct {
	classifier *classifier
	sink       Sink
	log        *slog.Logger
	now        func() time.Time
	feeds      []*feed
}

// New checks the options; it opens nothing.
func New(o Options) (*Pipeline, error) {
	if err := o.Config.Validate(); err != nil {
		return nil, err
	}
	if o.Sink == nil {
		return nil, errors.New("intake: a sink is needed")
	}
	p := &Pipeline{classifier: newClassifier(o.Config), sink: o.Sink, log: o.Logger, now: o.Now}
	if p.log == nil {
		p.log = slog.Default()
	}
	if p.now == nil {
		p.now = time.Now
	}
	names := map[string]bool{}
	for _, s := range o.Sources {
		if names[s.Name()] {
			return nil, fmt.Errorf("intake: two sources are named %q", s.Name())
		}
		names[s.Name()] = true
		p.feeds = append(p.feeds, newFeed(p, s))
	}
	return p, nil
}

// Run runs every source until ctx ends and returns nil. A source that ends with
// an error is started again after a pause; the others do not notice.
func (p *Pipeline) Run(ctx context.Context) error {
	var running sync.WaitGroup
	for _, f := range p.feeds {
		running.Go(func() { f.run(ctx) })
	}
	running.Wait()
	return nil
}

// Statuses lists how the sources do, in the order of the configuration.
func (p *Pipeline) Statuses() []Status {
	out := make([]Status, 0, len(p.feeds))
	for _, f := range p.feeds {
		out = append(out, f.status())
	}
	return out
}

// Classify gives one event its disposition without storing it: what a dry run
// shows.
func (p *Pipeline) Classify(e event.Event) event.Classified {
	return p.classifier.classify(e, p.now())
}
