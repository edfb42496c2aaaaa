package lifecycle

import (
	"testing"
	"time"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
	"github.com/cordon-security/cordon/mitigator/event"
	"github.com/cordon-security/cordon/mitigator/threat"
)

// setClock is what the engine sees when the machine was suspended, or its clock
// was put right: the wall clock moves and no time goes by.
func (w *world) setClock(by time.Duration) {
	w.t.Helper()
	w.clock = w.clock.Add(by)
	w.must(w.shiftTasks(w.t.Context(), by))
	w.must(w.Sweep(w.t.Context()))
}

// TestClockThatWasSetIsNoAgentThatDoesNotAnswer holds that nobody is cut off
// because a machine was suspended or its clock was put right, and that a clock
// which was set back does not buy time.
func TestClockThatWasSetIsNoAgentThatDoesNotAnswer(t *testing.T) {
	for name, by := range map[string]time.Duration{"ahead": 3 * time.Hour, "back": -24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.alert(alice, event.Attacker, true)
			w.setClock(by) // it waits for its agent
			w.wentThrough(threat.Detected, threat.Assessing)
			tasks, err := w.PendingTasks(t.Context(), "agent-a")
			w.must(err)
			w.must(w.TaskDelivered(t.Context(), "agent-a", tasks[0].GetId()))
			w.setClock(by) // its agent is at it
			w.wentThrough(threat.Detected, threat.Assessing)
			w.AgentConnected(t.Context(), "agent-a", false) // as connections do over a suspension
			w.must(w.Sweep(t.Context()))
			w.wentThrough(threat.Detected, threat.Assessing)
			w.clock = w.clock.Add(62 * time.Minute)
			w.must(w.Sweep(t.Context()))
			w.wentThrough(threat.Detected, threat.Assessing, threat.Unresolved)
		})
	}
}

func TestSetClockLeavesWhatEnded(t *testing.T) {
	w := newWorld(t, nil)
	th := w.alert(alice, event.Attacker, true)
	w.answer(&wirev1.TaskResult{Status: wirev1.TaskStatus_TASK_STATUS_DONE, Verdict: wirev1.Verdict_VERDICT_NOT_CONFIRMED})
	before := w.tasksOf(th.ID)
	w.setClock(time.Hour)
	if after := w.tasksOf(th.ID); !after[0].CreatedAt.Equal(before[0].CreatedAt) || !after[0].EndedAt.Equal(before[0].EndedAt) {
		t.Errorf("a task that ended: %+v, it was %+v", after[0], before[0])
	}
}

func (w *world) tasksOf(threatID int64) (tasks []threat.Task) {
	w.t.Helper()
	w.must(w.update(w.t.Context(), func(j *job) (err error) {
		tasks, err = j.tx.TasksOfThreat(threatID)
		return err
	}))
	return tasks
}

// TestTimeThatGoesByIsNoSetClock holds that two readings of one clock agree.
func TestTimeThatGoesByIsNoSetClock(t *testing.T) {
	last := time.Now()
	if by := setBy(last, last.Add(100*time.Hour)); by != 0 {
		t.Errorf("after 100 hours the clock seems set by %v", by)
	}
}
