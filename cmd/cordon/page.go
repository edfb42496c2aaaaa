package main

import (
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
)

// tone is what a text says to the person beyond its words.
type tone string

// The tones, as SGR sequences (ECMA-48); plain has none.
const (
	plain tone = ""
	good  tone = "\x1b[32m"
	care  tone = "\x1b[33m"
	bad   tone = "\x1b[1;31m"
	bold  tone = "\x1b[1m"
)

// page is a text for a person that grows. All that is written to it, other than
// through its Builder, passes printable.
type page struct {
	*strings.Builder
	now    time.Time
	zone   *time.Location
	colour bool
}

// line writes one line of parts, with nothing between them.
func (p *page) line(parts ...cell) {
	for _, c := range parts {
		p.paint(c, printable(c.text))
	}
	p.WriteString("\n")
}

// field writes "name  value" with the values aligned; nothing where value is empty.
func (p *page) field(name, value string) {
	if value != "" {
		p.line(text(name+strings.Repeat(" ", max(1, fieldWidth-width(name)))), text(value))
	}
}

const fieldWidth = 14

// heading starts a part of the page.
func (p *page) heading(words string) {
	if p.Len() > 0 {
		p.WriteString("\n")
	}
	p.line(cell{words, bold})
}

func (p *page) paint(c cell, shown string) {
	if !p.colour || c.tone == plain || shown == "" {
		p.WriteString(shown)
		return
	}
	p.WriteString(string(c.tone) + shown + "\x1b[0m")
}

// time shows a moment: RFC 3339 to the second. Empty when there is none.
func (p *page) time(t *timestamppb.Timestamp) string {
	if !isTime(t) {
		return ""
	}
	return t.AsTime().In(p.zone).Format(time.RFC3339)
}

// age shows how long ago a moment was, or how far ahead it is.
func (p *page) age(t *timestamppb.Timestamp) string {
	if !isTime(t) {
		return ""
	}
	d := p.now.Sub(t.AsTime()).Round(time.Second)
	if d < 0 {
		return "in " + rough(-d)
	}
	return rough(d) + " ago"
}

// when shows a moment both ways.
func (p *page) when(t *timestamppb.Timestamp) string {
	if !isTime(t) {
		return ""
	}
	return p.time(t) + " (" + p.age(t) + ")"
}

// isTime reports whether a timestamp is there and means a moment.
func isTime(t *timestamppb.Timestamp) bool {
	return t != nil && t.CheckValid() == nil && !t.AsTime().IsZero()
}

// exact shows a moment to the millisecond.
func (p *page) exact(t *timestamppb.Timestamp) string {
	if !isTime(t) {
		return strings.Repeat(" ", len("2006-01-02T15:04:05.000Z"))
	}
	return t.AsTime().In(p.zone).Format("2006-01-02T15:04:05.000Z07:00")
}
