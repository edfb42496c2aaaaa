package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

func threatPage(p *page, m *wirev1.GetThreatResponse, raw bool) {
	t := m.GetThreat()
	p.line(cell{fmt.Sprintf("Threat %d on %s: ", t.GetId(), nameOf(t)), bold}, stateCell(t))
	if t.GetWaitingFor() != "" {
		p.field("waiting for", t.GetWaitingFor())
	}
	p.field("signature", t.GetSignature())
	p.field("severity", t.GetSeverity())
	p.field("role", t.GetRole())
	p.field("endpoint", strings.Join(names(t), "  "))
	p.field("remote", t.GetRemote())
	p.field("first seen", p.when(t.GetFirstSeen()))
	p.field("last seen", p.when(t.GetLastSeen()))
	p.field("events", fmt.Sprint(t.GetEventCount()))

	p.heading("Timeline")
	timeline(p, m.GetTimeline())
	for _, task := range m.GetTasks() {
		taskPart(p, task)
	}
	if q := m.GetQuarantine(); q.GetId() != "" {
		quarantinePart(p, q)
	}
	if len(m.GetEvents()) > 0 {
		p.heading("Events")
		eventTable(p, m.GetEvents())
		for _, e := range m.GetEvents() {
			if raw {
				p.line(text(string(e.GetRaw())))
			}
		}
	}
}

// names are all that the threat's endpoint is known by, each once.
func names(t *wirev1.Threat) []string {
	var all []string
	for _, name := range slices.Concat([]string{t.GetEndpointName()}, t.GetAddresses(), t.GetMacs()) {
		if name != "" && !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	return all
}

// timeline writes each step with the time since the one before it.
func timeline(p *page, steps []*wirev1.Transition) {
	if len(steps) == 0 {
		p.line(text("nothing yet"))
		return
	}
	var before time.Time
	wide := 0
	for _, step := range steps {
		wide = max(wide, width(printable(stepWords(step))))
	}
	for _, step := range steps {
		since := ""
		if isTime(step.GetAt()) {
			if !before.IsZero() {
				since = delta(step.GetAt().AsTime().Sub(before))
			}
			before = step.GetAt().AsTime()
		}
		words := stepWords(step)
		p.line(text(fmt.Sprintf("%s  %10s  ", p.exact(step.GetAt()), since)),
			cell{words, stateTone(step.GetTo())}, text(strings.Repeat(" ", wide-width(printable(words))+2)+
				step.GetCause()+" ("+cmp.Or(step.GetActor(), "unknown")+")"))
	}
}

func stepWords(step *wirev1.Transition) string {
	if step.GetFrom() == step.GetTo() {
		return "note"
	}
	if step.GetFrom() == "" {
		return step.GetTo()
	}
	return step.GetFrom() + " → " + step.GetTo()
}

func quarantinePart(p *page, q *wirev1.QuarantineInfo) {
	p.heading("Quarantine " + q.GetId())
	p.line(text("state         "), cell{quarantineWords(q.GetState()), quarantineTone(q.GetState())})
	p.field("detail", q.GetDetail())
	p.field("access", q.GetAccess())
	p.field("reason", q.GetReason())
	p.field("ordered", p.when(q.GetCreatedAt())+" by "+q.GetActor())
	p.field("in force", p.when(q.GetInForceAt()))
	p.field("expires", p.when(q.GetExpiresAt()))
	if isTime(q.GetEndedAt()) {
		p.field("ended", p.when(q.GetEndedAt())+" by "+q.GetEndedBy())
	}
	p.field("confirmation", q.GetConfirmation())
}
