package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cordon-security/cordon/internal/testlan"
)

// inSet is how many quarantines are in force while one more is measured.
const inSet = 100_000

// eveTime is how Suricata writes times.
const eveTime = "2006-01-02T15:04:05.000000-0700"

// alertLine is a trojan's HTTP request as Suricata writes it; addresses, ports,
// times and the flow's number are this LAN's.
func alertLine(flow int, src, dst string, srcPort int) []byte {
	now := time.Now()
	return fmt.Appendf(nil, `{"timestamp":"%s","flow_id":%d,"event_type":"alert","src_ip":"%s","src_port":%d,"dest_ip":"%s","dest_port":4444,"proto":"TCP","tx_id":0,`+
		`"alert":{"action":"allowed","gid":1,"signature_id":2017259,"rev":12,"signature":"ET TROJAN Generic - POST To .php w/Extended ASCII Characters",`+
		`"category":"A Network Trojan was detected","severity":1},"http":{"hostname":"update.example.org","url":"/index.php","http_method":"POST","protocol":"HTTP/1.1",`+
		`"status":200,"length":0},"app_proto":"http","direction":"to_server","flow":{"pkts_toserver":7,"pkts_toclient":6,"bytes_toserver":1562,"bytes_toclient":946,"start":"%s"}}`+"\n",
		now.Format(eveTime), 1_000_000+flow, src, srcPort, dst, now.Add(-90*time.Millisecond).Format(eveTime))
}

// dropRig sends packets from bob to alice and cuts bob off.
type dropRig struct {
	*rig
	traffic *traffic
	stages  *stages
	eve     *os.File
	tries   int
}

func newDropRig(t testing.TB, quarantines int) *dropRig {
	t.Helper()
	d := &dropRig{rig: newRig(t, quarantines, containFirst)}
	d.known(d.lan.Bob, testlan.BobIPv4.String())
	d.introduce(d.lan.Bob, d.lan.Alice, testlan.AliceIPv4.AsSlice())
	d.introduce(d.lan.Alice, d.lan.Bob, testlan.BobIPv4.AsSlice())
	var err error
	if d.eve, err = os.OpenFile(filepath.Join(d.disk, "eve.json"), os.O_WRONLY|os.O_APPEND, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.eve.Close() })
	d.stages = watchStages(t, d.disk)
	d.traffic = startTraffic(t, d.lan.Bob, d.lan.Alice, testlan.AliceIPv4)
	return d
}

// outcome is one try's times.
type outcome struct {
	// drop is from right before the line was written to the sending of the first
	// packet that was lost; grain is the gap between that and the packet before it.
	drop, grain time.Duration
	// logged and journalled are from the line to the last write of the mitigator's
	// commit and to the write of the device's, before the disk has them.
	logged, journalled time.Duration
	// waited is how long the threads of both programs were without a processor.
	waited time.Duration
	// decided is from the line to the begin of the mitigator's transaction, told
	// until the device's answer was there; told is 0 when the release came before.
	decided, told time.Duration
}

// try writes one alert, waits until bob's packets are dropped, and releases him.
func (d *dropRig) try() outcome {
	d.Helper()
	if err := d.traffic.flowing(patience); err != nil {
		d.Fatal(err)
	}
	// The release's own aftermath is over by then, and the clock's phase is none.
	time.Sleep(20*time.Millisecond + rand.N(20*time.Millisecond))
	d.tries++
	line := alertLine(d.tries, testlan.BobIPv4.String(), testlan.C2IPv4.String(), 20_000+d.tries%40_000)
	waited := d.waited(d.mitigator) + d.waited(d.device)
	written := time.Now()
	if _, err := d.eve.Write(line); err != nil {
		d.Fatal(err)
	}
	at, grain, err := d.traffic.dropped(patience)
	if err != nil {
		d.Fatal(err)
	}
	if at.Before(written) {
		d.Fatalf("packets were lost %s before the alert was written", written.Sub(at))
	}
	waited = d.waited(d.mitigator) + d.waited(d.device) - waited
	logged, journalled := d.stages.since(written)
	q := d.release(d.lan.Bob)
	o := outcome{
		drop: at.Sub(written), grain: grain, decided: q.GetCreatedAt().AsTime().Sub(written),
		logged: logged.Sub(written), journalled: journalled.Sub(written), waited: waited,
	}
	if q.GetInForceAt() != nil {
		o.told = q.GetInForceAt().AsTime().Sub(written)
	}
	return o
}

// syncTime is the median of writing 4 kB at a file's end durably on the disk.
func syncTime(t testing.TB, dir string) time.Duration {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "sync-time"))
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	var all []time.Duration
	for range 200 {
		began := time.Now()
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			t.Fatal(err)
		}
		if err := unix.Fsync(int(f.Fd())); err != nil {
			t.Fatal(err)
		}
		all = append(all, time.Since(began))
	}
	return quantile(all, 0.5)
}

func quantile(all []time.Duration, q float64) time.Duration {
	s := slices.Sorted(slices.Values(all))
	return s[min(len(s)-1, int(q*float64(len(s))))]
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// BenchmarkEventToDrop is from the alert's line in eve.json to the first packet
// of the endpoint that is dropped, with 100,000 quarantines in force: the real
// mitigator and the real device, both commits durable. Use -benchtime 1000x.
func BenchmarkEventToDrop(b *testing.B) {
	d := newDropRig(b, inSet)
	d.settled(d.mitigator)
	d.try() // statements are prepared, connections made
	var all []outcome
	for b.Loop() {
		all = append(all, d.try())
	}
	b.ReportMetric(0, "ns/op") // a try is mostly waiting
	of := func(f func(outcome) time.Duration) (out []time.Duration) {
		for _, o := range all {
			out = append(out, f(o))
		}
		return out
	}
	drops := of(func(o outcome) time.Duration { return o.drop })
	b.ReportMetric(ms(slices.Min(drops)), "ms-min")
	b.ReportMetric(ms(quantile(drops, 0.1)), "ms-p10")
	b.ReportMetric(ms(quantile(drops, 0.5)), "ms-p50")
	b.ReportMetric(ms(quantile(drops, 0.99)), "ms-p99")
	b.ReportMetric(ms(slices.Max(drops)), "ms-max")
	b.ReportMetric(ms(mean(drops)), "ms-mean")
	for stage, f := range map[string]func(outcome) time.Duration{
		"grain": func(o outcome) time.Duration { return o.grain }, "1-decided": func(o outcome) time.Duration { return o.decided },
		"2-logged": func(o outcome) time.Duration { return o.logged }, "3-journalled": func(o outcome) time.Duration { return o.journalled },
		"waited": func(o outcome) time.Duration { return o.waited }, "4-told": func(o outcome) time.Duration { return o.told },
	} {
		b.ReportMetric(ms(quantile(of(f), 0.5)), "ms-p50-"+stage)
	}
	b.ReportMetric(ms(syncTime(b, d.disk)), "ms-fsync-4kB")
}

func mean(all []time.Duration) time.Duration {
	var sum time.Duration
	for _, d := range all {
		sum += d
	}
	return sum / time.Duration(len(all))
}

// TestEventToDrop is one try of the benchmark with a small set.
func TestEventToDrop(t *testing.T) {
	d := newDropRig(t, 50)
	for range 2 {
		if o := d.try(); o.drop <= 0 || o.decided <= 0 {
			t.Errorf("times %+v", o)
		}
	}
	if err := d.traffic.flowing(patience); err != nil {
		t.Error(err)
	}
}
