package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
	"github.com/cordon-security/cordon/mitigator/endpoint"
	"github.com/cordon-security/cordon/mitigator/fleet"
	"github.com/cordon-security/cordon/mitigator/store"
	"github.com/cordon-security/cordon/mitigator/threat"
)

var _ fleet.Lifecycle = (*Engine)(nil)

// PendingTasks lists an agent's tasks without a durable result, oldest first.
func (e *Engine) PendingTasks(ctx context.Context, agentID string) ([]*wirev1.Task, error) {
	var out []*wirev1.Task
	err := e.store.View(ctx, func(v store.View) error {
		tasks, err := v.OpenTasks(agentID)
		if err != nil {
			return fmt.Errorf("open tasks of agent %s: %w", agentID, err)
		}
		for _, task := range tasks {
			t, err := v.Threat(task.ThreatID)
			if err != nil {
				return fmt.Errorf("threat of task %s: %w", task.ID, err)
			}
			out = append(out, e.wire(task, t))
		}
		return nil
	})
	return out, err
}

func (e *Engine) wire(task threat.Task, t threat.Threat) *wirev1.Task {
	w := &wirev1.Task{
		Id: task.ID, ThreatId: t.ID, CreatedAt: timestamppb.New(task.CreatedAt), Signature: t.Signature,
		Kind: wirev1.TaskKind_TASK_KIND_ASSESS,
	}
	if task.Kind == threat.Clean {
		w.Kind = wirev1.TaskKind_TASK_KIND_CLEAN
	}
	// A task that was delivered before has only the rest of its time, so that both
	// sides give up together.
	limit := task.Limit
	if task.State == threat.TaskDelivered {
		limit = max(0, task.Due().Sub(e.now()))
	}
	w.Limit = durationpb.New(limit)
	w.Deadline = timestamppb.New(e.now().Add(limit))
	for _, f := range t.Flows {
		w.Flows = append(w.Flows, &wirev1.Flow{
			Protocol: uint32(f.Proto), Outbound: f.Outbound, SeenAt: timestamppb.New(f.At),
			LocalAddress: f.Local.Addr().AsSlice(), LocalPort: uint32(f.Local.Port()),
			RemoteAddress: f.Remote.Addr().AsSlice(), RemotePort: uint32(f.Remote.Port()),
		})
	}
	return w
}

// TaskDelivered starts the clock of the work on a task.
func (e *Engine) TaskDelivered(ctx context.Context, agentID, taskID string) error {
	return e.urgently(ctx, func(j *job) error {
		task, err := j.tx.Task(taskID)
		if err != nil {
			return fmt.Errorf("task %s: %w", taskID, err)
		}
		if task.AgentID != agentID {
			return fleet.ErrNotYourTask
		}
		if task.State != threat.TaskPending {
			return nil
		}
		task.State, task.DeliveredAt = threat.TaskDelivered, j.now
		return j.tx.SetTask(task)
	})
}

// maxUrgentReport is how large a result may be, in bytes, to use up the reserve
// on a full disk: what decides an endpoint's fate is small, evidence can wait.
const maxUrgentReport = 16 << 10

// Report takes an agent's result in. It is durable on return; the same result
// again changes nothing. A result that comes after its task expired or was
// cancelled is kept with the task and noted, and decides nothing any more. On a
// full disk the error wraps store.ErrFull, and the agent keeps the result and
// reports again.
func (e *Engine) Report(ctx context.Context, agentID string, r *wirev1.TaskResult) error {
	if proto.Size(r) <= maxUrgentReport {
		ctx = store.Urgent(ctx)
	}
	return e.update(ctx, func(j *job) error {
		task, err := j.tx.Task(r.GetTaskId())
		if errors.Is(err, store.ErrNotFound) {
			return fleet.ErrNotYourTask
		}
		if err != nil {
			return fmt.Errorf("task %s: %w", r.GetTaskId(), err)
		}
		if task.AgentID != agentID {
			return fleet.ErrNotYourTask
		}
		if task.Result != nil {
			return nil
		}
		return e.report(j, task, r)
	})
}

func (e *Engine) report(j *job, task threat.Task, r *wirev1.TaskResult) error {
	raw, err := proto.Marshal(r)
	if err != nil {
		return fmt.Errorf("result of task %s: %w", task.ID, err)
	}
	open := task.State.Open()
	calledBack := task.State == threat.TaskCancelled && r.GetStatus() == wirev1.TaskStatus_TASK_STATUS_CANCELLED
	task.Result = raw
	if open {
		task.State, task.EndedAt = threat.TaskDone, j.now
	}
	if err := j.tx.SetTask(task); err != nil {
		return err
	}
	if calledBack {
		return nil // the agent only says that it stopped
	}
	t, err := j.tx.Threat(task.ThreatID)
	if err != nil {
		return fmt.Errorf("threat of task %s: %w", task.ID, err)
	}
	f, ep, err := j.facts(t)
	if err != nil {
		return err
	}
	rep := digest(task, r)
	rep.Actor = "agent:" + ep.Name()
	if !open || t.State.Ended() {
		if err := e.note(j, &t, ep, rep.Actor, fmt.Sprintf("a late result of the %s: %s", task.Kind, rep.Reason)); err != nil {
			return err
		}
		return j.tx.SetThreat(t)
	}
	return e.apply(j, t, f, ep, threat.OnReport(e.policy, f, rep))
}

// digest is what a result comes down to for the life cycle.
func digest(task threat.Task, r *wirev1.TaskResult) threat.Report {
	rep := threat.Report{
		Kind:    task.Kind,
		Cleaned: task.Kind == threat.Clean && r.GetStatus() == wirev1.TaskStatus_TASK_STATUS_DONE,
		Failed: r.GetStatus() == wirev1.TaskStatus_TASK_STATUS_FAILED ||
			r.GetStatus() == wirev1.TaskStatus_TASK_STATUS_UNRESOLVED || r.GetStatus() == wirev1.TaskStatus_TASK_STATUS_CANCELLED,
		Reason: strings.Join(r.GetReasons(), "; "),
	}
	switch r.GetVerdict() {
	case wirev1.Verdict_VERDICT_CONFIRMED:
		rep.Verdict = threat.IsConfirmed
	case wirev1.Verdict_VERDICT_NOT_CONFIRMED:
		rep.Verdict = threat.IsNotConfirmed
	}
	if rep.Reason == "" {
		rep.Reason = fmt.Sprintf("the %s ended without a reason given", task.Kind)
	}
	return rep
}

// maxHostname is DNS's bound on a name (RFC 1035, section 2.3.4).
const maxHostname = 253

// Observe takes in an agent's own view of its endpoint. Which machine it speaks
// for is decided by where its connection comes from and which MAC a device sees
// there, never by its own word: an agent that named another machine's MAC would
// answer that machine's assessments, and could have it cut off.
func (e *Engine) Observe(ctx context.Context, agentID string, source netip.Addr, o *wirev1.ObserveRequest) error {
	if len(o.GetHostname()) > maxHostname {
		return fmt.Errorf("host name of %d bytes: at most %d", len(o.GetHostname()), maxHostname)
	}
	bindings, err := e.parseBindings(o.GetBindings(), endpoint.AgentSource+agentID)
	if err != nil {
		return err
	}
	return e.update(ctx, func(j *job) error {
		ep, err := e.agentEndpoint(j, agentID, hostName(o.GetHostname()), source)
		if err != nil {
			return fmt.Errorf("endpoint of agent %s: %w", agentID, err)
		}
		for _, b := range bindings {
			if !slices.Contains(ep.MACs, b.MAC) {
				continue
			}
			if err := e.agentBinding(j, ep, b); err != nil {
				return err
			}
		}
		return nil
	})
}

// maxAgentBindings is how many addresses of one MAC may stand on an agent's word.
const maxAgentBindings = 64

// agentBinding opens a binding on an agent's word: from now on, never in the
// past, and only for an address that nobody else is known by.
func (e *Engine) agentBinding(j *job, ep endpoint.Endpoint, b seen) error {
	b.From, b.LastSeen = j.now, j.now
	why, err := e.notTheAgents(j, ep, b)
	if err != nil {
		return fmt.Errorf("who has %s: %w", b.Addr, err)
	}
	if why != "" {
		j.say("an agent's claim to an address is not believed", "address", b.Addr, "mac", b.MAC, "source", b.Source, "why", why)
		return nil
	}
	e.neighbors.forget(b.Addr)
	return e.bind(j, b)
}

// notTheAgents says why an address is not believed to be the agent's endpoint's;
// empty when it is.
func (e *Engine) notTheAgents(j *job, ep endpoint.Endpoint, b seen) (string, error) {
	held, err := j.tx.Bindings(b.Addr)
	if err != nil {
		return "", err
	}
	for _, h := range held {
		if h.Until.IsZero() && h.MAC == b.MAC {
			return "", nil
		}
		if h.Until.IsZero() && !slices.Contains(ep.MACs, h.MAC) {
			return "it is " + h.MAC.String() + "'s by " + h.Source, nil
		}
	}
	other, known, err := j.tx.EndpointByAddress(b.Addr)
	if err != nil {
		return "", err
	}
	if known && other.ID != ep.ID {
		return "endpoint " + other.Name() + " is known by it", nil
	}
	own, err := j.tx.BindingsOfMAC(b.MAC)
	if err != nil {
		return "", err
	}
	if len(own) >= maxAgentBindings {
		return fmt.Sprintf("%s has %d addresses already", b.MAC, len(own)), nil
	}
	return "", nil
}

// AgentConnected notes whether an agent's channel is open. When it closes, what
// was delivered and not answered waits for the agent again, for as long as any
// task does: that it was written to a connection which then broke says nothing
// of the endpoint.
func (e *Engine) AgentConnected(ctx context.Context, agentID string, connected bool) {
	e.log.Info("agent", "agent", agentID, "connected", connected)
	if connected {
		return
	}
	err := e.update(context.WithoutCancel(ctx), func(j *job) error {
		tasks, err := j.tx.OpenTasks(agentID)
		if err != nil {
			return err
		}
		for _, task := range tasks {
			if err := e.putBack(j, task); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		e.log.Error("tasks of an agent that left keep their deadlines", "agent", agentID, "err", err)
	}
}

// Recover puts back what was delivered to connections that ended with the
// process before. Call it once, before agents can connect. A disk without any
// room is no reason not to start: those tasks then keep the deadlines they had.
func (e *Engine) Recover(ctx context.Context) error {
	err := e.urgently(ctx, func(j *job) error {
		tasks, err := j.tx.DeliveredTasks()
		if err != nil {
			return fmt.Errorf("tasks under way at the last end: %w", err)
		}
		for _, task := range tasks {
			if err := e.putBack(j, task); err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, store.ErrFull) {
		e.log.Error("tasks under way at the last end keep their deadlines", "err", err)
		return nil
	}
	return err
}

// putBack makes a delivered task wait for its agent again. What was delivered
// late keeps the time that it was given, but altogether a task gets no more than
// the hold and one limit: an endpoint that keeps breaking its connection would
// otherwise never be decided on.
func (e *Engine) putBack(j *job, task threat.Task) error {
	if task.State != threat.TaskDelivered {
		return nil
	}
	if due := task.Due(); due.After(task.HoldUntil) {
		task.HoldUntil = due
	}
	if end := task.CreatedAt.Add(e.policy.Hold + task.Limit); task.HoldUntil.After(end) {
		task.HoldUntil = end
	}
	task.State, task.DeliveredAt = threat.TaskPending, time.Time{}
	return j.tx.SetTask(task)
}

// timeOr is a wire time, or now when it is unset or lies ahead.
func timeOr(ts *timestamppb.Timestamp, now time.Time) time.Time {
	if ts == nil || !ts.IsValid() || ts.AsTime().After(now) {
		return now
	}
	return ts.AsTime()
}
