package device

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cordon-security/cordon/internal/guard"
	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

// naming is a quarantine that names these MACs.
func naming(id string, macs ...byte) *wirev1.Quarantine {
	q := &wirev1.Quarantine{Id: id, Access: wirev1.Access_ACCESS_NONE, Reason: "test"}
	for _, n := range macs {
		m := mac(n)
		q.Macs = append(q.Macs, m[:])
	}
	return q
}

func until(q *wirev1.Quarantine, at time.Time) *wirev1.Quarantine {
	q.ExpiresAt = timestamppb.New(at)
	return q
}

// TestCapCountsMACs: no order puts more MACs out than the cap lets, however it
// is written.
func TestCapCountsMACs(t *testing.T) {
	const epoch = 7
	steps := map[string]struct {
		orders [][]*wirev1.Quarantine
		want   map[string]string
	}{
		"one MAC shared with one that is in": {
			[][]*wirev1.Quarantine{{naming("a", 1)}, {naming("a", 1), naming("b", 1, 2, 3, 4)}}, map[string]string{"a": "IN_FORCE", "b": "HELD"}},
		"an id that gains MACs": {
			[][]*wirev1.Quarantine{{naming("a", 1)}, {naming("a", 1, 2, 3, 4)}}, map[string]string{"a": "HELD"}},
		"an id that gains MACs within the cap": {
			[][]*wirev1.Quarantine{{naming("a", 1)}, {naming("a", 1, 2)}}, map[string]string{"a": "IN_FORCE"}},
		"an id that loses a MAC": {
			[][]*wirev1.Quarantine{{naming("a", 1, 2)}, {naming("a", 2)}}, map[string]string{"a": "IN_FORCE"}},
		"many MACs in one": {
			[][]*wirev1.Quarantine{{naming("a", 1, 2, 3)}}, map[string]string{"a": "HELD"}},
		"one that never fits does not stop the others": {
			[][]*wirev1.Quarantine{{naming("a", 1, 2, 3), naming("b", 4)}}, map[string]string{"a": "HELD", "b": "IN_FORCE"}},
		"another id": {
			[][]*wirev1.Quarantine{{naming("a", 1, 2)}, {naming("b", 2, 1)}}, map[string]string{"a": "ABSENT", "b": "IN_FORCE"}},
		"another id does not give its room to a newcomer": {
			[][]*wirev1.Quarantine{{naming("a", 1), naming("b", 2)}, {naming("c", 3), naming("d", 1), naming("b", 2)}},
			map[string]string{"b": "IN_FORCE", "c": "HELD", "d": "IN_FORCE"}},
		"the same id over and over": {
			[][]*wirev1.Quarantine{{naming("a", 1), naming("b", 2)}, {naming("a", 1), naming("a", 1), naming("a", 1), naming("b", 2), naming("c", 3)}},
			map[string]string{"a": "IN_FORCE", "b": "IN_FORCE", "c": "HELD"}},
		"two that share their MACs": {
			[][]*wirev1.Quarantine{{naming("a", 1, 2)}, {naming("a", 1, 2), naming("b", 1)}, {naming("b", 1), naming("c", 3)}, {naming("b", 1), naming("c", 3), naming("d", 4)}},
			map[string]string{"b": "IN_FORCE", "c": "IN_FORCE", "d": "HELD"}},
	}
	for name, s := range steps {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.limit = guard.Cap{AtOnce: 2}
			f.start()
			for i, qs := range s.orders {
				f.snapshot(rev(epoch, uint64(i+1)), 0, true, qs...)
			}
			f.expect(s.want)
			if n, _ := f.method.Count(); n > 2 {
				t.Errorf("%d MACs are cut off, the cap is 2", n)
			}
			f.start().expect(s.want)
		})
	}
}

func TestCapInTheWindowCountsMACs(t *testing.T) {
	f := newFixture(t)
	f.limit = guard.Cap{New: 3, Window: time.Hour}
	f.start()
	f.order(put(naming("a", 1)))
	f.order(put(naming("b", 1, 2, 3, 4)))
	f.expect(map[string]string{"a": "IN_FORCE", "b": "HELD"})
	f.order(put(naming("c", 2, 3)), remove("a"))
	f.order(put(naming("d", 1, 2)), put(naming("e", 5)))
	f.expect(map[string]string{"c": "IN_FORCE", "d": "IN_FORCE", "e": "HELD"})
	f.now = f.now.Add(61 * time.Minute)
	f.device.tend()
	// Of b's MACs all but one are in force by other quarantines.
	f.expect(map[string]string{"b": "IN_FORCE", "e": "IN_FORCE"})
}

// TestDuplicatesInASnapshot: the last of an id counts, and is told once.
func TestDuplicatesInASnapshot(t *testing.T) {
	f := newFixture(t).start()
	past := f.now.Add(-time.Minute)
	r := f.snapshot(rev(1, 1), 0, true, until(naming("a", 1), past), naming("a", 1))
	if len(r.GetStatuses()) != 1 || r.GetStatuses()[0].GetState() != wirev1.EnforcementState_ENFORCEMENT_STATE_IN_FORCE {
		t.Errorf("told %v", r.GetStatuses())
	}
	r = f.snapshot(rev(1, 2), 0, true, naming("a", 1), until(naming("a", 1), past))
	if len(r.GetStatuses()) != 1 || r.GetStatuses()[0].GetState() != wirev1.EnforcementState_ENFORCEMENT_STATE_EXPIRED {
		t.Errorf("told %v", r.GetStatuses())
	}
	f.expect(map[string]string{"a": "ABSENT"})
}

// TestHistoryOfBeginsIsForgotten: what counts for nothing any more leaves memory,
// also when the clock was set back in between.
func TestHistoryOfBeginsIsForgotten(t *testing.T) {
	f := newFixture(t)
	f.limit = guard.Cap{New: 3, Window: time.Hour}
	f.start()
	f.order(put(naming("a", 1)))
	begun := func() int { return len(f.device.store.Begun(time.Time{})) }
	f.now = f.now.Add(59 * time.Minute)
	f.device.tend()
	if begun() != 1 {
		t.Error("forgotten within the window")
	}
	f.now = f.now.Add(-10 * time.Minute)
	f.device.tend()
	f.now = f.now.Add(13 * time.Minute)
	f.device.tend()
	if begun() != 0 {
		t.Error("kept for ever")
	}
}
