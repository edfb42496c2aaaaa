package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cordon-security/cordon/agent/assess"
	"github.com/cordon-security/cordon/agent/clean"
	"github.com/cordon-security/cordon/agent/link"
	"github.com/cordon-security/cordon/agent/vault"
	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

const (
	maxFlows    = 256
	maxVaultIDs = 1024
	// maxHashed bounds what is read of a file for its hash, in bytes.
	maxHashed = 256 << 20
)

// Execute carries out a task, as link.Executor describes. A task that is
// finished already gets the result that it had; one that was interrupted goes
// on.
func (a *Agent) Execute(ctx context.Context, task *wirev1.Task) *wirev1.TaskResult {
	result := &wirev1.TaskResult{
		TaskId: task.GetId(), StartedAt: timestamppb.Now(), Observer: a.source.Name(), AgentVersion: a.o.Version,
	}
	if old := a.finished(task.GetId()); old != nil {
		return old
	}
	var err error
	switch task.GetKind() {
	case wirev1.TaskKind_TASK_KIND_ASSESS:
		err = a.assess(task, result)
	case wirev1.TaskKind_TASK_KIND_CLEAN:
		err = a.clean(ctx, task, result)
	case wirev1.TaskKind_TASK_KIND_RESTORE:
		err = a.restore(task, result)
	default:
		err = fmt.Errorf("this agent does not know tasks of kind %d; update it", task.GetKind())
	}
	if err != nil {
		result.Status = wirev1.TaskStatus_TASK_STATUS_FAILED
		result.Reasons = append(result.Reasons, err.Error())
	}
	if errors.Is(context.Cause(ctx), link.ErrCancelled) && result.GetStatus() != wirev1.TaskStatus_TASK_STATUS_DONE {
		result.Status = wirev1.TaskStatus_TASK_STATUS_CANCELLED
	}
	result.FinishedAt = timestamppb.Now()
	printable(result.ProtoReflect())
	if ctx.Err() == nil || result.GetStatus() == wirev1.TaskStatus_TASK_STATUS_DONE {
		if err := a.finish(result); err != nil {
			a.o.Log.Error("result was not kept", "task", task.GetId(), "error", err)
		}
	}
	a.o.Log.Info("task carried out", "task", task.GetId(), "kind", task.GetKind().String(),
		"status", result.GetStatus().String(), "verdict", result.GetVerdict().String())
	return result
}

// finished returns the result of a task that came to its end before.
func (a *Agent) finished(task string) *wirev1.TaskResult {
	r, err := a.journal.Load(task)
	if err != nil || len(r.Result) == 0 {
		return nil
	}
	var result wirev1.TaskResult
	if err := proto.Unmarshal(r.Result, &result); err != nil {
		return nil
	}
	return &result
}

func (a *Agent) finish(result *wirev1.TaskResult) error {
	r, err := a.journal.Load(result.GetTaskId())
	if err != nil {
		return err
	}
	if r.Started.IsZero() {
		r.Started = result.GetStartedAt().AsTime()
	}
	if r.Result, err = proto.Marshal(result); err != nil {
		return fmt.Errorf("keep the result of task %s: %w", result.GetTaskId(), err)
	}
	return a.journal.Save(r)
}

// assess answers as soon as there is a verdict: the threat runs on until then.
// What starts it takes ten times as long to find, and no verdict rests on it; a
// cleanup looks for it once the processes are stopped.
func (a *Agent) assess(task *wirev1.Task, result *wirev1.TaskResult) error {
	flows, err := flowsOf(task)
	if err != nil {
		return err
	}
	_, e, err := a.collector.Look(flows, assess.Known{})
	if err != nil {
		return err
	}
	result.Status = wirev1.TaskStatus_TASK_STATUS_DONE
	result.Verdict = verdictOf(e.Verdict)
	result.Reasons = e.Reasons
	result.Objects = clean.Objects(e, a.hashes(e))
	return nil
}

func (a *Agent) clean(ctx context.Context, task *wirev1.Task, result *wirev1.TaskResult) error {
	flows, err := flowsOf(task)
	if err != nil {
		return err
	}
	done, err := a.cleaner.Clean(ctx, task.GetId(), flows)
	result.Verdict = verdictOf(done.Evidence.Verdict)
	result.Reasons = slices.Concat(done.Evidence.Reasons, done.Left)
	result.Actions = done.Actions
	result.Objects = clean.Objects(a.withEarlier(task.GetId(), done.Evidence), a.vaulted(task.GetId()))
	if !done.Stopped.IsZero() {
		result.StoppedAt = timestamppb.New(done.Stopped)
	}
	if err != nil {
		return err
	}
	switch {
	case done.Clean, done.Evidence.Verdict == assess.NotConfirmed:
		result.Status = wirev1.TaskStatus_TASK_STATUS_DONE
	default:
		result.Status = wirev1.TaskStatus_TASK_STATUS_UNRESOLVED
	}
	return nil
}

// withEarlier adds the processes that the task found before the machine started
// again: actions refer to them.
func (a *Agent) withEarlier(task string, e assess.Evidence) assess.Evidence {
	r, err := a.journal.Load(task)
	if err != nil {
		a.o.Log.Warn("journal could not be read", "task", task, "error", err)
	}
	e.Processes = slices.Concat(r.Earlier, e.Processes)
	return e
}

func (a *Agent) restore(task *wirev1.Task, result *wirev1.TaskResult) error {
	if n := len(task.GetVaultIds()); n == 0 || n > maxVaultIDs {
		return fmt.Errorf("a restore names 1 to %d vault items, not %d", maxVaultIDs, n)
	}
	result.Status = wirev1.TaskStatus_TASK_STATUS_DONE
	for _, id := range task.GetVaultIds() {
		action := &wirev1.Action{Verb: "restore", VaultId: id, At: timestamppb.Now(), Outcome: wirev1.ActionOutcome_ACTION_OUTCOME_DONE}
		item, err := a.vault.Restore(id, false)
		if err == nil && strings.Contains(item.Name(), "/systemd/") && a.units != nil {
			err = a.units.Reload(context.Background(), "")
		}
		if err != nil {
			action.Outcome, action.Error = wirev1.ActionOutcome_ACTION_OUTCOME_FAILED, err.Error()
			result.Status = wirev1.TaskStatus_TASK_STATUS_UNRESOLVED
			result.Reasons = append(result.Reasons, err.Error())
		}
		result.Actions = append(result.Actions, action)
	}
	return nil
}

// Assess looks at one remote side and changes nothing.
func (a *Agent) Assess(flow assess.Flow) (assess.Facts, assess.Evidence, error) {
	f, e, err := a.collector.Look([]assess.Flow{flow}, assess.Known{})
	if err == nil && e.Verdict == assess.Confirmed {
		a.collector.Persistence(&e)
	}
	return f, e, err
}

func verdictOf(v assess.Verdict) wirev1.Verdict {
	switch v {
	case assess.Confirmed:
		return wirev1.Verdict_VERDICT_CONFIRMED
	case assess.NotConfirmed:
		return wirev1.Verdict_VERDICT_NOT_CONFIRMED
	default:
		return wirev1.Verdict_VERDICT_UNKNOWN
	}
}

// flowsOf checks and converts a task's flows.
func flowsOf(task *wirev1.Task) ([]assess.Flow, error) {
	if n := len(task.GetFlows()); n == 0 || n > maxFlows {
		return nil, fmt.Errorf("a task names 1 to %d flows, not %d", maxFlows, n)
	}
	flows := make([]assess.Flow, 0, len(task.GetFlows()))
	for i, f := range task.GetFlows() {
		remote, err := endpoint(f.GetRemoteAddress(), f.GetRemotePort())
		if err != nil {
			return nil, fmt.Errorf("flow %d: remote side: %w", i, err)
		}
		local, err := endpoint(f.GetLocalAddress(), f.GetLocalPort())
		if err != nil && len(f.GetLocalAddress()) > 0 {
			return nil, fmt.Errorf("flow %d: local side: %w", i, err)
		}
		flow := assess.Flow{Protocol: uint8(min(f.GetProtocol(), 255)), Local: local, Remote: remote}
		if f.GetSeenAt() != nil {
			flow.SeenAt = f.GetSeenAt().AsTime()
		}
		if flow.Protocol == 0 {
			flow.Protocol = syscall.IPPROTO_TCP
		}
		flows = append(flows, flow)
	}
	return flows, nil
}

func endpoint(address []byte, port uint32) (netip.AddrPort, error) {
	a, ok := netip.AddrFromSlice(address)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("an address has 4 or 16 bytes, not %d", len(address))
	}
	if port > 65535 {
		return netip.AddrPort{}, fmt.Errorf("%d is no port", port)
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(port)), nil
}

// hashes reads the files of an assessment.
func (a *Agent) hashes(e assess.Evidence) map[string]string {
	sums := make(map[string]string)
	for _, f := range e.Files {
		open, err := a.content(f)
		if err != nil {
			continue
		}
		h := sha256.New()
		n, err := io.Copy(h, io.LimitReader(open, maxHashed+1))
		if err == nil && n <= maxHashed {
			sums[f.Path] = hex.EncodeToString(h.Sum(nil))
		}
		_ = open.Close()
	}
	return sums
}

func (a *Agent) content(f assess.SuspectFile) (*os.File, error) {
	if f.Deleted {
		return a.collector.Executable(f.PID)
	}
	return os.OpenFile(filepath.Join(a.o.Root, f.Path), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
}

// vaulted takes the hashes from what the task moved into the vault.
func (a *Agent) vaulted(task string) map[string]string {
	sums := make(map[string]string)
	items, err := a.vault.List()
	if err != nil {
		a.o.Log.Warn("vault could not be listed", "task", task, "error", err)
		return sums
	}
	for _, i := range items {
		if i.Task == task && i.Kind == vault.File {
			sums[i.Name()] = i.SHA256
		}
	}
	return sums
}
