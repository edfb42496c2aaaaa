// Package lifecycle carries threats from the first event to their end. Each
// trigger (an event, an agent's result, a device's status, a person, the clock)
// is one transaction: what follows from it (package threat decides), the
// history, and the orders that it causes. The orders are carried out from the
// store, at once by a wake-up, and after a crash because they are still open.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode"

	"github.com/cordon-security/cordon/mitigator/endpoint"
	"github.com/cordon-security/cordon/mitigator/event"
	"github.com/cordon-security/cordon/mitigator/store"
	"github.com/cordon-security/cordon/mitigator/threat"
)

// Guard is the fleet-wide guard that every quarantine passes, whoever orders it.
type Guard interface {
	// Check says whether the endpoint may be cut off: nil, or an error that says
	// why not. recent are the times of the quarantines within Window, active is
	// how many stand.
	Check(now time.Time, e endpoint.Endpoint, bindings []endpoint.Binding, recent []time.Time, active int) error
	// AtCap reports whether the error means "not now" and not "never".
	AtCap(err error) bool
	// Window is how far back the cap counts.
	Window() time.Duration
	// AtOnce is how many quarantines may stand at once; 0 for no limit. Check is
	// not told of more than one above it.
	AtOnce() int
}

// Options are what an Engine needs.
type Options struct {
	Store  store.Store
	Policy threat.Policy
	Guard  Guard
	// Home says whose machines become endpoints when a device sees them; its zero
	// value takes all.
	Home event.HomeNetworks
	// Retention is how long what has ended is kept; its zero value keeps all.
	Retention store.Retention
	// Devices are the names of all that carry quarantines out: a release has come to
	// its end when each of them said so. With none named, any device's word counts.
	Devices []string
	// WakeAgent is told that an agent has a task waiting, or one called back. It
	// must not block.
	WakeAgent func(agentID string)
	// WakeDevices is told that there are orders. It must not block.
	WakeDevices func()
	// Now is the clock; time.Now when nil.
	Now func() time.Time
	Log *slog.Logger
}

// Engine is the life cycle. It is safe for concurrent use.
type Engine struct {
	store       store.Store
	policy      threat.Policy
	guard       Guard
	home        event.HomeNetworks
	retention   store.Retention
	wakeAgent   func(string)
	wakeDevices func()
	now         func() time.Time
	log         *slog.Logger
	kick        chan struct{}
	neighbors   neighborCache
	backlog     *backlog
	unknown     unknownCount
	lifted      lifted
}

// New makes an engine.
func New(o Options) (*Engine, error) {
	switch {
	case o.Store == nil:
		return nil, errors.New("life cycle: no store")
	case o.Guard == nil:
		return nil, errors.New("life cycle: no guard")
	case o.WakeAgent == nil || o.WakeDevices == nil:
		return nil, errors.New("life cycle: nobody to wake")
	case o.Log == nil:
		return nil, errors.New("life cycle: no log")
	}
	if err := errors.Join(o.Policy.Validate(), o.Retention.Validate()); err != nil {
		return nil, err
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Engine{
		store: o.Store, policy: o.Policy, guard: o.Guard, home: o.Home, wakeAgent: o.WakeAgent, wakeDevices: o.WakeDevices,
		now: o.Now, log: o.Log, kick: make(chan struct{}, 1), backlog: newBacklog(), retention: o.Retention,
		lifted: lifted{devices: o.Devices},
	}, nil
}

// Policy is the policy in force.
func (e *Engine) Policy() threat.Policy { return e.policy }

// job is one transaction and what must be told once it is durable.
type job struct {
	tx      store.Tx
	now     time.Time
	agents  map[string]bool
	devices bool
	notes   []note
}

// note is one line for the log, written only when what it says is durable.
type note struct {
	message string
	args    []any
}

func (j *job) say(message string, args ...any) { j.notes = append(j.notes, note{message, args}) }

func (j *job) wake(agentID string) {
	if j.agents == nil {
		j.agents = map[string]bool{}
	}
	j.agents[agentID] = true
}

// urgently is update for what cannot wait for room on the disk: it may use up the
// store's reserve.
func (e *Engine) urgently(ctx context.Context, fn func(*job) error) error {
	return e.update(store.Urgent(ctx), fn)
}

// update runs fn in one durable transaction and then wakes whom it concerns.
func (e *Engine) update(ctx context.Context, fn func(*job) error) error {
	var j job
	err := e.store.Update(ctx, func(tx store.Tx) error {
		j = job{tx: tx, now: e.now().UTC()}
		return fn(&j)
	})
	if err != nil {
		e.backlog.heed(err, e.now())
		return err
	}
	if j.devices {
		e.wakeDevices()
	}
	for id := range j.agents {
		e.wakeAgent(id)
	}
	for _, n := range j.notes {
		e.log.Info(n.message, n.args...)
	}
	select {
	case e.kick <- struct{}{}:
	default:
	}
	return nil
}

// facts is factsOf within the job.
func (j *job) facts(t threat.Threat) (threat.Facts, endpoint.Endpoint, error) {
	return factsOf(j.tx, t)
}

// factsOf gathers what a decision on the threat rests on.
func factsOf(v store.View, t threat.Threat) (threat.Facts, endpoint.Endpoint, error) {
	ep, err := v.Endpoint(t.EndpointID)
	if err != nil {
		return threat.Facts{}, ep, fmt.Errorf("endpoint %d of threat %d: %w", t.EndpointID, t.ID, err)
	}
	f := threat.Facts{Threat: t, HasMAC: len(ep.MACs) > 0}
	if ep.AgentID != "" {
		a, err := v.Agent(ep.AgentID)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return f, ep, fmt.Errorf("agent of %s: %w", ep.Name(), err)
		}
		if err == nil && a.RevokedAt.IsZero() {
			f.AgentName = ep.Name()
		}
	}
	q, ok, err := v.ActiveQuarantine(ep.ID)
	if err != nil {
		return f, ep, fmt.Errorf("quarantine of %s: %w", ep.Name(), err)
	}
	if ok {
		f.Quarantine = &q
	}
	return f, ep, nil
}

// apply makes a decision on a threat durable, with all that it causes. The
// threat must be stored already.
func (e *Engine) apply(j *job, t threat.Threat, f threat.Facts, ep endpoint.Endpoint, d threat.Decision) error {
	if d.Quarantine == "" {
		t.WaitingFor = d.WaitingFor
	}
	if d.Hold {
		t.QuarantineID = f.Quarantine.ID
	}
	for _, s := range d.Steps {
		if err := e.enter(j, &t, ep, s); err != nil {
			return err
		}
	}
	if d.CancelTasks || t.State.Ended() {
		if err := e.cancelTasks(j, t); err != nil {
			return err
		}
	}
	if d.Task != "" {
		if err := e.order(j, t, ep, d.Task); err != nil {
			return err
		}
	}
	if d.Quarantine != "" {
		if err := e.contain(j, &t, ep, d.Quarantine); err != nil {
			return err
		}
	}
	if d.Release {
		if err := e.letGo(j, t, d.Steps[len(d.Steps)-1]); err != nil {
			return err
		}
	}
	return j.tx.SetThreat(t)
}

// enter records one step; a step to the same state is a note.
func (e *Engine) enter(j *job, t *threat.Threat, ep endpoint.Endpoint, s threat.Step) error {
	tr := threat.Transition{ThreatID: t.ID, From: t.State, To: s.To, At: j.now, Cause: clip(s.Cause), Actor: s.Actor}
	if err := j.tx.AddTransition(tr); err != nil {
		return err
	}
	j.say("threat", "threat", t.ID, "endpoint", ep.Name(), "from", string(tr.From), "to", string(tr.To),
		"actor", tr.Actor, "cause", tr.Cause)
	t.State, t.UpdatedAt = s.To, j.now
	if s.To.Ended() && !tr.From.Ended() { // a note that comes late does not move the end
		t.EndedAt = j.now
	}
	return nil
}

func (e *Engine) note(j *job, t *threat.Threat, ep endpoint.Endpoint, actor, cause string) error {
	return e.enter(j, t, ep, threat.Step{To: t.State, Actor: actor, Cause: cause})
}

// order gives the endpoint's agent a task.
func (e *Engine) order(j *job, t threat.Threat, ep endpoint.Endpoint, kind threat.TaskKind) error {
	task := threat.Task{
		ID: threat.NewID("t-"), ThreatID: t.ID, AgentID: ep.AgentID, Kind: kind, State: threat.TaskPending,
		CreatedAt: j.now, HoldUntil: j.now.Add(e.policy.Hold), Limit: e.policy.Limit(kind),
	}
	if err := j.tx.AddTask(task); err != nil {
		return err
	}
	j.wake(ep.AgentID)
	return nil
}

func (e *Engine) cancelTasks(j *job, t threat.Threat) error {
	tasks, err := j.tx.TasksOfThreat(t.ID)
	if err != nil {
		return fmt.Errorf("tasks of threat %d: %w", t.ID, err)
	}
	for _, task := range tasks {
		if !task.State.Open() {
			continue
		}
		task.State, task.EndedAt = threat.TaskCancelled, j.now
		if err := j.tx.SetTask(task); err != nil {
			return err
		}
		j.wake(task.AgentID)
	}
	return nil
}

// maxCause bounds what an agent or a device can write into a timeline.
const maxCause = 1000

// clip makes text from outside fit for a timeline and for an order: no more than
// maxCause bytes, no control characters, no half characters, which a message
// could not carry.
func clip(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	if len(s) <= maxCause {
		return s
	}
	return strings.ToValidUTF8(s[:maxCause], "") + " …"
}
