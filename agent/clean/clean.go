package clean

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cordon-security/cordon/agent/assess"
	"github.com/cordon-security/cordon/agent/guard"
	"github.com/cordon-security/cordon/agent/journal"
	"github.com/cordon-security/cordon/agent/procfs"
	"github.com/cordon-security/cordon/agent/vault"
	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

const (
	// maxRounds is how often a threat that comes back is taken down again.
	maxRounds = 3
	// lookPeriod is how often the host is looked at while waiting whether
	// something comes back.
	lookPeriod = 100 * time.Millisecond
)

// Options is what a Cleaner needs; all of it is required.
type Options struct {
	Collector *assess.Collector
	Stopper   *Stopper
	Guard     *guard.Guard
	Vault     *vault.Vault
	Journal   *journal.Journal
	// Units is nil on a host without systemd.
	Units Units
	// Watch is how long the host is watched for what comes back.
	Watch time.Duration
	Log   *slog.Logger
	Now   func() time.Time
}

// Cleaner takes threats off the host. It is safe for concurrent use; tasks are
// carried out one after another.
type Cleaner struct {
	o    Options
	turn chan struct{}
}

// New returns a cleaner.
func New(o Options) (*Cleaner, error) {
	if o.Collector == nil || o.Stopper == nil || o.Stopper.Trusted == nil || o.Guard == nil || o.Vault == nil || o.Journal == nil || o.Log == nil || o.Now == nil || o.Watch < 0 {
		return nil, errors.New("clean: all options but Units are required")
	}
	return &Cleaner{o: o, turn: make(chan struct{}, 1)}, nil
}

// Result is what a cleanup came to.
type Result struct {
	Evidence assess.Evidence
	Actions  []*wirev1.Action
	// Stopped is when the whole tree was stopped first; zero when nothing was.
	Stopped time.Time
	// Left says what of the threat is still there, in words; empty when it is
	// gone.
	Left []string
	// Clean is true when the evidence was confirmed and nothing is left.
	Clean bool
}

// Clean assesses the flows, cleans what the assessment confirms, and assesses
// again. What an earlier, interrupted run of the same task found stays
// evidence. The error is for what kept it from working at all.
func (c *Cleaner) Clean(ctx context.Context, task string, flows []assess.Flow) (Result, error) {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return Result{}, ctx.Err()
	}
	record, err := c.o.Journal.Load(task)
	if err != nil {
		return Result{}, err
	}
	if record.Started.IsZero() {
		record.Started = c.o.Now().UTC()
	}
	r := &run{Cleaner: c, task: task, flows: flows, record: record}
	for _, b := range record.Actions {
		var a wirev1.Action
		if err := proto.Unmarshal(b, &a); err == nil {
			r.actions = append(r.actions, &a)
		}
	}
	return r.do(ctx)
}

// run is one cleanup under way.
type run struct {
	*Cleaner
	task    string
	flows   []assess.Flow
	record  journal.Record
	actions []*wirev1.Action
	back    []string
	// trouble is what went wrong beside the actions, in words.
	trouble []string
}

func (r *run) do(ctx context.Context) (Result, error) {
	resumed := r.record.Evidence.Verdict == assess.Confirmed
	_, e, err := r.o.Collector.Look(r.flows, r.record.Evidence.Known())
	if err != nil {
		return Result{}, err
	}
	if !resumed && e.Verdict != assess.Confirmed {
		return Result{Evidence: e}, nil
	}
	r.merge(e)
	for round := 1; ; round++ {
		if err := r.round(ctx, e); err != nil {
			return r.result(nil), err
		}
		if ctx.Err() != nil {
			break
		}
		returned, err := r.watch(ctx)
		if err != nil {
			return r.result(nil), err
		}
		if len(returned.Live()) == 0 || round == maxRounds {
			break
		}
		r.merge(returned)
		e = returned
	}
	left, err := r.left(ctx)
	if err != nil {
		return r.result(nil), err
	}
	if ctx.Err() != nil {
		left = append(left, "the task ended before the cleanup did")
	}
	return r.result(left), nil
}

func (r *run) result(left []string) Result {
	return Result{
		Evidence: r.record.Evidence, Actions: r.actions, Stopped: r.record.Stopped,
		Left: left, Clean: len(left) == 0 && r.record.Evidence.Verdict == assess.Confirmed,
	}
}

// merge adds newly found evidence to what the journal has.
func (r *run) merge(e assess.Evidence) {
	have := &r.record.Evidence
	if e.Verdict == assess.Confirmed {
		have.Verdict = assess.Confirmed
	}
	for _, reason := range e.Reasons {
		if !slices.Contains(have.Reasons, reason) && e.Verdict == assess.Confirmed {
			have.Reasons = append(have.Reasons, reason)
		}
	}
	for _, p := range e.Processes {
		if !slices.ContainsFunc(have.Processes, func(h assess.Suspect) bool { return h.ID == p.ID }) {
			have.Processes = append(have.Processes, p)
		}
	}
	for _, f := range e.Files {
		if !slices.ContainsFunc(have.Files, func(h assess.SuspectFile) bool { return h.Path == f.Path && h.File == f.File }) {
			have.Files = append(have.Files, f)
		}
	}
	for _, s := range e.Entries {
		if !slices.ContainsFunc(have.Entries, func(h assess.Start) bool { return h.Key() == s.Key() }) {
			have.Entries = append(have.Entries, s)
		}
	}
}

// save puts evidence and actions on disk.
func (r *run) save() error {
	r.record.Actions = r.record.Actions[:0]
	for _, a := range r.actions {
		b, err := proto.Marshal(a)
		if err != nil {
			return fmt.Errorf("keep the actions of task %s: %w", r.task, err)
		}
		r.record.Actions = append(r.record.Actions, b)
	}
	return r.o.Journal.Save(r.record)
}

// round takes the threat down once. The order matters: the tree is frozen
// before anything else, so that it cannot react; the evidence is on disk before
// the first kill, because afterwards the connection that led to it is gone.
func (r *run) round(ctx context.Context, e assess.Evidence) error {
	tree, freezeErr := r.o.Stopper.Freeze(ctx, e.Live(), inodes(e))
	// Freeze returns the tree with its error too: what it holds must be let go of.
	defer func() { tree.Close() }()
	stopped := r.o.Now().UTC()
	if r.record.Stopped.IsZero() && len(e.Live()) > 0 {
		r.record.Stopped = stopped
	}
	r.mergeTree(tree)
	saved := r.save()
	r.destroySockets(tree)
	if saved == nil {
		// They vanish with the last process that runs them.
		r.keepNameless(tree)
	}
	for _, o := range tree.Kill() {
		r.act("stop", ProcessObject(o.Process.ID), o.Err, "")
	}
	if saved != nil {
		// Nothing else is touched without a journal.
		return saved
	}
	if freezeErr != nil {
		r.o.Log.Warn("tree was killed while it still moved", "task", r.task, "error", freezeErr)
	}
	r.o.Collector.Persistence(&r.record.Evidence)
	if err := r.save(); err != nil {
		return err
	}
	r.disable(ctx)
	r.vaultFiles()
	return r.save()
}

// mergeTree notes processes that Freeze found beyond the evidence.
func (r *run) mergeTree(t *Tree) {
	for _, m := range t.members {
		if !slices.ContainsFunc(r.record.Evidence.Processes, func(s assess.Suspect) bool { return s.ID == m.process.ID }) {
			r.record.Evidence.Processes = append(r.record.Evidence.Processes,
				assess.Suspect{Process: m.process, Why: "it appeared in the tree while that was being stopped"})
		}
	}
}

func inodes(e assess.Evidence) map[procfs.FileID]bool {
	set := make(map[procfs.FileID]bool)
	for _, f := range e.Files {
		if !f.File.IsZero() && !f.Taken {
			set[f.File] = true
		}
	}
	return set
}

// act notes an action. A repeated one replaces what was noted before, unless
// that was a success.
func (r *run) act(verb, object string, err error, vaultID string) {
	a := &wirev1.Action{Verb: verb, ObjectId: object, VaultId: vaultID, At: timestamppb.New(r.o.Now())}
	var refusal *guard.Refusal
	switch {
	case err == nil:
		a.Outcome = wirev1.ActionOutcome_ACTION_OUTCOME_DONE
	case errors.As(err, &refusal):
		a.Outcome, a.Error = wirev1.ActionOutcome_ACTION_OUTCOME_REFUSED, printable(err.Error())
	default:
		a.Outcome, a.Error = wirev1.ActionOutcome_ACTION_OUTCOME_FAILED, printable(err.Error())
	}
	for i, old := range r.actions {
		if old.GetVerb() != verb || old.GetObjectId() != object || old.GetVaultId() != "" && vaultID != "" && old.GetVaultId() != vaultID {
			continue
		}
		if old.GetOutcome() != wirev1.ActionOutcome_ACTION_OUTCOME_DONE {
			r.actions[i] = a
		}
		return
	}
	r.actions = append(r.actions, a)
}

func (r *run) destroySockets(t *Tree) {
	sockets, err := r.o.Collector.Sockets(r.flows)
	if err != nil {
		r.o.Log.Warn("connections of the tree could not be listed", "task", r.task, "error", err)
		return
	}
	wanted := make(map[uint64]bool)
	for _, s := range sockets {
		wanted[s.Inode] = s.Inode != 0
	}
	holders, err := r.o.Collector.Proc.SocketHolders(wanted)
	if err != nil {
		r.o.Log.Warn("holders of connections could not be listed", "task", r.task, "error", err)
		return
	}
	for _, s := range sockets {
		held := holders[s.Inode]
		if s.Inode == 0 || len(held) == 0 || !slices.ContainsFunc(held, t.holds) {
			continue
		}
		r.act("destroy-socket", SocketObject(s), destroy(s), "")
	}
}

// holds reports whether the tree has the process.
func (t *Tree) holds(pid int) bool {
	for id, m := range t.members {
		if id.PID == pid && m.fd >= 0 {
			return true
		}
	}
	return false
}

// watch looks at the host until its time is over or something of the threat
// runs again.
func (r *run) watch(ctx context.Context) (assess.Evidence, error) {
	end := time.Now().Add(r.o.Watch)
	for {
		_, e, err := r.o.Collector.Look(r.flows, r.record.Evidence.Known())
		if err != nil {
			return assess.Evidence{}, err
		}
		if live := e.Live(); len(live) > 0 {
			for _, p := range live {
				r.back = append(r.back, fmt.Sprintf("pid %d (%s) came back, started by pid %d", p.PID, p.Exe, p.PPID))
			}
			return e, nil
		}
		if time.Now().After(end) {
			return e, nil
		}
		select {
		case <-ctx.Done():
			return assess.Evidence{}, nil
		case <-time.After(lookPeriod):
		}
	}
}
