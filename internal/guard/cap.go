package guard

import (
	"errors"
	"fmt"
	"time"
)

// Cap limits how much of a network may be cut off. Zero values do not limit.
type Cap struct {
	// AtOnce is how many quarantines may be in force at the same time.
	AtOnce int
	// New is how many may begin within Window.
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

// Check refuses one more quarantine when inForce are in force already, or when
// too many began within the window before now. Began holds the times of those
// that began, in any order. A time after now (the clock was set back) counts
// as within the window.
func (c Cap) Check(inForce int, began []time.Time, now time.Time) *Refusal {
	if c.AtOnce > 0 && inForce >= c.AtOnce {
		return &Refusal{Rule: RuleCapTotal, Detail: fmt.Sprintf(
			"%d quarantines are in force, the cap is %d at once: release one or raise the cap", inForce, c.AtOnce)}
	}
	if c.New == 0 {
		return nil
	}
	start := now.Add(-c.Window)
	recent := 0
	var oldest time.Time
	for _, t := range began {
		if !t.After(start) {
			continue
		}
		recent++
		if oldest.IsZero() || t.Before(oldest) {
			oldest = t
		}
	}
	if recent < c.New {
		return nil
	}
	retry := oldest.Add(c.Window)
	return &Refusal{Rule: RuleCapRate, RetryAt: retry, Detail: fmt.Sprintf(
		"%d quarantines began within %s, the cap is %d: it waits until %s, or raise the cap",
		recent, c.Window, c.New, retry.UTC().Format(time.RFC3339))}
}
