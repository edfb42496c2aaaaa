package api

import (
	"errors"
	"testing"
	"time"

	"github.com/cordon-security/cordon/mitigator/threat"
)

// An administrator is told what the device did with an order, and never longer
// than the limit waited for.
func TestSettle(t *testing.T) {
	const ordered, inForce, suspended = threat.QuarantineOrdered, threat.QuarantineInForce, threat.QuarantineSuspended
	const releasing, ended, held = threat.QuarantineReleasing, threat.QuarantineEnded, threat.QuarantineHeld
	failed := errors.New("closed")
	for name, c := range map[string]struct {
		first threat.QuarantineState
		then  []threat.QuarantineState // what is read, the last one for ever
		err   error
		want  threat.QuarantineState
	}{
		"in force":           {ordered, []threat.QuarantineState{ordered, inForce}, nil, inForce},
		"break glass":        {ordered, []threat.QuarantineState{suspended}, nil, suspended},
		"released":           {releasing, []threat.QuarantineState{releasing, ended}, nil, ended},
		"nothing to wait":    {held, nil, failed, held},
		"the device is mute": {ordered, []threat.QuarantineState{ordered}, nil, ordered},
		"the store is gone":  {ordered, []threat.QuarantineState{inForce}, failed, ordered},
	} {
		limit := time.Minute
		if c.want == ordered && c.err == nil {
			limit = 50 * time.Millisecond
		}
		reads := 0
		got := settle(t.Context(), threat.Quarantine{ID: "q-1", State: c.first}, limit, func() (threat.Quarantine, error) {
			at := min(reads, len(c.then)-1)
			reads++
			return threat.Quarantine{ID: "q-1", State: c.then[max(at, 0)]}, c.err
		})
		if got.State != c.want {
			t.Errorf("%s: %s, want %s", name, got.State, c.want)
		}
	}
}
