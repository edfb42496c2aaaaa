package agent

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// BenchmarkAlertToStopped measures from the task's arrival to the whole tree
// frozen, on a host with 500 further processes and a tree of 9 that start each
// other again.
func BenchmarkAlertToStopped(b *testing.B) {
	c := testConfig(b)
	c.Watch = 0
	a := newAgent(b, c)
	for range 500 {
		launch(b, "/bin/sleep", "100123")
	}
	b.Cleanup(func() { killAll(b, "100123") })
	eventually(b, "the processes run", func() bool { return len(running(b, "100123")) >= 500 })
	var stopped, whole time.Duration
	runs := 0
	for b.Loop() {
		b.StopTimer()
		dir, remote := dropDir(b), c2(b)
		exe := drop(b, dir+"/.upd")
		ring := filepath.Join(dir, "ring")
		if err := os.Mkdir(ring, 0o700); err != nil {
			b.Fatal(err)
		}
		launch(b, exe, "-connect", remote.String(), "-ring", ring, "-size", "8")
		eventually(b, "the ring runs", func() bool {
			entries, _ := os.ReadDir(ring)
			return len(entries) == 8
		})
		connected(b, a, remote)
		b.StartTimer()
		begun := time.Now()
		r := a.Execute(b.Context(), task("bench"+strconv.Itoa(runs)+dir, cleanTask, remote))
		whole += time.Since(begun)
		wantDone(b, r)
		stopped += r.GetStoppedAt().AsTime().Sub(begun)
		runs++
		b.StopTimer()
		killAll(b, exe)
		b.StartTimer()
	}
	b.ReportMetric(float64(stopped.Microseconds())/1000/float64(runs), "ms-to-stopped/op")
	b.ReportMetric(float64(whole.Microseconds())/1000/float64(runs), "ms-whole/op")
}
