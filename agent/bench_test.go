package agent

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// BenchmarkAlertToStopped measures from the task's arrival to the whole tree
// frozen, on a host with 500 further processes: a tree of 9 that waits, and a
// ring whose members start each other again, also those that only are slow, and
// so grows to hundreds that keep every processor busy.
func BenchmarkAlertToStopped(b *testing.B) {
	c := testConfig(b)
	c.Watch = 0
	a := newAgent(b, c)
	for range 500 {
		launch(b, "/bin/sleep", "100123")
	}
	b.Cleanup(func() { killAll(b, "100123") })
	eventually(b, "the processes run", func() bool { return len(running(b, "100123")) >= 500 })
	b.Run("tree", func(b *testing.B) {
		stopTrees(b, a, func(exe, remote string) {
			launch(b, exe, "-connect", remote, "-children", "8")
			eventually(b, "the tree runs", func() bool { return len(running(b, exe)) == 9 })
		})
	})
	b.Run("ring", func(b *testing.B) {
		stopTrees(b, a, func(exe, remote string) {
			ring := filepath.Join(filepath.Dir(exe), "ring")
			if err := os.Mkdir(ring, 0o700); err != nil {
				b.Fatal(err)
			}
			launch(b, exe, "-connect", remote, "-ring", ring, "-size", "8")
			eventually(b, "the ring runs", func() bool {
				entries, _ := os.ReadDir(ring)
				return len(entries) == 8
			})
		})
	})
}

// stopTrees cleans what start started, again and again.
func stopTrees(b *testing.B, a *Agent, start func(exe, remote string)) {
	var stopped, whole time.Duration
	members, runs := 0, 0
	for b.Loop() {
		b.StopTimer()
		dir, remote := dropDir(b), c2(b)
		exe := drop(b, dir+"/.upd")
		start(exe, remote.String())
		connected(b, a, remote)
		b.StartTimer()
		begun := time.Now()
		r := a.Execute(b.Context(), task("bench"+strconv.Itoa(runs)+dir, cleanTask, remote))
		whole += time.Since(begun)
		wantDone(b, r)
		stopped += r.GetStoppedAt().AsTime().Sub(begun)
		for _, act := range r.GetActions() {
			if act.GetVerb() == "stop" {
				members++
			}
		}
		runs++
		b.StopTimer()
		killAll(b, exe)
		b.StartTimer()
	}
	b.ReportMetric(float64(stopped.Microseconds())/1000/float64(runs), "ms-to-stopped/op")
	b.ReportMetric(float64(whole.Microseconds())/1000/float64(runs), "ms-whole/op")
	b.ReportMetric(float64(members)/float64(runs), "processes/op")
}
