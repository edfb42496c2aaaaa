package sqlite

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestReserveFile(t *testing.T) {
	database := filepath.Join(t.TempDir(), "cordon.db")
	const size = 3*reserveStep + 100
	r := newReserve(database, size)
	onDisk := func(want int64) {
		t.Helper()
		st, err := os.Stat(r.path)
		if err != nil || st.Size() != want || r.left.Load() != want {
			t.Errorf("%v %v, left %d; want %d bytes", st, err, r.left.Load(), want)
		}
	}
	now := time.Now()
	if err := r.fill(now); err != nil {
		t.Fatal(err)
	}
	onDisk(size)
	for _, left := range []int64{size - reserveStep, size - 2*reserveStep, size - 3*reserveStep, 0} {
		if !r.spend() {
			t.Fatalf("nothing to spend, %d is wanted to be left", left)
		}
		onDisk(left)
		if err := r.fill(now); err == nil {
			t.Error("filled at once again: who fills the disk would have it")
		}
	}
	if r.spend() || r.whole() {
		t.Error("an empty reserve was spent, or is whole")
	}
	if again := newReserve(database, size); again.left.Load() != 0 {
		t.Errorf("after a restart %d are left", again.left.Load())
	}
	if err := r.fill(now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	onDisk(size)
	f, err := os.Create(r.path) // a file system without fallocate(2)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := r.write(f); err != nil {
		t.Fatal(err)
	}
	onDisk(size)
	if none := newReserve(database+"x", 0); !none.whole() || none.spend() {
		t.Error("no reserve is wanted, and there is one")
	}
}
