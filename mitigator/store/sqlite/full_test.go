package sqlite

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cordon-security/cordon/mitigator/endpoint"
	"github.com/cordon-security/cordon/mitigator/event"
	"github.com/cordon-security/cordon/mitigator/store"
	"github.com/cordon-security/cordon/mitigator/store/storetest"
)

// batch writes an event, an endpoint and a cursor: three tables that stand or
// fall together.
func batch(n int) func(store.Tx) error {
	return func(tx store.Tx) error {
		now := time.Unix(int64(n+1), 0)
		r := event.Record{Classified: event.Classified{Disposition: event.Kept, Event: event.Event{Source: "eve", Time: now, Received: now,
			Key: event.Key{byte(n), byte(n >> 8)}, Severity: event.Low, Raw: make([]byte, 2000)}}}
		if _, err := tx.AddEvent(&r); err != nil {
			return err
		}
		e := endpoint.Endpoint{Hostname: fmt.Sprint("h", n), FirstSeen: now, LastSeen: now}
		return errors.Join(tx.AddEndpoint(&e), tx.SetCursor("eve", fmt.Append(nil, n+1)))
	}
}

// holds checks that exactly the first n batches are there.
func holds(t *testing.T, s *Store, n int) {
	t.Helper()
	err := s.View(t.Context(), func(v store.View) error {
		events, err := v.Events(0, 1e6)
		endpoints, err2 := v.Endpoints(0, 1e6)
		cursor, err3 := v.Cursor("eve")
		if len(events) != n || len(endpoints) != n || n > 0 && string(cursor) != fmt.Sprint(n) {
			t.Errorf("%d events, %d endpoints, cursor %s; want %d of each", len(events), len(endpoints), cursor, n)
		}
		return errors.Join(err, err2, err3)
	})
	if err != nil {
		t.Errorf("a view on a full disk: %v", err)
	}
}

// untilFull writes batches from n on until one fails, and returns how many are in.
func untilFull(t *testing.T, s *Store, n int) int {
	t.Helper()
	for ; ; n++ {
		err := s.Update(t.Context(), batch(n))
		if errors.Is(err, store.ErrFull) {
			return n
		}
		if err != nil {
			t.Fatalf("batch %d: %v, want ErrFull at the end", n, err)
		}
	}
}

func openOn(t *testing.T, d *storetest.Disk, reserve int64) *Store {
	t.Helper()
	s, err := OpenWith(t.Context(), filepath.Join(d.Dir, "cordon.db"), Options{Reserve: reserve})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestFullDisk(t *testing.T) {
	storetest.OnSmallDisk(t, "size=4m", func(d *storetest.Disk) {
		s := openOn(t, d, 0)
		n := 0
		for i, leave := range []int64{300 << 10, 100 << 10, 4 << 10, 0} {
			d.Fill(leave)
			n = untilFull(t, s, n)
			holds(t, s, n)
			if err := s.Update(t.Context(), batch(n)); !errors.Is(err, store.ErrFull) {
				t.Errorf("once more on the full disk: %v", err)
			}
			d.Empty()
			if err := s.Update(t.Context(), batch(n)); err != nil {
				t.Fatalf("round %d: the same store with room again: %v", i, err)
			}
			n++
			holds(t, s, n)
		}
		if n < 10 {
			t.Errorf("%d batches in all: the disk was full from the start", n)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		holds(t, openOn(t, d, 0), n)
	})
}

// TestFullDiskAtOpen has no room for the files that SQLite makes beside the
// database.
func TestFullDiskAtOpen(t *testing.T) {
	storetest.OnSmallDisk(t, "size=4m,nr_inodes=12", func(d *storetest.Disk) {
		path := filepath.Join(d.Dir, "cordon.db")
		s := openOn(t, d, 0)
		if err := s.Update(t.Context(), batch(0)); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		refused := func(what string) {
			t.Helper()
			if s, err := OpenWith(t.Context(), path, Options{}); !errors.Is(err, store.ErrFull) {
				t.Errorf("%s: %v %v, want ErrFull", what, s, err)
			}
		}
		var files []string
		for i := 0; ; i++ {
			name := filepath.Join(d.Dir, fmt.Sprint("inode", i))
			if err := os.WriteFile(name, nil, 0o600); err != nil {
				break
			}
			files = append(files, name)
		}
		refused("no inode is free")
		for _, name := range files {
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
		d.Fill(0)
		refused("no block is free")
		d.Empty()
		holds(t, openOn(t, d, 0), 1)
	})
}

func TestReserve(t *testing.T) {
	storetest.OnSmallDisk(t, "size=24m", func(d *storetest.Disk) {
		s := openOn(t, d, DefaultReserve)
		if left, whole := s.Reserve(); left != whole || whole != DefaultReserve {
			t.Fatalf("the reserve is %d of %d", left, whole)
		}
		d.Fill(200 << 10)
		n := untilFull(t, s, 0)
		d.Fill(0)
		urgent := 0
		for ; ; urgent++ {
			err := s.Update(store.Urgent(t.Context()), batch(n))
			if errors.Is(err, store.ErrFull) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			n++
			if urgent == 20 {
				if err := s.Update(t.Context(), batch(n)); !errors.Is(err, store.ErrFull) {
					t.Errorf("an ordinary update on the reserve: %v", err)
				}
				d.Fill(0) // whoever filled the disk takes what was given up
			}
		}
		holds(t, s, n)
		if left, _ := s.Reserve(); left != 0 || urgent < 300 {
			t.Errorf("%d urgent updates with %d bytes of the reserve left", urgent, left)
		}
		t.Logf("%d urgent updates on a reserve of %d bytes", urgent, DefaultReserve)
		d.Empty()
		storetest.Eventually(t, "an ordinary update with room again", func() bool { return s.Update(t.Context(), batch(n)) == nil })
		holds(t, s, n+1)
		if left, whole := s.Reserve(); left != whole {
			t.Errorf("with room again the reserve is %d of %d", left, whole)
		}
	})
}

// TestRestartOnFullDisk is of a mitigator that comes back while the disk is full:
// what stands must be releasable.
func TestRestartOnFullDisk(t *testing.T) {
	storetest.OnSmallDisk(t, "size=24m", func(d *storetest.Disk) {
		s := openOn(t, d, DefaultReserve)
		if err := s.Update(t.Context(), batch(0)); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		d.Fill(0)
		s = openOn(t, d, DefaultReserve)
		if err := s.Update(t.Context(), batch(1)); !errors.Is(err, store.ErrFull) {
			t.Errorf("an ordinary update: %v", err)
		}
		if err := s.Update(store.Urgent(t.Context()), batch(1)); err != nil {
			t.Errorf("an urgent update: %v", err)
		}
		holds(t, s, 2)
	})
}
