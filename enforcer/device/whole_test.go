package device

import (
	"errors"
	"testing"
	"time"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

// TestWholeStateIsTold holds that those who watch learn of counts, revision and
// alarms as they change, and of nothing when nothing changes.
func TestWholeStateIsTold(t *testing.T) {
	f := newFixture(t).start()
	sub, _ := f.device.subscribe()
	next := func() (state *wirev1.StatusResponse, statuses []*wirev1.QuarantineStatus) {
		t.Helper()
		f.now = f.now.Add(time.Second)
		f.device.tend()
		for {
			select {
			case e := <-sub.events:
				if e.GetState() != nil {
					state = e.GetState()
				}
				if e.GetStatus() != nil {
					statuses = append(statuses, e.GetStatus())
				}
			default:
				return state, statuses
			}
		}
	}
	next() // what the start changed
	if st, _ := next(); st != nil {
		t.Errorf("told %v though nothing changed", st)
	}
	f.order(put(quarantine(1)))
	st, first := next()
	if st.GetDesired() != 1 || st.GetInForce() != 1 || st.GetHeld().GetNumber() == 0 || len(st.GetStatuses()) != 0 {
		t.Errorf("told %v", st)
	}
	f.method.set(errors.New("no room"))
	answer := f.order(put(quarantine(2)))
	st, second := next()
	// While the method fails nobody can say that anything is in force.
	if st.GetDesired() != 2 || st.GetInForce() != 0 || len(st.GetAlarms()) == 0 {
		t.Errorf("told %v", st)
	}
	f.method.set(nil)
	f.now = f.now.Add(time.Minute)
	st, third := next()
	if st.GetInForce() != 2 || len(st.GetAlarms()) != 0 {
		t.Errorf("told %v", st)
	}
	var last uint64
	for _, s := range append(append(first, append(answer.GetStatuses(), second...)...), third...) {
		if s.GetSequence() == 0 || s.GetRevision().GetNumber() == 0 {
			t.Errorf("no number or revision: %v", s)
		}
		last = max(last, s.GetSequence())
	}
	if len(third) == 0 || third[len(third)-1].GetSequence() != last {
		t.Errorf("the last word has number %d, the highest is %d", third[len(third)-1].GetSequence(), last)
	}
}

// TestCountsAreToldWithTheOrder holds that whoever gives an order sees the
// counts right at once, before the clock's next round.
func TestCountsAreToldWithTheOrder(t *testing.T) {
	f := newFixture(t).start()
	f.device.tend()
	sub, _ := f.device.subscribe()
	f.order(put(quarantine(1)))
	for {
		select {
		case e := <-sub.events:
			if st := e.GetState(); st != nil {
				if st.GetDesired() != 1 || st.GetInForce() != 1 {
					t.Errorf("told %v", st)
				}
				return
			}
		default:
			t.Fatal("the order told no counts")
		}
	}
}
