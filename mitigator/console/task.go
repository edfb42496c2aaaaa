package console

import (
	"strings"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

// maxListed bounds the objects, actions and reasons of a task that a page shows.
const maxListed = 200

// taskView is one order to an agent and what came of it, in words.
type taskView struct {
	Kind    string
	ID      string
	Agent   string
	Outcome badge
	// Summary counts what was found and done.
	Summary string
	// Took is how long the agent worked; Stopped how long until the process tree
	// stood still. Both empty when unknown.
	Took, Stopped             string
	Created, Delivered, Ended moment
	// ToDelivery and ToEnd count from when it was ordered.
	ToDelivery, ToEnd string
	Observer, Version string
	Reasons           []string
	Found             []foundView
	Done              []actionView
	// More says how many entries the page left out; empty for none.
	More string
}

// foundView is one thing that belongs to the threat.
type foundView struct {
	Kind, Name, Reason, SHA256 string
	Deleted                    bool
}

// actionView is one thing that the agent did, or did not.
type actionView struct {
	Text string
	Tone tone
	// Vault is the id that brings it back; empty when nothing can.
	Vault string
	At    moment
	// After counts from when the agent began.
	After string
}

func (c *Console) taskView(t *wirev1.TaskInfo) taskView {
	r := t.GetResult()
	v := taskView{
		Kind: taskWords(t.GetKind()), ID: clean(t.GetId(), maxName), Agent: clean(t.GetAgentId(), maxName),
		Outcome: outcome(t), Summary: summary(r),
		Took: between(r.GetStartedAt(), r.GetFinishedAt()), Stopped: between(r.GetStartedAt(), r.GetStoppedAt()),
		Created: c.moment(t.GetCreatedAt()), Delivered: c.moment(t.GetDeliveredAt()), Ended: c.moment(t.GetEndedAt()),
		ToDelivery: between(t.GetCreatedAt(), t.GetDeliveredAt()), ToEnd: between(t.GetCreatedAt(), t.GetEndedAt()),
		Observer: clean(r.GetObserver(), maxName), Version: clean(r.GetAgentVersion(), maxName),
	}
	names := make(map[string]string, len(r.GetObjects()))
	for _, o := range r.GetObjects() {
		names[o.GetId()] = o.GetName()
	}
	for _, reason := range first(r.GetReasons()) {
		v.Reasons = append(v.Reasons, clean(reason, maxText))
	}
	for _, o := range first(r.GetObjects()) {
		v.Found = append(v.Found, foundView{
			Kind: objectWords(o.GetKind(), 1), Name: clean(o.GetName(), maxText), Reason: clean(o.GetReason(), maxText),
			SHA256: clean(o.GetSha256(), 64), Deleted: o.GetDeleted(),
		})
	}
	for _, a := range first(r.GetActions()) {
		name, ok := names[a.GetObjectId()]
		if !ok {
			name = a.GetObjectId()
		}
		text, tone := actionWords(a, name)
		v.Done = append(v.Done, actionView{Text: text, Tone: tone, Vault: clean(a.GetVaultId(), maxName),
			At: c.moment(a.GetAt()), After: between(r.GetStartedAt(), a.GetAt())})
	}
	if n := len(r.GetReasons()) + len(r.GetObjects()) + len(r.GetActions()) - len(v.Reasons) - len(v.Found) - len(v.Done); n > 0 {
		v.More = plural(n, "more entry is", "more entries are") + " not shown here"
	}
	return v
}

func first[T any](all []T) []T { return all[:min(len(all), maxListed)] }

// outcome says how far a task came, and what the agent's result comes down to.
func outcome(t *wirev1.TaskInfo) badge {
	switch t.GetState() {
	case "pending":
		return badge{"waiting for the agent", busy}
	case "delivered":
		return badge{"the agent is at it", busy}
	case "expired":
		return badge{"the agent did not answer in time", alarm}
	case "cancelled":
		return badge{"called back", calm}
	}
	r := t.GetResult()
	switch r.GetStatus() {
	case wirev1.TaskStatus_TASK_STATUS_FAILED:
		return badge{"the agent could not carry it out", alarm}
	case wirev1.TaskStatus_TASK_STATUS_CANCELLED:
		return badge{"called back", calm}
	case wirev1.TaskStatus_TASK_STATUS_UNRESOLVED:
		return badge{"something of the threat is left", alarm}
	case wirev1.TaskStatus_TASK_STATUS_DONE:
		return doneBadge(t.GetKind(), r.GetVerdict())
	}
	return known(t.GetState(), nil)
}

func doneBadge(kind wirev1.TaskKind, verdict wirev1.Verdict) badge {
	switch {
	case kind == wirev1.TaskKind_TASK_KIND_RESTORE:
		return badge{"brought back", good}
	case verdict == wirev1.Verdict_VERDICT_NOT_CONFIRMED:
		return badge{"not confirmed: nothing of it was found", good}
	case kind == wirev1.TaskKind_TASK_KIND_CLEAN:
		return badge{"gone: a second assessment found nothing more", good}
	case verdict == wirev1.Verdict_VERDICT_CONFIRMED:
		return badge{"confirmed", alarm}
	}
	return badge{"the agent could not tell", warning}
}

// objectWords names n things of a kind, without the number.
func objectWords(kind wirev1.ObjectKind, n int) string {
	one, many := "object", "objects"
	switch kind {
	case wirev1.ObjectKind_OBJECT_KIND_PROCESS:
		one, many = "process", "processes"
	case wirev1.ObjectKind_OBJECT_KIND_FILE:
		one, many = "file", "files"
	case wirev1.ObjectKind_OBJECT_KIND_SOCKET:
		one, many = "connection", "connections"
	case wirev1.ObjectKind_OBJECT_KIND_PERSISTENCE:
		one, many = "start entry", "start entries"
	}
	if n == 1 {
		return one
	}
	return many
}

// deed is how a verb reads.
type deed struct{ done, already, infinitive, one, many string }

func deedOf(verb string) deed {
	switch verb {
	case "stop":
		return deed{"Stopped", "Had stopped already:", "stop", "process stopped", "processes stopped"}
	case "vault":
		return deed{"Moved into the vault:", "Was gone already:", "move into the vault:", "file moved into the vault", "files moved into the vault"}
	case "disable":
		return deed{"Disabled", "Was disabled already:", "disable", "start entry disabled", "start entries disabled"}
	case "destroy-socket":
		return deed{"Cut the connection", "Was cut already:", "cut the connection", "connection cut", "connections cut"}
	}
	verb = clean(verb, 40)
	return deed{"Done (" + verb + "):", "Was so already (" + verb + "):", verb, verb + " done", verb + " done"}
}

func actionWords(a *wirev1.Action, name string) (string, tone) {
	d := deedOf(a.GetVerb())
	name = clean(name, maxText)
	why := ""
	if a.GetError() != "" {
		why = ": " + clean(a.GetError(), maxText)
	}
	switch a.GetOutcome() {
	case wirev1.ActionOutcome_ACTION_OUTCOME_DONE:
		return d.done + " " + name, good
	case wirev1.ActionOutcome_ACTION_OUTCOME_ALREADY:
		return d.already + " " + name, good
	case wirev1.ActionOutcome_ACTION_OUTCOME_REFUSED:
		return "The guard refused to " + d.infinitive + " " + name + why, warning
	}
	return "Could not " + d.infinitive + " " + name + why, alarm
}

// summary counts what was found, done and not done.
func summary(r *wirev1.TaskResult) string {
	if r == nil {
		return ""
	}
	kinds := make(map[wirev1.ObjectKind]int)
	for _, o := range r.GetObjects() {
		kinds[o.GetKind()]++
	}
	var found []string
	for kind := range wirev1.ObjectKind(len(wirev1.ObjectKind_name)) {
		if n := kinds[kind]; n > 0 {
			found = append(found, plural(n, objectWords(kind, 1), objectWords(kind, 2)))
		}
	}
	text := "Nothing was found."
	if len(found) > 0 {
		text = "Found " + strings.Join(found, ", ") + "."
	}
	if done := deeds(r.GetActions()); done != "" {
		text += " " + done + "."
	}
	return text
}

func deeds(actions []*wirev1.Action) string {
	verbs := make(map[string]int)
	var order []string
	missed := 0
	for _, a := range actions {
		if a.GetOutcome() != wirev1.ActionOutcome_ACTION_OUTCOME_DONE && a.GetOutcome() != wirev1.ActionOutcome_ACTION_OUTCOME_ALREADY {
			missed++
			continue
		}
		if verbs[a.GetVerb()] == 0 {
			order = append(order, a.GetVerb())
		}
		verbs[a.GetVerb()]++
	}
	var parts []string
	for _, verb := range order[:min(len(order), 8)] {
		d := deedOf(verb)
		parts = append(parts, plural(verbs[verb], d.one, d.many))
	}
	if missed > 0 {
		parts = append(parts, plural(missed, "action failed or refused", "actions failed or refused"))
	}
	return strings.Join(parts, ", ")
}
