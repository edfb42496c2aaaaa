package console

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

// moment is a point in time as a page shows it: in UTC.
type moment struct {
	// ISO is the time by RFC 3339; empty when there is none.
	ISO string
	// Text is what a person reads.
	Text string
	// Ago is how long it has been, in words.
	Ago string
}

func (c *Console) moment(t *timestamppb.Timestamp) moment {
	if !t.IsValid() || t.AsTime().Unix() == 0 {
		return moment{}
	}
	at := t.AsTime().UTC()
	return moment{ISO: at.Format("2006-01-02T15:04:05.000Z07:00"), Text: at.Format("2006-01-02 15:04:05"), Ago: ago(c.now(), at)}
}

// ago is how long before now t was, in words.
func ago(now, t time.Time) string {
	d := now.Sub(t)
	switch {
	case d < -time.Minute:
		return "in the future"
	case d < 2*time.Second:
		return "just now"
	case d < 2*time.Minute:
		return plural(int(d.Seconds()), "second", "seconds") + " ago"
	case d < 2*time.Hour:
		return plural(int(d.Minutes()), "minute", "minutes") + " ago"
	case d < 48*time.Hour:
		return plural(int(d.Hours()), "hour", "hours") + " ago"
	}
	return plural(int(d.Hours()/24), "day", "days") + " ago"
}

// lapse is a duration as a person reads it; empty when it is negative.
func lapse(d time.Duration) string {
	switch {
	case d < 0:
		return ""
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.3f s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	}
	return plural(int(d.Hours()/24), "day", "days")
}

// between is how long it took from one to the other; empty when unknown.
func between(from, to *timestamppb.Timestamp) string {
	if !from.IsValid() || !to.IsValid() {
		return ""
	}
	return lapse(to.AsTime().Sub(from.AsTime()))
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

// tone says how a word is coloured; it never comes from outside.
type tone string

const (
	calm    tone = "calm"
	good    tone = "good"
	busy    tone = "busy"
	warning tone = "warn"
	alarm   tone = "alarm"
)

// badge is a word with its tone.
type badge struct {
	Text string
	Tone tone
}

// known returns the badge of a word from tones; one that is not known is shown
// as it is, in no colour.
func known(word string, tones map[string]tone) badge {
	t, ok := tones[word]
	if !ok {
		t = calm
	}
	return badge{Text: clean(strings.ReplaceAll(word, "-", " "), 40), Tone: t}
}

func stateBadge(state string) badge {
	return known(state, map[string]tone{
		"detected": busy, "assessing": busy, "confirmed": alarm, "cleaning": busy, "resolved": good,
		"unresolved": alarm, "quarantined": warning, "not-confirmed": good, "released": good, "closed": calm,
	})
}

func severityBadge(severity string) badge {
	return known(severity, map[string]tone{"critical": alarm, "high": alarm, "medium": warning, "low": calm, "info": calm})
}

func quarantineBadge(state string) badge {
	return known(state, map[string]tone{
		"observed": warning, "held": alarm, "ordered": busy, "in-force": good, "refused": alarm, "suspended": alarm,
		"releasing": busy, "ended": calm,
	})
}

// quarantineWords says what a quarantine's state means for the endpoint.
func quarantineWords(state string) string {
	switch state {
	case "observed":
		return "Observe mode: the endpoint would have been cut off, and is not."
	case "held":
		return "The cap is reached: the order waits for a person or for the window to pass."
	case "ordered":
		return "Ordered, and not read back from the device yet."
	case "in-force":
		return "In force: read back from what enforces it."
	case "refused":
		return "Refused by the device's own guard: only a person at the device can change that."
	case "suspended":
		return "Break glass is on at the device: it is not enforced."
	case "releasing":
		return "Being lifted."
	case "ended":
		return "Lifted: the endpoint is free."
	}
	return ""
}

func dispositionBadge(disposition string) badge {
	return known(disposition, map[string]tone{"threat": alarm, "kept": calm, "filtered": calm, "excepted": calm})
}

// actorWords reads "admin:ann" as "administrator ann".
func actorWords(actor string) string {
	kind, name, ok := strings.Cut(actor, ":")
	if !ok {
		return clean(actor, maxName)
	}
	if kind == "admin" {
		kind = "administrator"
	}
	return clean(kind+" "+name, maxName)
}

func accessWords(access string) string {
	switch access {
	case "none":
		return "no access"
	case "limited":
		return "limited access"
	}
	return clean(access, maxName)
}

func taskWords(kind wirev1.TaskKind) string {
	switch kind {
	case wirev1.TaskKind_TASK_KIND_ASSESS:
		return "Assessment"
	case wirev1.TaskKind_TASK_KIND_CLEAN:
		return "Cleanup"
	case wirev1.TaskKind_TASK_KIND_RESTORE:
		return "Restore"
	}
	return "Task"
}
