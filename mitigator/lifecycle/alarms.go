package lifecycle

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/cordon-security/cordon/mitigator/store"
	"github.com/cordon-security/cordon/mitigator/threat"
)

// alarmTimeout bounds how long Alarms looks into the store.
const alarmTimeout = 2 * time.Second

// Alarms lists what a person should look at, the most urgent first; empty when
// all is well. It is cheap enough for every status that is asked for.
func (e *Engine) Alarms() []string {
	out := e.diskAlarms()
	ctx, cancel := context.WithTimeout(context.Background(), alarmTimeout)
	defer cancel()
	err := e.store.View(ctx, func(v store.View) error {
		atCap, err := v.CountQuarantinesIn(threat.QuarantineHeld)
		if err != nil {
			return err
		}
		waiting, err := v.CountWaitingFor(threat.ForPerson)
		if err != nil {
			return err
		}
		if atCap > 0 {
			out = append(out, fmt.Sprintf("%s at the cap: release what need not stay, or raise the cap", count(atCap, "quarantine is held", "quarantines are held")))
		}
		if e.unknown.atBound(e.now()) {
			out = append(out, fmt.Sprintf("%d addresses that no device sees have alerts: those of further ones are kept as events alone; "+
				"look for a forged source, close what was looked at, or raise retention.max_unknown", e.retention.MaxUnknown))
		}
		if waiting > 0 {
			out = append(out, fmt.Sprintf("%s for a person to decide", count(waiting, "threat waits", "threats wait")))
		}
		return nil
	})
	if err != nil {
		out = append([]string{"the store cannot be read: " + err.Error()}, out...)
	}
	return out
}

func (e *Engine) diskAlarms() []string {
	h := e.backlog.held()
	if h.since.IsZero() {
		if e.reserveWhole() {
			return nil
		}
		return []string{"the disk of the mitigator's state directory has no room for the reserve: only containments and releases are written; make room there"}
	}
	var out []string
	if h.containments > 0 {
		out = append(out, fmt.Sprintf("disk full: %s in memory, NOT in force: make room on the disk of the mitigator's state directory now",
			count(h.containments, "containment is waiting", "containments are waiting")))
	}
	text := "disk full since " + h.since.UTC().Format(time.RFC3339) + ": what is in force stays"
	var waits []string
	if h.events > 0 {
		waits = append(waits, count(h.events, "event", "events"))
	}
	if h.bindings > 0 {
		waits = append(waits, count(h.bindings, "address binding", "address bindings"))
	}
	if h.statuses > 0 {
		waits = append(waits, count(h.statuses, "answer of a device", "answers of devices"))
	}
	if len(waits) > 0 {
		text += "; in memory until there is room: " + strings.Join(waits, ", ")
	}
	if h.atBound {
		text += " (the bound: data sources wait)"
	}
	if left, whole := e.store.Reserve(); whole > 0 {
		text += fmt.Sprintf("; %d%% of the reserve for containments and releases is left", left*100/whole)
	}
	return append(out, text+": make room on the disk of the mitigator's state directory")
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
