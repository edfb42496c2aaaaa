package lifecycle

import (
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
	"github.com/cordon-security/cordon/mitigator/event"
	"github.com/cordon-security/cordon/mitigator/store"
	"github.com/cordon-security/cordon/mitigator/threat"
)

// with restarts the engine on the same store under another policy.
func (w *world) with(change func(*threat.Policy)) {
	w.t.Helper()
	p := w.policy
	change(&p)
	again, err := New(Options{Store: w.store, Policy: p, Guard: w.guard, Now: func() time.Time { return w.clock },
		WakeAgent: w.wakeAgent, WakeDevices: w.wakeDevices, Log: w.log})
	w.must(err)
	w.Engine = again
}

func TestFromObserveToEnforce(t *testing.T) {
	w := newWorld(t, func(p *threat.Policy) { p.Mode = threat.Observe })
	w.alert(printer, event.Attacker, true)
	w.with(func(p *threat.Policy) { p.Mode = threat.Enforce })
	w.must(w.Sweep(t.Context()))
	if th := w.threats()[0]; th.QuarantineID != "" {
		t.Error("the switch itself quarantined what was observed before it")
	}
	w.clock = w.clock.Add(time.Hour)
	th := w.alert(printer, event.Attacker, true)
	if len(w.threats()) != 1 || th.QuarantineID == "" || !w.quarantine(th.QuarantineID).State.Ordered() || th.WaitingFor != "" {
		t.Errorf("the same again under enforce: %+v", th)
	}
}

func TestHeldStaysHeldInObserveMode(t *testing.T) {
	w := newWorld(t, nil)
	onDock, onAlice := w.twoQuarantines()
	held := w.alert(printer, event.Attacker, true).QuarantineID
	if got := w.quarantine(held).State; got != threat.QuarantineHeld {
		t.Fatalf("the third is %s, want it held", got)
	}
	w.with(func(p *threat.Policy) { p.Mode = threat.Observe })
	for _, id := range []string{onDock, onAlice} {
		_, err := w.ReleaseByPerson(t.Context(), w.quarantine(id).EndpointID, "eve", "clean")
		w.must(err)
	}
	w.must(w.retryHeld(t.Context()))
	if got := w.quarantine(held).State; got != threat.QuarantineHeld {
		t.Errorf("observe mode made the held one %s", got)
	}
}

func TestWhatWaitsForAPersonCanBeClosedByOne(t *testing.T) {
	w := newWorld(t, nil)
	th := w.alert(printer, event.Victim, true)
	w.must(w.CloseByPerson(t.Context(), th.ID, "eve", "patched"))
	w.wentThrough(threat.Detected, threat.Unresolved, threat.Closed)
	if err := w.CloseByPerson(t.Context(), th.ID, "eve", "again"); !errors.Is(err, ErrEnded) {
		t.Errorf("closed twice: %v", err)
	}
	w.clock = w.clock.Add(time.Minute)
	if again := w.alert(printer, event.Victim, true); again.ID == th.ID {
		t.Error("an event after the end fed what was closed")
	}
}

func TestRefusedOnceIsSaidOnce(t *testing.T) {
	w := newWorld(t, nil)
	w.neighbor(bob, protected)
	var th threat.Threat
	for range 20 {
		th = w.alert(bob, event.Attacker, true)
	}
	w.must(w.store.View(t.Context(), func(v store.View) error {
		line, err := v.Timeline(th.ID)
		if len(line) > 4 {
			t.Errorf("%d lines for 20 events of a protected endpoint", len(line))
		}
		return err
	}))
}

func TestSecondContainedThreatHoldsTheQuarantine(t *testing.T) {
	w := newWorld(t, func(p *threat.Policy) { p.ContainFirst = []event.Severity{event.Critical} })
	first := w.alert(alice, event.Attacker, true)
	w.kind = "suricata:1:2"
	w.alert(alice, event.Attacker, true)
	tasks, err := w.PendingTasks(t.Context(), "agent-a")
	w.must(err)
	for i, want := range []threat.QuarantineState{threat.QuarantineOrdered, threat.QuarantineReleasing} {
		w.must(w.Report(t.Context(), "agent-a", &wirev1.TaskResult{TaskId: tasks[i].GetId(),
			Status: wirev1.TaskStatus_TASK_STATUS_DONE, Verdict: wirev1.Verdict_VERDICT_NOT_CONFIRMED}))
		if got := w.quarantine(first.QuarantineID).State; got != want {
			t.Errorf("after clean assessment %d: %s, want %s", i+1, got, want)
		}
	}
}

func TestDeliveredToAConnectionThatBroke(t *testing.T) {
	w := newWorld(t, nil)
	w.alert(alice, event.Attacker, true)
	tasks, err := w.PendingTasks(t.Context(), "agent-a")
	w.must(err)
	w.must(w.TaskDelivered(t.Context(), "agent-a", tasks[0].GetId()))
	w.AgentConnected(t.Context(), "agent-a", false)
	w.clock = w.clock.Add(30 * time.Minute)
	w.must(w.Sweep(t.Context()))
	w.wentThrough(threat.Detected, threat.Assessing)
	w.answer(&wirev1.TaskResult{Status: wirev1.TaskStatus_TASK_STATUS_DONE, Verdict: wirev1.Verdict_VERDICT_NOT_CONFIRMED})
	w.wentThrough(threat.Detected, threat.Assessing, threat.NotConfirmed)
}

func TestReasonsFitAMessage(t *testing.T) {
	for name, reason := range map[string]string{
		"a character across the bound": "x" + strings.Repeat("ü", 600),
		"control characters":           "a\x1b[31m\nb",
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.alert(alice, event.Attacker, true)
			w.answer(&wirev1.TaskResult{Status: wirev1.TaskStatus_TASK_STATUS_FAILED, Reasons: []string{reason}})
			for _, text := range []string{w.quarantine(w.threats()[0].QuarantineID).Reason, w.lastCause()} {
				if !utf8.ValidString(text) || strings.ContainsAny(text, "\x1b\n") || len(text) > maxCause+16 {
					t.Errorf("stored %d bytes: %q", len(text), text)
				}
			}
		})
	}
}

func (w *world) lastCause() (cause string) {
	w.t.Helper()
	w.must(w.store.View(w.t.Context(), func(v store.View) error {
		line, err := v.Timeline(w.threats()[0].ID)
		for _, tr := range line {
			if tr.To == threat.Unresolved && tr.From != tr.To {
				cause = tr.Cause
			}
		}
		return err
	}))
	return cause
}

func TestClip(t *testing.T) {
	for in, want := range map[string]string{"a\xff\xfeb": "a\uFFFDb", "a\tb": "a b", "fine": "fine"} {
		if got := clip(in); got != want {
			t.Errorf("clip(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestBrokenConnectionsDoNotBuyTime(t *testing.T) {
	w := newWorld(t, nil)
	w.alert(alice, event.Attacker, true)
	for range 150 {
		tasks, err := w.PendingTasks(t.Context(), "agent-a")
		w.must(err)
		if len(tasks) == 0 {
			break
		}
		w.must(w.TaskDelivered(t.Context(), "agent-a", tasks[0].GetId()))
		w.clock = w.clock.Add(30 * time.Second)
		w.AgentConnected(t.Context(), "agent-a", false)
		w.must(w.Sweep(t.Context()))
	}
	w.wentThrough(threat.Detected, threat.Assessing, threat.Unresolved)
}

func TestRecoverPutsBackWhatWasDelivered(t *testing.T) {
	w := newWorld(t, nil)
	w.alert(alice, event.Attacker, true)
	tasks, err := w.PendingTasks(t.Context(), "agent-a")
	w.must(err)
	w.must(w.TaskDelivered(t.Context(), "agent-a", tasks[0].GetId()))
	w.with(func(*threat.Policy) {})
	w.must(w.Recover(t.Context()))
	w.clock = w.clock.Add(10 * time.Minute)
	w.must(w.Sweep(t.Context()))
	w.wentThrough(threat.Detected, threat.Assessing)
	if tasks, err = w.PendingTasks(t.Context(), "agent-a"); err != nil || len(tasks) != 1 || tasks[0].GetLimit().AsDuration() != w.Policy().AssessLimit {
		t.Errorf("after the restart: %v, %v; want it with its whole time", tasks, err)
	}
}

func TestCalledBackIsNoLateResult(t *testing.T) {
	w := newWorld(t, nil)
	th := w.uncleanable()
	w.kind = "suricata:1:2"
	w.alert(alice, event.Attacker, true)
	tasks, err := w.PendingTasks(t.Context(), "agent-a")
	w.must(err)
	w.must(w.CloseByPerson(t.Context(), w.threats()[0].ID, "eve", "false alarm"))
	w.must(w.Report(t.Context(), "agent-a", &wirev1.TaskResult{TaskId: tasks[0].GetId(), Status: wirev1.TaskStatus_TASK_STATUS_CANCELLED}))
	w.must(w.store.View(t.Context(), func(v store.View) error {
		line, err := v.Timeline(w.threats()[0].ID)
		if err == nil && line[len(line)-1].To != threat.Closed {
			t.Errorf("the timeline ends with %+v", line[len(line)-1])
		}
		return err
	}))
	if !w.quarantine(th.QuarantineID).State.Ordered() {
		t.Error("closing one threat released the other's quarantine")
	}
}
