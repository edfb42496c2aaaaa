package storetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/cordon-security/cordon/mitigator/event"
	"github.com/cordon-security/cordon/mitigator/store"
)

func reject(n int) event.Reject {
	return event.Reject{Key: event.Key{byte(n), byte(n >> 8)}, Reason: fmt.Sprintf("reason %d", n), Raw: []byte{'{', byte(n)}, Size: int64(n),
		Received: t0.Add(time.Duration(n) * time.Second)}
}

func rejects(t *testing.T, open func() store.Store) {
	s := open()
	defer s.Close()
	const extra = 150
	update(t, s, func(tx store.Tx) error {
		for n := range store.MaxRejects + extra {
			if err := tx.AddReject(reject(n), "eve"); err != nil {
				return err
			}
		}
		return tx.AddReject(reject(5000), "zeek")
	})
	view(t, s, func(v store.View) error {
		last := store.MaxRejects + extra - 1
		got, err := v.Rejects("eve", 2)
		if err != nil || len(got) != 2 || got[0].ID <= got[1].ID {
			t.Fatalf("the two newest: %v %v", got, err)
		}
		if fmt.Sprint(got[0].Reject) != fmt.Sprint(reject(last)) || got[0].Source != "eve" {
			t.Errorf("the newest is %+v, want %+v", got[0], reject(last))
		}
		all, err := v.Rejects("eve", 2*store.MaxRejects)
		if oldest := reject(last - len(all) + 1).Reason; err != nil || len(all) > store.MaxRejects || len(all) < store.MaxRejects*9/10 || all[len(all)-1].Reason != oldest {
			t.Errorf("%d kept, %v; want the newest, about %d", len(all), err, store.MaxRejects)
		}
		every, err := v.Rejects("", 2)
		if err != nil || len(every) != 2 || every[0].Source != "zeek" || every[1].Source != "eve" {
			t.Errorf("of every source: %+v %v", every, err)
		}
		none, err := v.Rejects("other", 0)
		if err != nil || len(none) != 0 {
			t.Errorf("of a source without: %+v %v", none, err)
		}
		_, n, err := v.SourceCounts("eve")
		if err != nil || n != store.MaxRejects+extra {
			t.Errorf("%d counted, %v; want %d", n, err, store.MaxRejects+extra)
		}
		return nil
	})
}

// together holds that a source's cursor and what it stands behind share one fate.
func together(t *testing.T, open func() store.Store) {
	s := open()
	deliver := func(n byte, fate error) error {
		return s.Update(context.Background(), func(tx store.Tx) error {
			r := event.Record{Classified: event.Classified{Event: event.Event{Source: "eve", Key: event.Key{n}, Time: t0, Received: t0,
				Severity: event.Low}, Disposition: event.Kept}}
			if _, err := tx.AddEvent(&r); err != nil {
				return err
			}
			return errors.Join(tx.AddReject(reject(int(n)), "eve"), tx.SetCursor("eve", []byte{n}), fate)
		})
	}
	if err := deliver(1, nil); err != nil {
		t.Fatal(err)
	}
	failed := errors.New("no")
	if err := deliver(2, failed); !errors.Is(err, failed) {
		t.Fatalf("a batch that fails: %v", err)
	}
	check := func(when string) {
		view(t, s, func(v store.View) error {
			c, err := v.Cursor("eve")
			events, rejects, err2 := v.SourceCounts("eve")
			list, err3 := v.Events(0, 0)
			if err := errors.Join(err, err2, err3); err != nil || len(c) != 1 || c[0] != 1 || events != 1 || rejects != 1 || len(list) != 1 {
				t.Errorf("%s: cursor %v, %d events (%d listed), %d rejects, %v; want those of the first batch alone", when, c, events, len(list), rejects, err)
			}
			none, err := v.Cursor("other")
			if err != nil || none != nil {
				t.Errorf("%s: the cursor of a source that never delivered: %v %v", when, none, err)
			}
			return nil
		})
	}
	check("after the second batch failed")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open()
	defer s.Close()
	check("after a restart")
}
