package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/cordon-security/cordon/internal/testlan"
	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

const benchSize = 100_000

// benchQuarantine is an endpoint with one MAC and one IPv4 address.
func benchQuarantine(n uint32) *wirev1.Quarantine {
	mac := binary.BigEndian.AppendUint32([]byte{0x02, 0}, n)
	return &wirev1.Quarantine{
		Id: fmt.Sprintf("01936000-0000-7000-8000-%012x", n), Macs: [][]byte{mac}, Access: wirev1.Access_ACCESS_NONE, Reason: "benchmark",
		Bindings: []*wirev1.AddressBinding{{Address: binary.BigEndian.AppendUint32(nil, 0x0b000001+n), Mac: mac, Present: true}},
	}
}

func (r *rig) snapshot(size uint32) {
	r.Helper()
	const part = 4000
	for i := uint32(0); i*part < size; i++ {
		s := &wirev1.Snapshot{Revision: &wirev1.Revision{Epoch: 1, Number: 1}, Part: i, Last: (i+1)*part >= size}
		for n := i * part; n < min((i+1)*part, size); n++ {
			s.Quarantines = append(s.Quarantines, benchQuarantine(n))
		}
		resp, err := r.client.Apply(r.Context(), connect.NewRequest(&wirev1.ApplyRequest{Order: &wirev1.ApplyRequest_Snapshot{Snapshot: s}}))
		if err != nil || resp.Msg.GetNeedSnapshot() {
			r.Fatal(resp, err)
		}
	}
}

// answers waits until the device takes orders: the revision that it holds, again.
func (r *rig) answers() {
	r.Helper()
	same := &wirev1.Revision{Epoch: 1, Number: 1}
	r.eventually("the device takes orders", func() error {
		_, err := r.client.Apply(r.Context(), connect.NewRequest(&wirev1.ApplyRequest{Order: &wirev1.ApplyRequest_Delta{
			Delta: &wirev1.Delta{Base: same, Revision: same}}}))
		return err
	})
}

// memory is a figure of /proc/PID/status, in MB.
func (r *rig) memory(b *testing.B, field string) float64 {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.process.PID()))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			var kb float64
			if _, err := fmt.Sscan(rest, &kb); err == nil {
				return kb / 1024
			}
		}
	}
	b.Fatalf("no %s", field)
	return 0
}

// BenchmarkDevice100k is the real process with 100,000 quarantines of a MAC and
// an IPv4 address: from its start to its first answer when the rules are in the
// kernel still and when they are not, and one more order.
func BenchmarkDevice100k(b *testing.B) {
	lan, err := testlan.New(context.Background(), testlan.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer lan.Close()
	host, err := lan.AddHost(context.Background(), "gate", testlan.HostOptions{})
	if err != nil {
		b.Fatal(err)
	}
	r := newRig(b, host, "name: gate\ncap:\n  max_at_once: 0\n  max_new: 0\n")
	r.snapshot(benchSize)
	for name, flush := range map[string]bool{"adopt": false, "reboot": true} {
		b.Run(name, func(b *testing.B) {
			var took time.Duration
			for range b.N {
				r.kill()
				if flush {
					r.run("nft", "flush", "ruleset")
				}
				begin := time.Now()
				r.launch()
				r.answers()
				took += time.Since(begin)
			}
			b.ReportMetric(float64(took.Milliseconds())/float64(b.N), "ms/start")
			b.ReportMetric(r.memory(b, "VmRSS"), "MB-rss")
			b.ReportMetric(r.memory(b, "VmHWM"), "MB-peak")
		})
	}
	b.Run("order", func(b *testing.B) {
		held := uint64(1)
		for b.Loop() {
			n := uint32(benchSize) + uint32(held)
			resp, err := r.client.Apply(context.Background(), connect.NewRequest(&wirev1.ApplyRequest{Order: &wirev1.ApplyRequest_Delta{Delta: &wirev1.Delta{
				Base: &wirev1.Revision{Epoch: 1, Number: held}, Revision: &wirev1.Revision{Epoch: 1, Number: held + 1},
				Changes: []*wirev1.Change{{Change: &wirev1.Change_Put{Put: benchQuarantine(n)}}}}}}))
			if err != nil || resp.Msg.GetNeedSnapshot() {
				b.Fatal(resp, err)
			}
			held++
		}
	})
}
