package link

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cordon-security/cordon/internal/pki"
)

const defaultWorkers = 2

// Options is what a Link needs. Those without a default are required.
type Options struct {
	// StateDir is the directory that Enroll was given.
	StateDir string
	Executor Executor
	Log      *slog.Logger

	// Server is the mitigator's "HOST:PORT"; empty takes that of the enrolment.
	Server string
	// Hostname, Version and Observer are told to the mitigator, for people.
	Hostname string
	Version  string
	Observer string
	// Workers is how many tasks run at a time; 2 by default.
	Workers int
	// Addresses tells the endpoint's addresses; KernelAddresses by default.
	Addresses AddressSource
	// BackoffBase and BackoffCap bound the wait between connections; 0.5 and
	// 60 seconds by default.
	BackoffBase, BackoffCap time.Duration
	// Now is the clock for certificates; nil means time.Now.
	Now func() time.Time
}

// Link is the agent's connection to its mitigator. Run drives it.
type Link struct {
	options Options
	log     *slog.Logger
	spool   *spool
	tasks   *taskSet

	identity atomic.Pointer[identity]
	// current is the connection that calls go over; nil while there is none.
	current atomic.Pointer[conn]
	// report, observe and renewed each hold at most one wake-up.
	report  chan struct{}
	observe chan struct{}
	renewed chan struct{}
	// again asks for a new Tasks stream, which brings undone tasks again.
	again chan struct{}
}

// New loads the identity and the folders. The error wraps ErrNotEnrolled or
// ErrExpired where a person must enrol the endpoint first.
func New(o Options) (*Link, error) {
	if o.StateDir == "" || o.Executor == nil || o.Log == nil {
		return nil, errors.New("link: StateDir, Executor and Log are required")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Workers == 0 {
		o.Workers = defaultWorkers
	}
	if o.BackoffBase == 0 {
		o.BackoffBase = backoffBase
	}
	if o.BackoffCap == 0 {
		o.BackoffCap = backoffCap
	}
	if o.Workers < 0 || o.BackoffBase < 0 || o.BackoffCap < o.BackoffBase {
		return nil, errors.New("link: Workers and the back-off's bounds must make sense")
	}
	if o.Addresses == nil {
		o.Addresses = KernelAddresses{}
	}
	id, err := loadIdentity(o.StateDir)
	if err != nil {
		return nil, err
	}
	if id.expired(o.Now()) {
		return nil, ErrExpired
	}
	if o.Server == "" {
		o.Server = id.server
	}
	if err := pki.CheckServer(o.Server); err != nil {
		return nil, fmt.Errorf("link: %w", err)
	}
	spool, err := openSpool(o.StateDir)
	if err != nil {
		return nil, err
	}
	l := &Link{
		options: o, log: o.Log, spool: spool,
		report: make(chan struct{}, 1), observe: make(chan struct{}, 1),
		renewed: make(chan struct{}, 1), again: make(chan struct{}, 1),
	}
	l.identity.Store(id)
	l.tasks = newTaskSet(l)
	return l, nil
}

// AgentID is the agent's id, as the mitigator knows it.
func (l *Link) AgentID() string { return l.identity.Load().agentID }

// Connected reports whether the mitigator is in reach now.
func (l *Link) Connected() bool { return l.current.Load() != nil }

// Run keeps the connection up and carries tasks out until the context ends, and
// then returns nil. It returns ErrExpired when the certificate ran out, which
// only a new enrolment cures. Before it returns, all tasks have stopped.
func (l *Link) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	// Tasks see ErrStopping as the cause, whatever ended our own context.
	tasks, stopTasks := context.WithCancelCause(context.WithoutCancel(ctx))
	context.AfterFunc(ctx, func() { stopTasks(ErrStopping) })
	var wg sync.WaitGroup
	for _, part := range []func(context.Context){l.reportLoop, l.observeLoop, l.renewLoop} {
		wg.Go(func() { part(ctx) })
	}
	l.tasks.start(tasks)
	err := l.connectLoop(ctx)
	stop()
	l.tasks.wait()
	wg.Wait()
	return err
}

// connectLoop opens one session after the other.
func (l *Link) connectLoop(ctx context.Context) error {
	wait := backoff{base: l.options.BackoffBase, cap: l.options.BackoffCap}
	for ctx.Err() == nil {
		if l.identity.Load().expired(l.options.Now()) {
			return ErrExpired
		}
		begun := time.Now()
		err := l.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errRenewed) {
			continue
		}
		if time.Since(begun) > healthyAfter {
			wait.reset()
		}
		pause := wait.next()
		l.logEnd(err, pause)
		if !sleep(ctx, pause) {
			return nil
		}
	}
	return nil
}

func (l *Link) logEnd(err error, pause time.Duration) {
	if refusedByPeer(err) {
		l.log.Error("the mitigator refuses this agent's certificate: it was revoked, or is not of this mitigator; enrol anew with a token from `cordon agent token`",
			"server", l.options.Server, "error", err, "retry_in", pause)
		return
	}
	l.log.Warn("no connection to the mitigator", "server", l.options.Server, "error", err, "retry_in", pause)
}

// signal leaves a wake-up, unless one is waiting already.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
