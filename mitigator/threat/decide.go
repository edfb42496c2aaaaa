package threat

import (
	"fmt"

	"github.com/cordon-security/cordon/mitigator/event"
)

// Facts is what a decision rests on beside the trigger: the threat as it
// stands, and what is known of its endpoint.
type Facts struct {
	Threat Threat
	// AgentName names the endpoint's agent; empty when it has none.
	AgentName string
	// HasMAC reports whether the endpoint is known by a MAC, which a quarantine
	// binds to.
	HasMAC bool
	// Quarantine is the endpoint's active quarantine, if it has one.
	Quarantine *Quarantine
}

// Step is one state to enter, in order.
type Step struct {
	To    State
	Cause string
	Actor string
}

// Decision is what follows from a trigger: states in order, and effects, which
// are made durable in the same transaction.
type Decision struct {
	Steps []Step
	// Task is the order for the endpoint's agent; empty for none.
	Task TaskKind
	// CancelTasks calls back what the agent has not finished.
	CancelTasks bool
	// Quarantine orders the endpoint cut off (or records what would have been
	// ordered, in observe mode), for the reason given.
	Quarantine string
	// Hold makes the threat one that the endpoint's standing quarantine is for.
	Hold bool
	// Release ends the threat's hold on the endpoint's quarantine.
	Release bool
	// WaitingFor replaces the threat's; in words.
	WaitingFor string
}

// ByPolicy is the actor of what no person decided.
const ByPolicy = "policy"

func (d *Decision) step(to State, actor, cause string) {
	d.Steps = append(d.Steps, Step{To: to, Actor: actor, Cause: cause})
}

// OnDetected decides on a threat that was just opened.
func OnDetected(p Policy, f Facts, source string) Decision {
	var d Decision
	t := f.Threat
	d.step(Detected, "source:"+source, fmt.Sprintf("%s (role %s: %s)", t.Signature, t.Role, t.RoleReason))
	d.containFirst(p, f)
	if f.AgentName == "" {
		d.unresolved(p, f, ByPolicy, "the endpoint has no agent", p.NoAgent)
		return d
	}
	d.step(Assessing, ByPolicy, "assessment ordered from the agent on "+f.AgentName)
	d.Task = Assess
	return d
}

// containFirst contains the endpoint before anything is known of it, or holds
// the containment that stands: it must last as long as one assessment runs.
func (d *Decision) containFirst(p Policy, f Facts) {
	switch {
	case !p.containsFirst(f.Threat.Severity) || mayContain(f) != "":
	case f.Quarantine != nil:
		d.Hold = true
	default:
		d.Quarantine = fmt.Sprintf("contained first: severity %s", f.Threat.Severity)
	}
}

// Report is what an agent's result comes down to.
type Report struct {
	Kind    TaskKind
	Verdict Verdict
	// Cleaned reports that a cleanup ended with the threat gone.
	Cleaned bool
	// Failed reports that the agent could not carry the task out.
	Failed bool
	// Reason is the agent's, in words.
	Reason string
	Actor  string
}

// Verdict is an assessment's outcome.
type Verdict int

// The verdicts.
const (
	Unknown Verdict = iota
	IsConfirmed
	IsNotConfirmed
)

// OnReport decides on an agent's result.
func OnReport(p Policy, f Facts, r Report) Decision {
	var d Decision
	switch {
	case r.Kind == Assess && r.Verdict == IsConfirmed && !r.Failed:
		d.step(Confirmed, r.Actor, r.Reason)
		d.step(Cleaning, ByPolicy, "cleanup ordered from the agent on "+f.AgentName)
		d.Task = Clean
	case r.Verdict == IsNotConfirmed && !r.Failed:
		d.step(NotConfirmed, r.Actor, r.Reason)
		d.Release = true
	case r.Kind == Clean && r.Cleaned:
		d.step(Resolved, r.Actor, r.Reason)
		d.Release = true
	default:
		d.unresolved(p, f, r.Actor, r.Reason, p.Unresolved)
	}
	return d
}

// OnTaskExpired decides when an agent did not answer in time.
func OnTaskExpired(p Policy, f Facts, cause string) Decision {
	var d Decision
	d.unresolved(p, f, ByPolicy, cause, p.NoAgent)
	return d
}

// OnInForce decides when a device has read the endpoint's quarantine back. A
// contained endpoint whose assessment still runs stays where it is: it gets a
// note.
func OnInForce(f Facts, device, detail string) Decision {
	var d Decision
	to := f.Threat.State
	if to == Unresolved {
		to = Quarantined
	}
	d.step(to, "device:"+device, "in force, read back"+suffix(detail))
	return d
}

// OnNotInForce decides when a device refuses, holds or suspends a quarantine,
// or has lost it: the threat says what it waits for.
func OnNotInForce(f Facts, actor, why string) Decision {
	var d Decision
	to := f.Threat.State
	if to == Quarantined {
		to = Unresolved
	}
	d.step(to, actor, why)
	d.WaitingFor = why
	return d
}

// OnReleased decides when the endpoint's quarantine ended: by a person, who
// confirmed that the threat is gone, or by its expiry.
func OnReleased(f Facts, actor, cause string) Decision {
	var d Decision
	d.step(Released, actor, cause)
	d.CancelTasks = true
	return d
}

// OnIdentified decides again on a threat that waited because its endpoint was
// not known by a MAC.
func OnIdentified(p Policy, f Facts) Decision {
	var d Decision
	d.step(f.Threat.State, ByPolicy, "the endpoint is known by its MAC now")
	if f.Threat.State == Unresolved {
		d.quarantine(p, f, p.choice(f))
	}
	return d
}

// OnAgain decides when one more event feeds a threat. One that is unresolved and
// holds no quarantine is decided on anew: policy may have changed since, as from
// observe to enforce. The decision is empty when nothing follows.
func OnAgain(p Policy, f Facts) Decision {
	var d Decision
	if p.Mode == Enforce && f.Threat.State == Unresolved && f.Threat.QuarantineID == "" {
		d.quarantine(p, f, p.choice(f))
	}
	if d.Quarantine == "" && !d.Hold {
		return Decision{WaitingFor: f.Threat.WaitingFor}
	}
	return d
}

// OnClosed decides when a person ends a threat on their own judgement.
func OnClosed(actor, note string) Decision {
	d := Decision{CancelTasks: true, Release: true}
	d.step(Closed, actor, note)
	return d
}

// choice is what policy does with the endpoint when nobody settles the threat.
func (p Policy) choice(f Facts) Choice {
	if f.AgentName == "" {
		return p.NoAgent
	}
	return p.Unresolved
}

// unresolved enters Unresolved and decides on quarantine.
func (d *Decision) unresolved(p Policy, f Facts, actor, cause string, choice Choice) {
	d.step(Unresolved, actor, cause)
	d.quarantine(p, f, choice)
}

// quarantine decides whether policy may cut the endpoint off; if it may not,
// the threat waits for a person, and says why.
func (d *Decision) quarantine(p Policy, f Facts, choice Choice) {
	if d.Quarantine != "" {
		return // contained first in this very decision
	}
	if f.Threat.QuarantineID != "" && f.Quarantine != nil && f.Quarantine.ID == f.Threat.QuarantineID {
		d.hold(*f.Quarantine) // it is this threat's own
		return
	}
	if why := mayContain(f); why != "" {
		d.WaitingFor = ForPerson + " to decide: " + why
		return
	}
	if choice == ChooseWait {
		d.WaitingFor = ForPerson + " to decide: policy leaves it to one"
		return
	}
	if f.Quarantine != nil {
		d.hold(*f.Quarantine)
		return
	}
	d.Quarantine = fmt.Sprintf("%s: %s", f.Threat.Signature, lastCause(d))
}

// hold keeps the endpoint in the quarantine that stands. One that is not in
// force yet makes the threat quarantined when a device reads it back.
func (d *Decision) hold(q Quarantine) {
	d.Hold = true
	if q.State == QuarantineInForce {
		d.step(Quarantined, ByPolicy, "the endpoint is contained already: kept in quarantine "+q.ID)
	}
}

func lastCause(d *Decision) string {
	if n := len(d.Steps); n > 0 {
		return d.Steps[n-1].Cause
	}
	return "unresolved"
}

// mayContain says in words why policy alone may not cut the endpoint off; empty
// when it may.
func mayContain(f Facts) string {
	t := f.Threat
	switch {
	case t.Role != event.Attacker:
		return fmt.Sprintf("the endpoint's role is %s (%s); only an attacker is cut off without a person", t.Role, t.RoleReason)
	case !t.Containable:
		return t.Spoofable
	case !f.HasMAC:
		return "the endpoint's MAC is not known"
	}
	return ""
}

func suffix(detail string) string {
	if detail == "" {
		return ""
	}
	return ": " + detail
}

// OnBetterEvidence decides again when a later event shows what the first could
// not: who acted, from an address that is not forged.
func OnBetterEvidence(p Policy, f Facts, why string) Decision {
	var d Decision
	d.step(f.Threat.State, ByPolicy, "a later event shows more: "+why)
	if f.Threat.State == Unresolved {
		d.quarantine(p, f, p.choice(f))
		return d
	}
	d.containFirst(p, f)
	return d
}
