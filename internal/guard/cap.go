package guard

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Cap limits how much of a network may be cut off, counted in MACs: of one
// quarantine that names three, each counts. Zero values do not limit.
type Cap struct {
	// AtOnce is how many MACs may be quarantined at the same time.
	AtOnce int
	// New is how many may begin to be within Window.
	New int
	// Window slides: it is the time before now that New counts in.
	Window time.Duration
}

func (c Cap) validate() error {
	switch {
	case c.AtOnce < 0 || c.New < 0 || c.Window < 0:
		return errors.New("the cap's numbers must not be negative")
	case c.New > 0 && c.Window == 0:
		return errors.New("the cap on new quarantines needs a window")
	}
	return nil
}

// Fits reports whether an endpoint with that many MACs could ever pass.
func (c Cap) Fits(macs int) bool {
	return (c.AtOnce == 0 || macs <= c.AtOnce) && (c.New == 0 || macs <= c.New)
}

// CheckTotal refuses more MACs when too many would be quarantined with those
// that are already.
func (c Cap) CheckTotal(inForce, more int) *Refusal {
	if c.AtOnce == 0 || more == 0 || inForce+more <= c.AtOnce {
		return nil
	}
	return &Refusal{Rule: RuleCapTotal, Detail: fmt.Sprintf(
		"%d MACs are quarantined and this is %d more, the cap is %d at once: release one or raise the cap", inForce, more, c.AtOnce)}
}

// CheckRate refuses more MACs when too many would have begun within the window
// before now. Began holds the times of those that began, in any order. A time
// after now (the clock was set back) counts as within the window.
func (c Cap) CheckRate(began []time.Time, more int, now time.Time) *Refusal {
	if c.New == 0 || more == 0 {
		return nil
	}
	start := now.Add(-c.Window)
	var recent []time.Time
	for _, t := range began {
		if t.After(start) {
			recent = append(recent, t)
		}
	}
	if len(recent)+more <= c.New {
		return nil
	}
	if more > c.New {
		return &Refusal{Rule: RuleCapRate, Detail: fmt.Sprintf(
			"it names %d new MACs, the cap is %d within %s: raise the cap", more, c.New, c.Window)}
	}
	slices.SortFunc(recent, time.Time.Compare)
	retry := recent[len(recent)+more-c.New-1].Add(c.Window)
	return &Refusal{Rule: RuleCapRate, RetryAt: retry, Detail: fmt.Sprintf(
		"%d MACs were quarantined within %s and this is %d more, the cap is %d: it waits until %s, or raise the cap",
		len(recent), c.Window, more, c.New, retry.UTC().Format(time.RFC3339))}
}
