package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/cordon-security/cordon/internal/testlan"
	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
	"github.com/cordon-security/cordon/internal/wire/v1/wirev1connect"
)

func TestMain(m *testing.M) {
	testlan.RunActor()
	os.Exit(m.Run())
}

const (
	program   = "/usr/local/bin/cordon-enforcer"
	stateDir  = "/var/lib/cordon/enforcer"
	socket    = "/run/cordon/enforcer.sock"
	patience  = 15 * time.Second
	reachable = 5 * time.Second
	cutOff    = 900 * time.Millisecond
)

var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "cordon-enforcer-test")
	if err != nil {
		return "", err
	}
	c := exec.Command("go", "build", "-o", filepath.Join(dir, "cordon-enforcer"), ".")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := c.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return filepath.Join(dir, "cordon-enforcer"), nil
})

// rig is a host that runs the device.
type rig struct {
	testing.TB
	host    *testlan.Host
	process *testlan.Process
	client  wirev1connect.DeviceServiceClient
	number  uint64
	log     bytes.Buffer
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("needs root")
	}
	t.Skip("needs root")
}

func newRig(t testing.TB, host *testlan.Host, cfg string) *rig {
	t.Helper()
	return newRigAt(t, host, cfg, socket)
}

// newRigAt is newRig with another socket.
func newRigAt(t testing.TB, host *testlan.Host, cfg, socket string) *rig {
	t.Helper()
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(host.CopyFile(bin, program, 0o755), host.Mkdir("/etc/cordon", 0o755), host.Mkdir("/run/cordon", 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := host.WriteFile("/etc/cordon/enforcer.yaml", []byte(cfg), 0o644); err != nil {
		t.Fatal(err)
	}
	r := &rig{TB: t, host: host, client: client(host.Path(socket))}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("device:\n%s", r.log.String())
		}
	})
	r.start()
	return r
}

func (r *rig) start() {
	r.Helper()
	r.launch()
	r.eventually("the device answers", func() error {
		_, err := r.client.Status(r.Context(), connect.NewRequest(&wirev1.StatusRequest{}))
		return err
	})
}

func (r *rig) launch() {
	r.Helper()
	var err error
	r.process, err = r.host.Start(r.Context(), testlan.Cmd{Path: program, Args: []string{"cordon-enforcer", "run"}, Stderr: &r.log, Stdout: &r.log})
	if err != nil {
		r.Fatal(err)
	}
}

func (r *rig) kill() {
	r.Helper()
	if err := r.process.Signal(syscall.SIGKILL); err != nil {
		r.Fatal(err)
	}
	<-r.process.Done()
}

func (r *rig) eventually(what string, f func() error) {
	r.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			r.Fatalf("%s: %v\n%s", what, err, r.log.String())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (r *rig) order(changes ...*wirev1.Change) *wirev1.ApplyResponse {
	r.Helper()
	r.number++
	resp, err := r.client.Apply(r.Context(), connect.NewRequest(&wirev1.ApplyRequest{Order: &wirev1.ApplyRequest_Delta{Delta: &wirev1.Delta{
		Base: &wirev1.Revision{Number: r.number - 1}, Revision: &wirev1.Revision{Number: r.number}, Changes: changes}}}))
	if err != nil || resp.Msg.GetNeedSnapshot() {
		r.Fatal(resp, err)
	}
	return resp.Msg
}

func (r *rig) quarantine(id string, access wirev1.Access, h *testlan.Host) {
	r.Helper()
	mac, err := h.MAC(testlan.Port)
	if err != nil {
		r.Fatal(err)
	}
	resp := r.order(&wirev1.Change{Change: &wirev1.Change_Put{Put: &wirev1.Quarantine{Id: id, Macs: [][]byte{mac}, Access: access, Reason: "test"}}})
	if s := resp.GetStatuses()[0]; s.GetState() != wirev1.EnforcementState_ENFORCEMENT_STATE_IN_FORCE {
		r.Fatalf("status %v", s)
	}
}

func (r *rig) release(id string) {
	r.Helper()
	r.order(&wirev1.Change{Change: &wirev1.Change_Remove{Remove: id}})
}

func (r *rig) addresses(id string) (out []netip.Addr) {
	r.Helper()
	resp, err := r.client.Status(r.Context(), connect.NewRequest(&wirev1.StatusRequest{}))
	if err != nil {
		r.Fatal(err)
	}
	for _, s := range resp.Msg.GetStatuses() {
		for _, b := range s.GetBindings() {
			if a, ok := netip.AddrFromSlice(b.GetAddress()); ok && s.GetQuarantineId() == id {
				out = append(out, a)
			}
		}
	}
	return out
}

func (r *rig) follows(id string, want ...netip.Addr) {
	r.Helper()
	r.eventually("the addresses of "+id+" are followed", func() error {
		have := r.addresses(id)
		for _, w := range want {
			if !contains(have, w) {
				return fmt.Errorf("%v, want %v", have, want)
			}
		}
		return nil
	})
}

func contains(list []netip.Addr, a netip.Addr) bool {
	for _, b := range list {
		if a == b {
			return true
		}
	}
	return false
}

// reaches checks reachability by ping.
func (r *rig) reaches(from *testlan.Host, want bool, to ...netip.Addr) {
	r.Helper()
	for _, a := range to {
		limit := cutOff
		if want {
			limit = reachable
		}
		_, err := from.Ping(r.Context(), a, limit)
		if (err == nil) != want {
			r.Errorf("%s reaches %s: %t (%v), want %t", from.Name(), a, err == nil, err, want)
		}
	}
}

func (r *rig) run(argv ...string) string {
	r.Helper()
	out, err := r.host.Run(r.Context(), argv...)
	if err != nil {
		r.Fatal(err)
	}
	return out
}

func standard(t *testing.T, cfg string) (*testlan.Standard, *rig) {
	t.Helper()
	needRoot(t)
	lan, err := testlan.NewStandard(t.Context(), testlan.StandardOptions{NoSystemd: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lan.Close(); err != nil {
			t.Error(err)
		}
	})
	return lan, newRig(t, lan.Appliance, cfg)
}

const bridged = "name: gate\nallow:\n  - prefix: 10.77.0.1\n  - prefix: \"fd77::1\"\n  - prefix: 198.51.100.80\n    protocol: tcp\n    port: 80\n"

func TestNoneOnTheBridge(t *testing.T) {
	lan, r := standard(t, bridged)
	everybody := []netip.Addr{testlan.AliceIPv4, testlan.AliceIPv6, testlan.ApplianceIPv4, testlan.ApplianceIPv6, testlan.WebIPv4, testlan.WebIPv6}
	r.reaches(lan.Bob, true, everybody...)
	conn, err := lan.Bob.Dial(t.Context(), "tcp", net.JoinHostPort(testlan.WebIPv4.String(), "80"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r.quarantine("bob", wirev1.Access_ACCESS_NONE, lan.Bob)
	r.follows("bob", testlan.BobIPv4, testlan.BobIPv6)
	r.reaches(lan.Bob, false, everybody...)
	r.reaches(lan.Alice, false, testlan.BobIPv4, testlan.BobIPv6)
	r.reaches(lan.Alice, true, testlan.PrinterIPv4, testlan.WebIPv4, testlan.WebIPv6, testlan.ApplianceIPv6)
	if silent(conn) != nil {
		t.Error("a running connection was not cut:", silent(conn))
	}

	t.Run("killed, held, adopted without a hole", func(t *testing.T) { r.holds(t, lan) })
	t.Run("foreign flush", func(t *testing.T) { r.flushed(t, lan) })
	t.Run("another address", func(t *testing.T) { r.moves(t, lan) })
	t.Run("break glass", func(t *testing.T) { r.breakGlass(t, lan) })

	r.release("bob")
	r.reaches(lan.Bob, true, testlan.AliceIPv4, testlan.AliceIPv6)
}

// silent asks a web server something and returns an error when it answers.
func silent(conn net.Conn) error {
	_ = conn.SetDeadline(time.Now().Add(cutOff))
	if _, err := fmt.Fprintf(conn, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return nil
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil {
		return fmt.Errorf("it answers %q", line)
	}
	return nil
}

// holds kills the device, and restarts it while packets flow.
func (r *rig) holds(t *testing.T, lan *testlan.Standard) {
	r.kill()
	r.reaches(lan.Bob, false, testlan.AliceIPv4, testlan.WebIPv6)
	before := r.run("nft", "-a", "list", "ruleset")
	// With the addresses resolved, so that a ping is a packet at once and does not
	// wait for ARP, which is cut off as well.
	introduce(t, lan.Bob, lan.Alice, testlan.AliceIPv4)
	introduce(t, lan.Alice, lan.Bob, testlan.BobIPv4)
	ctx, cancel := context.WithCancel(t.Context())
	passed := make(chan error, 1)
	go func() {
		// Ping sends again and again within its time-out; any answer is a hole.
		for ctx.Err() == nil {
			if _, err := lan.Bob.Ping(ctx, testlan.AliceIPv4, cutOff); err == nil {
				passed <- errors.New("a packet passed during the restart")
				return
			}
		}
		passed <- nil
	}()
	for range 3 {
		r.start()
		r.kill()
	}
	r.start()
	cancel()
	if err := <-passed; err != nil {
		t.Error(err)
	}
	if after := r.run("nft", "-a", "list", "ruleset"); counters(after) != counters(before) {
		t.Errorf("the ruleset was not adopted:\n%s\nbefore:\n%s", after, before)
	}
}

// introduce gives a host a static neighbour entry of another.
func introduce(t *testing.T, h, other *testlan.Host, a netip.Addr) {
	t.Helper()
	mac, err := other.MAC(testlan.Port)
	if err != nil {
		t.Fatal(err)
	}
	static := func(index int) *netlink.Neigh {
		return &netlink.Neigh{LinkIndex: index, State: netlink.NUD_PERMANENT, IP: a.AsSlice(), HardwareAddr: mac}
	}
	index := 0
	err = h.NetNS(func() error {
		link, err := netlink.LinkByName(testlan.Port)
		if err != nil {
			return err
		}
		index = link.Attrs().Index
		return netlink.NeighSet(static(index))
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.NetNS(func() error { return netlink.NeighDel(static(index)) }) })
}

// counters leaves out what packets change.
func counters(ruleset string) string {
	var out []string
	for line := range strings.Lines(ruleset) {
		if i := strings.Index(line, "counter packets"); i >= 0 {
			line = line[:i]
		}
		out = append(out, line)
	}
	return strings.Join(out, "")
}

func (r *rig) flushed(t *testing.T, lan *testlan.Standard) {
	stream, err := r.client.Watch(t.Context(), connect.NewRequest(&wirev1.WatchRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if !stream.Receive() || stream.Msg().GetState() == nil {
		t.Fatal("the watch does not begin with the state", stream.Err())
	}
	start := time.Now()
	r.run("nft", "flush", "ruleset")
	var d *wirev1.Drift
	for d == nil && stream.Receive() {
		d = stream.Msg().GetDrift()
	}
	if d == nil {
		t.Fatal("the watch ended without a word of the flush:", stream.Err())
	}
	t.Logf("repaired and told %s after the flush began: %s", time.Since(start), d.GetDetail())
	if !d.GetRepaired() || !strings.Contains(d.GetDetail(), "nft") {
		t.Errorf("drift %v", d)
	}
	r.reaches(lan.Bob, false, testlan.AliceIPv4, testlan.WebIPv4)
}

// moves gives bob other addresses, and one that bob had to the printer.
func (r *rig) moves(t *testing.T, lan *testlan.Standard) {
	new4, new6 := netip.MustParsePrefix("10.77.0.99/24"), netip.MustParsePrefix("fd77::99/64")
	replace := func(h *testlan.Host, from, to netip.Prefix) {
		t.Helper()
		if err := h.ReplaceAddress(testlan.Port, from, to); err != nil {
			t.Fatal(err)
		}
	}
	old4, old6 := netip.PrefixFrom(testlan.BobIPv4, 24), netip.PrefixFrom(testlan.BobIPv6, 64)
	replace(lan.Bob, old4, new4)
	replace(lan.Bob, old6, new6)
	r.reaches(lan.Bob, false, testlan.AliceIPv4, testlan.AliceIPv6, testlan.WebIPv4, testlan.WebIPv6)
	// Access none cuts ARP too, so the device learns the new addresses only once
	// bob may speak a little.
	r.quarantine("bob", wirev1.Access_ACCESS_LIMITED, lan.Bob)
	r.reaches(lan.Bob, true, testlan.ApplianceIPv4, testlan.ApplianceIPv6)
	r.follows("bob", new4.Addr(), new6.Addr())
	r.quarantine("bob", wirev1.Access_ACCESS_NONE, lan.Bob)

	replace(lan.Printer, netip.PrefixFrom(testlan.PrinterIPv4, 24), old4)
	replace(lan.Printer, netip.PrefixFrom(testlan.PrinterIPv6, 64), old6)
	r.reaches(lan.Printer, true, testlan.ApplianceIPv4, testlan.ApplianceIPv6, testlan.WebIPv4, testlan.WebIPv6, testlan.AliceIPv4)
	for _, a := range r.addresses("bob") {
		if a == testlan.BobIPv4 || a == testlan.BobIPv6 {
			t.Errorf("%s belongs to the printer now and is still blocked", a)
		}
	}
}

func (r *rig) breakGlass(t *testing.T, lan *testlan.Standard) {
	// With the device dead and its desired set gone.
	r.kill()
	if err := r.host.Remove(stateDir + "/desired.journal"); err != nil {
		t.Fatal(err)
	}
	r.run(program, "release-all", "--reason", "test")
	r.reaches(lan.Bob, true, testlan.AliceIPv4, testlan.WebIPv6)
	// It survives the device's return, and orders are kept meanwhile.
	r.start()
	r.number = 0
	mac, _ := lan.Bob.MAC(testlan.Port)
	resp := r.order(&wirev1.Change{Change: &wirev1.Change_Put{Put: &wirev1.Quarantine{Id: "bob", Macs: [][]byte{mac}, Access: wirev1.Access_ACCESS_NONE}}})
	if s := resp.GetStatuses()[0].GetState(); s != wirev1.EnforcementState_ENFORCEMENT_STATE_SUSPENDED {
		t.Errorf("an order during break glass is %s", s)
	}
	r.reaches(lan.Bob, true, testlan.AliceIPv4)
	if out := r.run(program, "status"); !strings.Contains(out, "BREAK GLASS") || !strings.Contains(out, "suspended") {
		t.Errorf("status:\n%s", out)
	}
	r.run(program, "resume")
	r.reaches(lan.Bob, false, testlan.AliceIPv4)
	// Through the living device.
	if out := r.run(program, "release-all", "--reason", "again"); !strings.Contains(out, "1 quarantines lifted") {
		t.Errorf("release-all said %q", out)
	}
	r.reaches(lan.Bob, true, testlan.AliceIPv4)
	r.run(program, "resume")
	r.reaches(lan.Bob, false, testlan.AliceIPv4)
	// Beside a device that hangs.
	if err := r.process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	r.run(program, "release-all", "--reason", "it hangs")
	r.reaches(lan.Bob, true, testlan.AliceIPv4)
	if err := r.process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	r.eventually("the device follows", func() error {
		if !strings.Contains(r.run(program, "status"), "BREAK GLASS") {
			return errors.New("not yet")
		}
		return nil
	})
	r.reaches(lan.Bob, true, testlan.AliceIPv4)
	r.run(program, "resume")
	r.reaches(lan.Bob, false, testlan.AliceIPv4)
	log, err := r.host.ReadFile(stateDir + "/break-glass.log")
	if err != nil || strings.Count(string(log), "\n") < 6 {
		t.Errorf("break-glass log %q, %v", log, err)
	}
}

func TestLimitedOnTheBridge(t *testing.T) {
	lan, r := standard(t, bridged)
	r.quarantine("printer", wirev1.Access_ACCESS_LIMITED, lan.Printer)
	r.reaches(lan.Printer, true, testlan.ApplianceIPv4, testlan.ApplianceIPv6)
	r.reaches(lan.Appliance, true, testlan.PrinterIPv4, testlan.PrinterIPv6)
	r.reaches(lan.Printer, false, testlan.AliceIPv4, testlan.AliceIPv6, testlan.WebIPv4, testlan.WebIPv6)
	r.reaches(lan.Alice, false, testlan.PrinterIPv4, testlan.PrinterIPv6)
	// A service that is allowed by protocol and port, and nothing beside it.
	page, err := lan.Printer.Fetch(t.Context(), "http://"+testlan.WebIPv4.String())
	if err != nil || strings.TrimSpace(page) != testlan.WebText {
		t.Errorf("the allowed service: %q, %v", page, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), cutOff)
	defer cancel()
	if err := lan.Printer.DialTCP(ctx, netip.AddrPortFrom(testlan.C2IPv4, testlan.C2Port)); err == nil {
		t.Error("limited access reached the C2")
	}
}

// TestGatewayWithoutBridge is a router that only routes.
func TestGatewayWithoutBridge(t *testing.T) {
	needRoot(t)
	ctx := t.Context()
	lan, err := testlan.New(ctx, testlan.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lan.Close() })
	var hosts [3]*testlan.Host
	for i, name := range []string{"victim", "router", "server"} {
		if hosts[i], err = lan.AddHost(ctx, name, testlan.HostOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	inside, router, outside := hosts[0], hosts[1], hosts[2]
	in4, out4 := netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("10.8.0.1")
	in6, out6 := netip.MustParseAddr("fd09::1"), netip.MustParseAddr("fd08::1")
	far4, far6 := netip.MustParseAddr("10.8.0.2"), netip.MustParseAddr("fd08::2")
	err = errors.Join(
		lan.Connect(inside, testlan.Port, router, "lan"), lan.Connect(router, "wan", outside, testlan.Port),
		inside.SetAddress(testlan.Port, netip.MustParsePrefix("10.9.0.2/24"), netip.MustParsePrefix("fd09::2/64")),
		router.SetAddress("lan", netip.PrefixFrom(in4, 24), netip.PrefixFrom(in6, 64)),
		router.SetAddress("wan", netip.PrefixFrom(out4, 24), netip.PrefixFrom(out6, 64)),
		outside.SetAddress(testlan.Port, netip.PrefixFrom(far4, 24), netip.PrefixFrom(far6, 64)),
		inside.DefaultRoute(in4), inside.DefaultRoute(in6), outside.DefaultRoute(out4), outside.DefaultRoute(out6), router.Forward())
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, router, "allow:\n  - prefix: 10.9.0.1\n  - prefix: \"fd09::1\"\n")
	r.run("nft", "add table ip nat; add chain ip nat post { type nat hook postrouting priority 100; }; add rule ip nat post oifname wan masquerade")
	r.reaches(inside, true, far4, far6)
	l, err := outside.Listen(ctx, "tcp", net.JoinHostPort(far4.String(), "80"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := inside.Dial(ctx, "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	if tracked(router, "10.9.0.2") == nil {
		t.Fatal("the router does not track the connection")
	}
	r.quarantine("q", wirev1.Access_ACCESS_NONE, inside)
	r.follows("q", netip.MustParseAddr("10.9.0.2"), netip.MustParseAddr("fd09::2"))
	if _, err := conn.Write([]byte("still there?")); err == nil {
		_ = peer.SetReadDeadline(time.Now().Add(cutOff))
		if n, err := peer.Read(make([]byte, 64)); err == nil {
			t.Errorf("a running connection passed %d bytes", n)
		}
	}
	r.eventually("connection tracking forgets the endpoint", func() error {
		return tracked(router, "10.9.0.2")
	})
	r.reaches(inside, false, far4, far6, in4, in6)
	r.reaches(outside, false, netip.MustParseAddr("10.9.0.2"), netip.MustParseAddr("fd09::2"))
	// Another source address changes nothing.
	if err := inside.ReplaceAddress(testlan.Port, netip.MustParsePrefix("10.9.0.2/24"), netip.MustParsePrefix("10.9.0.77/24")); err != nil {
		t.Fatal(err)
	}
	r.reaches(inside, false, far4, in4)
	r.follows("q", netip.MustParseAddr("10.9.0.77"))
	r.quarantine("q", wirev1.Access_ACCESS_LIMITED, inside)
	r.reaches(inside, true, in4, in6)
	r.reaches(inside, false, far4, far6)
	r.reaches(outside, false, netip.MustParseAddr("10.9.0.77"))
	r.release("q")
	r.reaches(inside, true, far4, far6)
}

// tracked returns an error that names a connection of the address, if the host
// tracks one.
func tracked(host *testlan.Host, address string) error {
	return host.NetNS(func() error {
		flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
		if err != nil {
			return err
		}
		for _, f := range flows {
			if f.Forward.Protocol == unix.IPPROTO_TCP && f.Forward.SrcIP.String() == address {
				return fmt.Errorf("still tracked: %s", f)
			}
		}
		return nil
	})
}

// TestBreakGlassWithAFaultyConfiguration: a device with paths of its own lives, and
// its configuration file has become faulty.
func TestBreakGlassWithAFaultyConfiguration(t *testing.T) {
	needRoot(t)
	lan, err := testlan.New(t.Context(), testlan.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lan.Close() })
	host, err := lan.AddHost(t.Context(), "gate", testlan.HostOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := host.Mkdir("/run/elsewhere", 0o755); err != nil {
		t.Fatal(err)
	}
	const paths = "state_dir: /var/lib/elsewhere\nsocket: /run/elsewhere/enforcer.sock\n"
	r := newRigAt(t, host, paths, "/run/elsewhere/enforcer.sock")
	r.order(&wirev1.Change{Change: &wirev1.Change_Put{Put: benchQuarantine(1)}})
	elements := func(want bool) {
		t.Helper()
		out, err := host.Run(t.Context(), "nft", "list", "ruleset")
		if err != nil || strings.Contains(out, "02:00:00:00:00:01") != want {
			t.Errorf("in force: %t, want %t (%v)\n%s", !want, want, err, out)
		}
	}
	write := func(content string) {
		t.Helper()
		if err := host.WriteFile("/etc/cordon/enforcer.yaml", []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	elements(true)
	// Nothing says where the device is: it puts all back, and that is said.
	write("rubbish\n")
	if out, err := host.Run(t.Context(), program, "release-all", "--reason", "test"); err == nil {
		t.Errorf("said that it is lifted: %s", out)
	}
	elements(true)
	// The faulty file still says it; the device hangs.
	write(paths + "nonsense: [\n")
	if err := r.process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	r.run(program, "release-all", "--reason", "test")
	if err := r.process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if !host.Exists("/var/lib/elsewhere/break-glass") || !host.Exists("/run/elsewhere/break-glass") {
		t.Error("the order does not stand in both directories")
	}
	write(paths)
	r.eventually("the device follows", func() error {
		if !strings.Contains(r.run(program, "status"), "BREAK GLASS") {
			return errors.New("not yet")
		}
		return nil
	})
	elements(false)
	r.run(program, "resume")
	elements(true)
	// The command line says it.
	write("rubbish\n")
	r.run(program, "release-all", "--reason", "test", "--state-dir", "/var/lib/elsewhere", "--socket", "/run/elsewhere/enforcer.sock")
	elements(false)
}

func TestCommandLine(t *testing.T) {
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "enforcer.yaml")
	for _, c := range []struct {
		name, yaml, want string
		code             int
	}{
		{"good", bridged + "protected:\n  addresses: [10.0.0.1, 10.1.0.0/16]\n  macs: [\"02:00:00:00:00:01\"]\ncap:\n  max_new: 3\n  window: 10m\n", ": valid", 0},
		{"unknown key", "protectd:\n", "enforcer.yaml:1:1", 78},
		{"a port without a protocol", "allow:\n  - prefix: 10.0.0.1\n    port: 80\n", "protocol", 78},
		{"no address", "protected:\n  addresses: [nonsense]\n", "neither an address nor a network", 78},
		{"no window", "cap:\n  max_new: 3\n  window: 0s\n", "window", 78},
	} {
		if err := os.WriteFile(file, []byte(c.yaml), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(bin, "check-config", "--config", file)
		out, _ := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != c.code || !strings.Contains(string(out), c.want) {
			t.Errorf("%s: exit %d, %s", c.name, cmd.ProcessState.ExitCode(), out)
		}
	}
	if out, err := exec.Command(bin, "check-config", "--explain").CombinedOutput(); err != nil || !strings.Contains(string(out), "cap.max_at_once") {
		t.Errorf("explain: %s, %v", out, err)
	}
}

func TestOversizedMessage(t *testing.T) {
	needRoot(t)
	lan, err := testlan.New(t.Context(), testlan.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lan.Close() })
	host, err := lan.AddHost(t.Context(), "gate", testlan.HostOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, host, "name: gate\n")
	q := &wirev1.Quarantine{Id: "q", Reason: strings.Repeat("x", 9<<20)}
	_, err = r.client.Apply(t.Context(), connect.NewRequest(&wirev1.ApplyRequest{Order: &wirev1.ApplyRequest_Snapshot{
		Snapshot: &wirev1.Snapshot{Revision: &wirev1.Revision{Number: 1}, Last: true, Quarantines: []*wirev1.Quarantine{q}}}}))
	if connect.CodeOf(err) != connect.CodeResourceExhausted {
		t.Errorf("an oversized message: %v", err)
	}
	if _, err := r.client.Status(t.Context(), connect.NewRequest(&wirev1.StatusRequest{})); err != nil {
		t.Errorf("after it: %v", err)
	}
}
