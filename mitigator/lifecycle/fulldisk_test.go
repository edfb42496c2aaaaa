package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
	"github.com/cordon-security/cordon/mitigator/endpoint"
	"github.com/cordon-security/cordon/mitigator/event"
	"github.com/cordon-security/cordon/mitigator/intake"
	"github.com/cordon-security/cordon/mitigator/store"
	"github.com/cordon-security/cordon/mitigator/store/storetest"
	"github.com/cordon-security/cordon/mitigator/threat"
)

const testReserve = 2 << 20

func contain(p *threat.Policy) { p.ContainFirst = []event.Severity{event.Critical} }

// worldOn is a world on a small disk, which is then filled up.
func worldOn(t *testing.T, d *storetest.Disk) *world {
	w := newWorldIn(t, d.Dir, testReserve, contain)
	d.Fill(64 << 10)
	for n := 0; w.store.Update(t.Context(), func(tx store.Tx) error {
		return tx.AddReject(event.Reject{Raw: make([]byte, 4000), Received: w.clock}, fmt.Sprint("filler", n/500))
	}) == nil; n++ {
	}
	d.Fill(0)
	return w
}

// batch is one of n plain events that lead to nothing, and its cursor.
func (w *world) batch(first, n, size int) intake.Batch {
	b := intake.Batch{Source: "eve", Cursor: fmt.Append(nil, first+n)}
	for i := first; i < first+n; i++ {
		b.Events = append(b.Events, event.Classified{Disposition: event.Kept, Event: event.Event{Source: "eve", Key: event.Key{0, 1, byte(i), byte(i >> 8)},
			Time: w.clock, Received: w.clock, Severity: event.Low, Raw: make([]byte, size)}})
	}
	return b
}

func (w *world) cursor(want string) {
	w.t.Helper()
	got, err := w.Cursor(w.t.Context(), "eve")
	if err != nil || string(got) != want {
		w.t.Errorf("the stored cursor is %q, %v; want %q", got, err, want)
	}
}

func (w *world) alarmed(want ...string) {
	w.t.Helper()
	all := strings.Join(w.Alarms(), "\n")
	for _, text := range want {
		if !strings.Contains(all, text) {
			w.t.Errorf("alarms %q: want %q in them", all, text)
		}
	}
	if len(want) == 0 && all != "" {
		w.t.Errorf("alarms %q, want none", all)
	}
}

// roomAgain empties the disk and carries out what waits.
func (w *world) roomAgain(d *storetest.Disk) {
	w.t.Helper()
	d.Empty()
	storetest.Eventually(w.t, "what waits is stored", func() bool { return w.flush(w.t.Context()) == nil })
	w.must(w.flushStatuses(w.t.Context()))
	w.clock = w.clock.Add(2 * fullFor)
	if !w.catchUp(w.t.Context()) {
		w.t.Errorf("with room again something waits: %+v", w.backlog.held())
	}
}

func (w *world) events() (n int) {
	w.t.Helper()
	w.must(w.store.View(w.t.Context(), func(v store.View) error {
		all, err := v.Events(0, 1e6)
		n = len(all)
		return err
	}))
	return n
}

func TestContainmentOnAFullDisk(t *testing.T) {
	storetest.OnSmallDisk(t, "size=12m", func(d *storetest.Disk) {
		w := worldOn(t, d)
		plain := w.batch(0, 3, 3000)
		w.must(w.Deliver(t.Context(), plain)) // what cannot be stored does not hold up what comes behind it
		w.cursor("")
		before := w.orders
		th := w.alert(alice, event.Attacker, true)
		if q := w.quarantine(th.QuarantineID); q.State != threat.QuarantineOrdered || w.orders == before {
			t.Fatalf("the quarantine is %s, the devices were woken %d times", q.State, w.orders-before)
		}
		w.cursor("")
		if n := w.events(); n != 1 {
			t.Errorf("%d events are stored, want the one that led to the containment", n)
		}
		w.alarmed("disk full since 2026-03-01T12:00:00Z", "5 events", "of the reserve")
		w.device(th.QuarantineID, inForce)
		w.answer(&wirev1.TaskResult{Status: wirev1.TaskStatus_TASK_STATUS_FAILED})
		w.wentThrough(threat.Detected, threat.Assessing, threat.Unresolved, threat.Quarantined)
		if _, err := w.ReleaseByPerson(t.Context(), th.EndpointID, "eve", "reinstalled"); err != nil {
			t.Errorf("a release on a full disk: %v", err)
		}
		w.neighbor(dock, dockMAC) // a device's sighting waits, without an error to the device
		w.roomAgain(d)
		w.alarmed()
		w.cursor(string([]byte{keys}))
		if n := w.events(); n != 4 {
			t.Errorf("%d events are stored with room again, want the three and the alert, each once", n)
		}
		if got := w.threats(); len(got) != 1 || got[0].EventCount != 1 || got[0].State != threat.Released {
			t.Errorf("threats %+v, want the one, fed once, released", got)
		}
		if ep := w.endpointOf(dock); !slices.Equal(ep.MACs, []endpoint.MAC{dockMAC}) {
			t.Errorf("the device's sighting is lost: %+v", ep)
		}
	})
}

// TestContainmentWaitsInMemory is of a disk without room even for the reserve's
// purposes.
func TestContainmentWaitsInMemory(t *testing.T) {
	storetest.OnSmallDisk(t, "size=12m", func(d *storetest.Disk) {
		w := worldOn(t, d)
		first := w.alert(alice, event.Attacker, true)
		tasks, err := w.PendingTasks(t.Context(), "agent-a")
		if err != nil || len(tasks) != 1 {
			t.Fatalf("tasks %v, %v", tasks, err)
		}
		w.must(w.TaskDelivered(t.Context(), "agent-a", tasks[0].GetId()))
		for { // whoever filled the disk takes what the reserve gives up
			d.Fill(0)
			err := w.store.Update(store.Urgent(t.Context()), func(tx store.Tx) error {
				return tx.AddReject(event.Reject{Raw: make([]byte, 4000)}, "filler")
			})
			if errors.Is(err, store.ErrFull) {
				break
			}
			w.must(err)
		}
		w.must(w.Deliver(t.Context(), w.batchOf(printer)))
		w.must(w.Deliver(t.Context(), w.batchOf(printer)))
		if ts := w.threats(); len(ts) != 1 {
			t.Fatalf("%d threats were stored on a disk without room", len(ts))
		}
		w.alarmed("2 containments are waiting in memory, NOT in force", "disk full since", "0% of the reserve")
		if got := w.Alarms()[0]; !strings.Contains(got, "NOT in force") {
			t.Errorf("the most urgent alarm is %q", got)
		}
		if _, err := w.ReleaseByPerson(t.Context(), first.EndpointID, "eve", "clean"); !errors.Is(err, store.ErrFull) || !strings.Contains(err.Error(), "release-all") {
			t.Errorf("a release: %v", err)
		}
		if _, err := w.QuarantineByPerson(t.Context(), w.mustEndpoint(printMAC).ID, threat.AccessNone, "x", "eve", 0); !errors.Is(err, store.ErrFull) {
			t.Errorf("a quarantine: %v", err)
		}
		result := &wirev1.TaskResult{TaskId: tasks[0].GetId(), Status: wirev1.TaskStatus_TASK_STATUS_FAILED}
		if err := w.Report(t.Context(), "agent-a", result); !errors.Is(err, store.ErrFull) {
			t.Errorf("a result: %v", err)
		}
		if err := w.Recover(t.Context()); err != nil {
			t.Errorf("a start on a disk without room: %v", err)
		}
		w.device(first.QuarantineID, wirev1.EnforcementState_ENFORCEMENT_STATE_SUSPENDED) // no error: the device's link goes on
		w.device(first.QuarantineID, inForce)
		w.catchUp(t.Context())
		w.alarmed("2 containments are waiting in memory", "1 answer of a device")
		w.roomAgain(d)
		if got := w.quarantine(first.QuarantineID).State; got != threat.QuarantineInForce {
			t.Errorf("the device's last word is lost: %s", got)
		}
		w.alarmed()
		w.must(w.Report(t.Context(), "agent-a", result))
		if got := w.threats(); len(got) != 2 || got[0].EventCount != 2 || !w.quarantine(got[0].QuarantineID).State.Ordered() {
			t.Errorf("with room again: %+v, want the printer quarantined, once", got)
		}
	})
}

// batchOf is a batch with one alert of the address.
func (w *world) batchOf(a netip.Addr) intake.Batch {
	keys++
	l := event.Local{Addr: a, Port: 4711, Remote: netip.MustParseAddrPort("198.51.100.66:443"), Outbound: true, Role: event.Attacker,
		RoleReason: "test", Established: true, Proto: event.ProtoTCP}
	ev := event.Event{Source: "eve", Key: event.Key{keys}, Time: w.clock, Received: w.clock, Kind: w.kind, Signature: "C2",
		Severity: event.Critical, Proto: event.ProtoTCP, Src: netip.AddrPortFrom(a, 4711), Dst: l.Remote, Raw: []byte("{}")}
	return intake.Batch{Source: "eve", Events: []event.Classified{{Event: ev, Disposition: event.Threat, Locals: []event.Local{l}}}, Cursor: []byte{keys}}
}

func (w *world) mustEndpoint(m endpoint.MAC) (ep endpoint.Endpoint) {
	w.t.Helper()
	w.must(w.store.View(w.t.Context(), func(v store.View) (err error) {
		ep, _, err = v.EndpointByMAC(m)
		return err
	}))
	return ep
}

func TestWhatWaitsInMemoryIsBounded(t *testing.T) {
	storetest.OnSmallDisk(t, "size=12m", func(d *storetest.Disk) {
		w := worldOn(t, d)
		n, each := 0, 100
		for ; ; n++ {
			err := w.Deliver(t.Context(), w.batch(n*each, each, 3000))
			if errors.Is(err, store.ErrFull) {
				break
			}
			w.must(err)
			if n*each*3000 > 2*maxHeldBytes {
				t.Fatal("memory has no bound")
			}
		}
		if w.alarmed("data sources wait"); n == 0 {
			t.Error("nothing is held in memory")
		}
		// What is at the bound is looked at all the same.
		b := w.batchOf(alice)
		if err := w.Deliver(t.Context(), b); err == nil {
			t.Log("a small one still fits")
		}
		if th := w.threats(); len(th) != 1 || !w.quarantine(th[0].QuarantineID).State.Ordered() {
			t.Errorf("threats %v, want alice contained", th)
		}
		// A crash: the source reads again from what is stored.
		w.with(func(*threat.Policy) {})
		w.cursor("")
	})
}

// TestRefusedAndObservedTakeNothingOfTheReserve: a flood of events that lead to
// no containment must not use up what is kept for those that do.
func TestRefusedAndObservedTakeNothingOfTheReserve(t *testing.T) {
	storetest.OnSmallDisk(t, "size=12m", func(d *storetest.Disk) {
		w := newWorldIn(t, d.Dir, testReserve, contain)
		w.neighbor(bob, protected)
		d.Fill(0)
		for n := 0; n < 300; n++ {
			w.must(w.Deliver(t.Context(), w.batchOf(bob)))
			if err := w.Deliver(t.Context(), w.batch(n, 1, 4000)); err != nil {
				t.Fatal(err)
			}
		}
		if left, whole := w.store.Reserve(); left != whole {
			t.Errorf("%d of %d of the reserve are left", left, whole)
		}
	})
}

func TestNextBatchWaitsBehindTheLast(t *testing.T) {
	storetest.OnSmallDisk(t, "size=12m", func(d *storetest.Disk) {
		w := worldOn(t, d)
		w.must(w.Deliver(t.Context(), w.batch(0, 3, 3000)))
		d.Empty()
		storetest.Eventually(t, "there is room", func() bool {
			return w.update(t.Context(), func(j *job) error { return j.tx.SetCursor("other", make([]byte, 5000)) }) == nil
		})
		w.must(w.Deliver(t.Context(), w.batch(3, 1, 10)))
		w.cursor("") // a cursor behind the second would lose the first in a crash
		w.must(w.flush(t.Context()))
		w.cursor("4")
		if n := w.events(); n != 4 {
			t.Errorf("%d events, want 4", n)
		}
	})
}

func TestWatchDiskCarriesOutByItself(t *testing.T) {
	storetest.OnSmallDisk(t, "size=12m", func(d *storetest.Disk) {
		w := worldOn(t, d)
		ctx, cancel := context.WithCancel(t.Context())
		var watch sync.WaitGroup
		watch.Go(func() { w.watchDisk(ctx) })
		defer watch.Wait()
		defer cancel()
		w.must(w.Deliver(t.Context(), w.batch(0, 3, 3000)))
		for range 20 { // refused writes in a row do not put the next try off
			if err := w.update(ctx, func(j *job) error { return j.tx.SetCursor("other", make([]byte, 5000)) }); err == nil {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		d.Empty()
		storetest.Eventually(t, "the batch is stored", func() bool { return !w.backlog.has("eve") })
		w.cursor("3")
	})
}

func TestReserveThatIsNotWholeIsAnAlarm(t *testing.T) {
	storetest.OnSmallDisk(t, "size=12m", func(d *storetest.Disk) {
		w := newWorldIn(t, d.Dir, testReserve, nil)
		d.Fill(0)
		for n := 0; w.reserveWhole(); n++ { // nothing was refused yet
			w.must(w.store.Update(store.Urgent(t.Context()), func(tx store.Tx) error { return tx.SetCursor(fmt.Sprint("c", n), make([]byte, 4000)) }))
		}
		w.alarmed("no room for the reserve")
	})
}

func TestAlarms(t *testing.T) {
	w := newWorld(t, nil)
	w.alarmed()
	w.alert(printer, event.Victim, true)
	w.alarmed("1 threat waits for a person to decide")
	for n := range byte(3) {
		a := netip.AddrFrom4([4]byte{10, 77, 0, 20 + n})
		w.neighbor(a, endpoint.MAC{2, 0, 0, 0, 0, 20 + n})
		w.alert(a, event.Attacker, true)
	}
	w.alarmed("1 quarantine is held at the cap", "1 threat waits")
	if all := w.Alarms(); len(all) != 2 || !strings.Contains(all[0], "cap") {
		t.Errorf("%q, want the cap first", all)
	}
}
