package main

import (
	"bufio"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/cordon-security/cordon/internal/testlan"
	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

// enrol installs the agent on a host with a one-time token, starts it, and waits
// until it is connected.
func (r *rig) enrol(h *testlan.Host) *testlan.Process {
	r.Helper()
	bin, err := programs()
	if err != nil {
		r.Fatal(err)
	}
	token, err := r.admin.CreateAgentToken(r.Context(), connect.NewRequest(&wirev1.CreateAgentTokenRequest{Lifetime: durationpb.New(time.Hour)}))
	if err != nil {
		r.Fatal(err)
	}
	err = errors.Join(
		h.CopyFile(filepath.Join(bin, "cordon-agent"), programDir+"cordon-agent", 0o755),
		h.WriteFile("/etc/cordon/agent.yaml", []byte("state_dir: /var/lib/cordon/agent\n"), 0o644),
		h.Mkdir(stateDir, 0o755),
		h.WriteFile("/root/token", []byte(token.Msg.GetToken()), 0o600))
	if err == nil {
		_, err = h.Run(r.Context(), programDir+"cordon-agent", "enroll", "--token-file", "/root/token")
	}
	if err != nil {
		r.Fatal(err)
	}
	p := r.start(h, "cordon-agent")
	r.eventually("the agent is connected", func() error {
		status, err := r.admin.GetStatus(r.Context(), connect.NewRequest(&wirev1.GetStatusRequest{}))
		if err == nil && status.Msg.GetAgentsConnected() != 1 {
			err = errors.New("it is not")
		}
		return err
	})
	return p
}

// memory is what a process has in memory, in MB, by a field of
// /proc/PID/smaps_rollup: Rss, or Pss, which counts its share of what it shares.
func (r *rig) memory(p *testlan.Process, field string) float64 {
	r.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", p.PID()))
	if err != nil {
		r.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), field+":"); ok {
			var kb float64
			if _, err := fmt.Sscan(rest, &kb); err == nil {
				return kb / 1024
			}
		}
	}
	r.Fatalf("no %s", field)
	return 0
}

// BenchmarkAgentIdle is what the agent takes on a quiet host of the LAN, connected
// to its mitigator: memory at the end of a minute, and processor time over it.
func BenchmarkAgentIdle(b *testing.B) {
	r := newRig(b, 0, assessFirst)
	p := r.enrol(r.lan.Alice)
	time.Sleep(10 * time.Second)
	for b.Loop() {
		const while = time.Minute
		before := r.processorTime(p)
		time.Sleep(while)
		used := r.processorTime(p) - before
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(100*used.Seconds()/while.Seconds(), "%-of-a-core")
		b.ReportMetric(r.memory(p, "Rss"), "MB-rss")
		b.ReportMetric(r.memory(p, "Pss"), "MB-pss")
		b.ReportMetric(r.memory(p, "Anonymous"), "MB-anonymous")
	}
}

// BenchmarkEventToStopped is from the alert's line in eve.json to the whole
// process tree stopped on an endpoint with 500 other processes, as its agent says:
// mitigator, channel, assessment and cleanup. A tree has 9 processes.
func BenchmarkEventToStopped(b *testing.B) {
	r := newRig(b, 0, assessFirst)
	alice := r.lan.Alice
	if err := alice.CopyFile("/bin/sleep", "/usr/local/bin/idler", 0o755); err != nil {
		b.Fatal(err)
	}
	for range 500 {
		if _, err := alice.Start(b.Context(), testlan.Cmd{Args: []string{"/usr/local/bin/idler", "100000"}}); err != nil {
			b.Fatal(err)
		}
	}
	r.enrol(alice)
	r.known(alice, testlan.AliceIPv4.String())
	var stopped, ordered []time.Duration
	tries := 0
	for b.Loop() {
		tries++
		s, o := r.stopTree(tries)
		stopped, ordered = append(stopped, s), append(ordered, o)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ms(quantile(stopped, 0)), "ms-min")
	b.ReportMetric(ms(quantile(stopped, 0.5)), "ms-p50")
	b.ReportMetric(ms(quantile(stopped, 1)), "ms-max")
	b.ReportMetric(ms(quantile(ordered, 0.5)), "ms-p50-cleanup-ordered")
}

// stopTree starts a tree on alice, raises its alert, and returns how long after
// the line the tree was stopped, and the cleanup ordered.
func (r *rig) stopTree(try int) (stopped, ordered time.Duration) {
	r.Helper()
	alice, began := r.lan.Alice, time.Now()
	c2 := netip.AddrPortFrom(testlan.C2IPv4, testlan.C2Port)
	path := fmt.Sprintf("/var/tmp/.cache-%d/updater", try)
	if _, err := alice.StartPayload(r.Context(), path, testlan.PayloadOptions{C2: c2, Name: fmt.Sprintf("tree%d", try), Children: 8}); err != nil {
		r.Fatal(err)
	}
	var beacons []testlan.Connection
	r.eventually("the whole tree beacons", func() error {
		status, err := r.lan.C2.Status(r.Context())
		beacons = testlan.Receiving(status, testlan.AliceIPv4, began)
		if err == nil && len(beacons) != 9 {
			err = fmt.Errorf("%d of 9 do", len(beacons))
		}
		return err
	})
	time.Sleep(500 * time.Millisecond) // what starting them took is over
	line := alertLine(try, testlan.AliceIPv4.String(), testlan.C2IPv4.String(), int(beacons[0].Remote.Port()))
	eve, err := os.OpenFile(filepath.Join(r.disk, "eve.json"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		r.Fatal(err)
	}
	defer eve.Close()
	written := time.Now()
	if _, err := eve.Write(line); err != nil {
		r.Fatal(err)
	}
	r.eventually("the threat is resolved", func() error {
		t, err := r.admin.GetThreat(r.Context(), connect.NewRequest(&wirev1.GetThreatRequest{Id: int64(try)}))
		if err != nil {
			return err
		}
		if s := t.Msg.GetThreat().GetState(); s != "resolved" {
			return fmt.Errorf("it is %s: %v", s, t.Msg.GetTimeline())
		}
		for _, task := range t.Msg.GetTasks() {
			if at := task.GetResult().GetStoppedAt(); at != nil {
				stopped, ordered = at.AsTime().Sub(written), task.GetCreatedAt().AsTime().Sub(written)
				return nil
			}
		}
		return errors.New("it says of no task when the tree was stopped")
	})
	return stopped, ordered
}
