package main

import (
	"fmt"
	"strings"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

// taskPart writes what one agent was asked, found and did.
func taskPart(p *page, task *wirev1.TaskInfo) {
	p.heading(fmt.Sprintf("%s by agent %s", taskKind(task.GetKind()), task.GetAgentId()))
	p.field("task", task.GetId()+", "+taskState(task.GetState()))
	p.field("ordered", p.when(task.GetCreatedAt()))
	p.field("delivered", p.when(task.GetDeliveredAt()))
	p.field("ended", p.when(task.GetEndedAt()))
	if r := task.GetResult(); r != nil {
		resultPart(p, r)
	}
}

func resultPart(p *page, r *wirev1.TaskResult) {
	p.line(text("outcome       "), outcome(r.GetStatus()))
	p.field("verdict", verdict(r.GetVerdict()))
	for _, reason := range r.GetReasons() {
		p.field("", reason)
	}
	if isTime(r.GetStartedAt()) && isTime(r.GetFinishedAt()) {
		worked := "finished " + strings.TrimPrefix(delta(r.GetFinishedAt().AsTime().Sub(r.GetStartedAt().AsTime())), "+") + " after its start"
		if isTime(r.GetStoppedAt()) {
			worked += "; the processes were stopped " + strings.TrimPrefix(delta(r.GetStoppedAt().AsTime().Sub(r.GetStartedAt().AsTime())), "+") + " after it"
		}
		p.field("time", worked)
	}
	p.field("seen by", observerWords(r.GetObserver()))
	names := make(map[string]string, len(r.GetObjects()))
	for _, o := range r.GetObjects() {
		names[o.GetId()] = o.GetName()
		p.field("found", found(o))
	}
	for _, a := range r.GetActions() {
		p.line(text("did           "), did(a, names[a.GetObjectId()]))
	}
}

func taskKind(k wirev1.TaskKind) string {
	switch k {
	case wirev1.TaskKind_TASK_KIND_ASSESS:
		return "Assessment"
	case wirev1.TaskKind_TASK_KIND_CLEAN:
		return "Cleanup"
	case wirev1.TaskKind_TASK_KIND_RESTORE:
		return "Restore"
	}
	return "Task"
}

func taskState(state string) string {
	switch state {
	case "pending":
		return "waits for the agent"
	case "delivered":
		return "the agent is at it"
	case "done":
		return "done"
	case "expired":
		return "expired: the agent did not answer in time"
	case "cancelled":
		return "called back"
	}
	return state
}

func outcome(s wirev1.TaskStatus) cell {
	switch s {
	case wirev1.TaskStatus_TASK_STATUS_DONE:
		return cell{"done", good}
	case wirev1.TaskStatus_TASK_STATUS_UNRESOLVED:
		return cell{"UNRESOLVED: something of the threat is left", bad}
	case wirev1.TaskStatus_TASK_STATUS_FAILED:
		return cell{"FAILED: the agent could not do it", bad}
	case wirev1.TaskStatus_TASK_STATUS_CANCELLED:
		return cell{"called back", care}
	}
	return text("unknown")
}

func verdict(v wirev1.Verdict) string {
	switch v {
	case wirev1.Verdict_VERDICT_CONFIRMED:
		return "confirmed: the threat is there"
	case wirev1.Verdict_VERDICT_NOT_CONFIRMED:
		return "not confirmed: nothing of the threat was found"
	case wirev1.Verdict_VERDICT_UNKNOWN:
		return "the agent could not tell"
	}
	return "none"
}

func observerWords(observer string) string {
	switch observer {
	case "bpf":
		return "kernel tracepoints (bpf)"
	case "proc-connector":
		return "the kernel's process events (proc-connector)"
	case "poll":
		return "polling, which may miss what lives shortly"
	}
	return observer
}

// found says what an object is and why it belongs to the threat.
func found(o *wirev1.Object) string {
	words := objectKind(o.GetKind()) + " " + o.GetName()
	if o.GetDeleted() {
		words += " (deleted)"
	}
	if o.GetReason() != "" {
		words += ": " + o.GetReason()
	}
	if o.GetSha256() != "" {
		words += "; SHA-256 " + o.GetSha256()
	}
	return words
}

func objectKind(k wirev1.ObjectKind) string {
	switch k {
	case wirev1.ObjectKind_OBJECT_KIND_PROCESS:
		return "process"
	case wirev1.ObjectKind_OBJECT_KIND_FILE:
		return "file"
	case wirev1.ObjectKind_OBJECT_KIND_SOCKET:
		return "connection"
	case wirev1.ObjectKind_OBJECT_KIND_PERSISTENCE:
		return "persistence"
	}
	return "object"
}

// did says what was done to an object, or why it was not.
func did(a *wirev1.Action, name string) cell {
	if name == "" {
		name = a.GetObjectId()
	}
	words := verbWords(a.GetVerb(), a.GetOutcome()) + " " + name
	c := cell{words, plain}
	switch a.GetOutcome() {
	case wirev1.ActionOutcome_ACTION_OUTCOME_FAILED:
		c = cell{words + ": FAILED", bad}
	case wirev1.ActionOutcome_ACTION_OUTCOME_REFUSED:
		c = cell{words + ": refused by the agent's guard", care}
	case wirev1.ActionOutcome_ACTION_OUTCOME_ALREADY:
		c.text += " (it was so already)"
	}
	if a.GetError() != "" {
		c.text += ": " + a.GetError()
	}
	if a.GetVaultId() != "" {
		c.text += "; undo it on the endpoint with `cordon-agent restore " + a.GetVaultId() + "`"
	}
	return c
}

// verbWords is the verb as a person says it, in the past where it was done.
func verbWords(verb string, o wirev1.ActionOutcome) string {
	done := o == wirev1.ActionOutcome_ACTION_OUTCOME_DONE || o == wirev1.ActionOutcome_ACTION_OUTCOME_ALREADY
	words := map[string][2]string{
		"stop":           {"stop", "stopped"},
		"vault":          {"take into the vault", "took into the vault"},
		"disable":        {"disable", "disabled"},
		"destroy-socket": {"cut", "cut"},
	}[verb]
	switch {
	case words[0] == "":
		return verb
	case done:
		return words[1]
	}
	return words[0]
}
