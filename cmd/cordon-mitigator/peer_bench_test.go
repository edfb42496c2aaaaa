package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/cordon-security/cordon/internal/testlan"
)

// fail2banEnv names the directory where fail2ban is unpacked; bench/fail2ban.sh
// makes it.
const fail2banEnv = "CORDON_FAIL2BAN"

const (
	fail2banDir = "/opt/fail2ban"
	fail2banLog = "/var/log/bench.log"
)

// peer is fail2ban on the appliance of the standard LAN, with one jail that bans
// at the first line, by nftables, what bob sends to the appliance itself.
type peer struct {
	testing.TB
	lan     *testlan.Standard
	traffic *traffic
}

func newPeer(b testing.TB, unpacked string) *peer {
	b.Helper()
	needRoot(b)
	lan, err := testlan.NewStandard(b.Context(), testlan.StandardOptions{
		NoSystemd: true,
		Customize: func(host string, o *testlan.HostOptions) {
			if host == "appliance" {
				o.Binds = append(o.Binds, testlan.Bind{Source: unpacked, Target: fail2banDir})
			}
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := lan.Close(); err != nil {
			b.Error(err)
		}
	})
	p := &peer{TB: b, lan: lan}
	if err := lan.Appliance.WriteFile(fail2banLog, nil, 0o644); err != nil {
		b.Fatal(err)
	}
	server := p.python("fail2ban-server", "-f", "-x", "start")
	server.Stdout, server.Stderr = os.Stderr, os.Stderr
	if _, err := lan.Appliance.Start(b.Context(), server); err != nil {
		b.Fatal(err)
	}
	r := &rig{TB: b}
	r.eventually("fail2ban answers", func() error { return p.client("status", "bench") })
	p.traffic = startTraffic(b, lan.Bob, lan.Appliance, testlan.ApplianceIPv4)
	return p
}

func (p *peer) python(program string, args ...string) testlan.Cmd {
	return testlan.Cmd{
		Args: append([]string{"python3", fail2banDir + "/usr/bin/" + program, "-c", fail2banDir + "/etc/fail2ban"}, args...),
		Env:  []string{"PYTHONPATH=" + fail2banDir + "/usr/lib/python3/dist-packages"},
	}
}

func (p *peer) client(args ...string) error {
	c, err := p.lan.Appliance.Start(p.Context(), p.python("fail2ban-client", args...))
	if err != nil {
		return err
	}
	return c.Wait()
}

// try writes one line, waits until bob's packets are dropped, and unbans him.
func (p *peer) try() time.Duration {
	p.Helper()
	if err := p.traffic.flowing(patience); err != nil {
		p.Fatal(err)
	}
	time.Sleep(time.Second + rand.N(time.Second))
	log, err := os.OpenFile(p.lan.Appliance.Path(fail2banLog), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		p.Fatal(err)
	}
	defer log.Close()
	line := fmt.Appendf(nil, "%s bench: refused %s\n", time.Now().Format("2006-01-02 15:04:05"), testlan.BobIPv4)
	written := time.Now()
	if _, err := log.Write(line); err != nil {
		p.Fatal(err)
	}
	at, _, err := p.traffic.dropped(patience)
	if err != nil {
		p.Fatal(err)
	}
	if err := p.client("set", "bench", "unbanip", testlan.BobIPv4.String()); err != nil {
		p.Fatal(err)
	}
	return at.Sub(written)
}

// BenchmarkPeerFail2ban is from a line in a log to the first packet that fail2ban
// drops, with an empty set.
func BenchmarkPeerFail2ban(b *testing.B) {
	unpacked := os.Getenv(fail2banEnv)
	if unpacked == "" {
		b.Skip("bench/fail2ban.sh runs this")
	}
	p := newPeer(b, unpacked)
	p.try() // fail2ban makes its table with the first ban
	var drops []time.Duration
	for b.Loop() {
		drops = append(drops, p.try())
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ms(quantile(drops, 0.5)), "ms-p50")
	b.ReportMetric(ms(quantile(drops, 0.99)), "ms-p99")
	b.ReportMetric(ms(slices.Max(drops)), "ms-max")
	b.ReportMetric(ms(mean(drops)), "ms-mean")
}
