package storetest

import (
	"math"
	"slices"
	"testing"

	"github.com/cordon-security/cordon/mitigator/store"
	"github.com/cordon-security/cordon/mitigator/threat"
)

// trimmed holds that a device that is further back than the log reaches is told
// so, and that what a snapshot gives it lets it follow again.
func trimmed(t *testing.T, open func() store.Store) {
	s := open()
	const old, latest = "q-old", "q-latest"
	var epoch uint64
	update(t, s, func(tx store.Tx) error {
		for n, id := range []string{old, latest} {
			e, err := addEndpoint(tx, byte(n))
			if err != nil {
				return err
			}
			if err := tx.AddQuarantine(quarantine(id, e.ID, threat.QuarantineOrdered)); err != nil {
				return err
			}
		}
		_, err := tx.AddOrder(old)
		return err
	})
	epoch = epochOf(t, s)
	for range 4 {
		update(t, s, func(tx store.Tx) error {
			for range (store.MaxOrders + 4000) / 4 {
				if _, err := tx.AddOrder(latest); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open()
	defer s.Close()
	if got := epochOf(t, s); got != epoch {
		t.Errorf("trimming made epoch %d of %d", got, epoch)
	}
	view(t, s, func(v store.View) error {
		const head = 1 + store.MaxOrders + 4000
		if _, got, ok, err := v.Orders(1, 0); ok || err != nil || got != head {
			t.Errorf("after a revision that the log does not reach: ok %v, head %d, %v", ok, got, err)
		}
		qs, got, err := v.Snapshot()
		var ids []string
		for _, q := range qs {
			ids = append(ids, q.ID)
		}
		slices.Sort(ids)
		if err != nil || got != head || !slices.Equal(ids, []string{latest, old}) {
			t.Errorf("snapshot at %d of %v, %v; want both at %d", got, ids, err, head)
		}
		if rest, got, ok, err := v.Orders(head, 0); !ok || err != nil || got != head || len(rest) != 0 {
			t.Errorf("after the snapshot: %v to %d, %v %v", rest, got, ok, err)
		}
		got2, to, ok, err := v.Orders(head-10, 0)
		if !ok || err != nil || to != head || len(got2) != 1 || got2[0].Revision != head || got2[0].Quarantine.ID != latest {
			t.Errorf("the last ten: %v to %d, %v %v; want the quarantine once", got2, to, ok, err)
		}
		return nil
	})
}

// newEpoch holds that a new epoch is above both what the store had and what it is
// told, and lasts.
func newEpoch(t *testing.T, open func() store.Store) {
	s := open()
	first := epochOf(t, s)
	for _, above := range []uint64{0, first + 1000, 5} {
		before := epochOf(t, s)
		var got uint64
		update(t, s, func(tx store.Tx) (err error) {
			got, err = tx.BeginEpoch(above)
			return err
		})
		if got <= before || got <= above || got != epochOf(t, s) {
			t.Errorf("the epoch after %d, above %d, is %d, and the store says %d", before, above, got, epochOf(t, s))
		}
	}
	last := epochOf(t, s)
	err := s.Update(t.Context(), func(tx store.Tx) error {
		_, err := tx.BeginEpoch(math.MaxUint64)
		return err
	})
	if err == nil || epochOf(t, s) != last {
		t.Errorf("above the last epoch that there can be came %d, %v", epochOf(t, s), err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open()
	defer s.Close()
	if got := epochOf(t, s); got != last {
		t.Errorf("after a restart the epoch is %d, it was %d", got, last)
	}
}
