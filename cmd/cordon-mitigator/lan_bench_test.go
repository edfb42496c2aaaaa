package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/vishvananda/netlink"

	"github.com/cordon-security/cordon/internal/pki"
	"github.com/cordon-security/cordon/internal/testlan"
	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
	"github.com/cordon-security/cordon/internal/wire/v1/wirev1connect"
	"github.com/cordon-security/cordon/mitigator/endpoint"
	"github.com/cordon-security/cordon/mitigator/store"
	"github.com/cordon-security/cordon/mitigator/store/sqlite"
	"github.com/cordon-security/cordon/mitigator/threat"
)

func TestMain(m *testing.M) {
	testlan.RunActor()
	os.Exit(m.Run())
}

const (
	programDir = "/usr/local/bin/"
	stateDir   = "/var/lib/cordon"
	logFile    = "/var/log/cordon-bench.log"
	patience   = time.Minute
)

// containFirst is a policy that contains first and leaves everything else to a
// person, so that what is contained is contained by that; assessFirst contains
// nobody before the agent is through.
const (
	containFirst = "contain_first: [high, critical]"
	assessFirst  = "contain_first: []"
)

const mitigatorYAML = `names: [127.0.0.1, 10.77.0.1]
agents:
  address: 10.77.0.1:7443
home_networks:
  include: [10.77.0.0/24]
  exclude: [10.77.0.1/32]
sources:
  - name: suricata
    kind: suricata-file
    path: /var/lib/cordon/eve.json
policy:
  mode: enforce
  %s
  no_agent: wait
cap:
  max_at_once: 0
  max_new: 0
devices:
  - name: built-in
    socket: /run/cordon/enforcer.sock
`

const enforcerYAML = `name: built-in
allow:
  - prefix: 10.77.0.1
cap:
  max_at_once: 0
  max_new: 0
`

// programs builds the programs of the appliance and of the endpoints, once.
var programs = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "cordon-bench-programs")
	if err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", dir, ".", "../cordon-enforcer", "../cordon-agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return dir, nil
})

// rig is the standard LAN with the mitigator and the device on its appliance,
// their state and eve.json on a disk of the machine.
type rig struct {
	testing.TB
	lan       *testlan.Standard
	disk      string
	device    *testlan.Process
	mitigator *testlan.Process
	admin     wirev1connect.AdminServiceClient
}

// newRig starts both programs with so many quarantines in force, and a policy.
func newRig(t testing.TB, quarantines int, policy string) *rig {
	t.Helper()
	needRoot(t)
	bin, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{TB: t, disk: t.TempDir()}
	r.fill(quarantines)
	r.lan, err = testlan.NewStandard(t.Context(), testlan.StandardOptions{
		NoSystemd: true,
		Customize: func(host string, o *testlan.HostOptions) {
			if host == "appliance" {
				o.Binds = append(o.Binds, testlan.Bind{Source: r.disk, Target: stateDir, Writable: true})
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, h := range []*testlan.Host{r.lan.Appliance, r.lan.Alice} {
				said, err := h.ReadFile(logFile)
				t.Logf("the programs of %s said (%v):\n%s", h.Name(), err, said[max(0, len(said)-8<<10):])
			}
		}
		if err := r.lan.Close(); err != nil {
			t.Error(err)
		}
	})
	h := r.lan.Appliance
	err = errors.Join(
		h.CopyFile(filepath.Join(bin, "cordon-mitigator"), programDir+"cordon-mitigator", 0o755),
		h.CopyFile(filepath.Join(bin, "cordon-enforcer"), programDir+"cordon-enforcer", 0o755),
		h.Mkdir("/run/cordon", 0o755),
		h.WriteFile("/etc/cordon/mitigator.yaml", fmt.Appendf(nil, mitigatorYAML, policy), 0o644),
		h.WriteFile("/etc/cordon/enforcer.yaml", []byte(enforcerYAML), 0o644),
		os.WriteFile(filepath.Join(r.disk, "eve.json"), nil, 0o644))
	if err != nil {
		t.Fatal(err)
	}
	r.device = r.start(h, "cordon-enforcer")
	r.login()
	r.mitigator = r.start(h, "cordon-mitigator")
	r.eventually("the mitigator has its device and its source", r.connected)
	r.eventually("every quarantine is in force", func() error { return r.inForce(quarantines) })
	return r
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("needs root")
	}
	t.Skip("needs root")
}

func (r *rig) start(h *testlan.Host, program string) *testlan.Process {
	r.Helper()
	p, err := h.Start(r.Context(), testlan.Cmd{
		Path: programDir + program, Args: []string{program, "run"}, Log: logFile,
	})
	if err != nil {
		r.Fatal(err)
	}
	return p
}

func (r *rig) eventually(what string, is func() error) {
	r.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := is()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			r.Fatalf("%s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// fill makes a mitigator's store with quarantines that a device shall hold and
// that one said to have in force once, all older than any window.
func (r *rig) fill(quarantines int) {
	r.Helper()
	dir := filepath.Join(r.disk, "mitigator")
	if err := os.Mkdir(dir, 0o700); err != nil {
		r.Fatal(err)
	}
	s, err := sqlite.Open(r.Context(), filepath.Join(dir, "cordon.db"))
	if err != nil {
		r.Fatal(err)
	}
	const part = 5000
	for from := 0; from < quarantines; from += part {
		err := s.Update(r.Context(), func(tx store.Tx) error {
			for n := from; n < min(from+part, quarantines); n++ {
				if err := addOrdered(tx, uint32(n)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			r.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		r.Fatal(err)
	}
}

func addOrdered(tx store.Tx, n uint32) error {
	since := time.Now().Add(-48 * time.Hour).UTC()
	mac := endpoint.MAC(binary.BigEndian.AppendUint32([]byte{0x02, 0}, n))
	e := endpoint.Endpoint{MACs: []endpoint.MAC{mac}, FirstSeen: since, LastSeen: since}
	if err := tx.AddEndpoint(&e); err != nil {
		return err
	}
	q := threat.Quarantine{
		ID: threat.NewID("q-"), EndpointID: e.ID, MACs: e.MACs, Access: threat.AccessLimited, Reason: "benchmark",
		Actor: "admin:bench", CreatedAt: since, State: threat.QuarantineInForce, InForceAt: since,
	}
	if err := tx.AddQuarantine(q); err != nil {
		return err
	}
	_, err := tx.AddOrder(q.ID)
	return err
}

// login makes an administrator and a client that speaks as one.
func (r *rig) login() {
	r.Helper()
	h := r.lan.Appliance
	out, err := h.Run(r.Context(), programDir+"cordon-mitigator", "admin", "add", "bench")
	if err != nil {
		r.Fatal(err)
	}
	token, err := pki.ParseAdminToken(strings.TrimSpace(out))
	if err != nil {
		r.Fatal(err)
	}
	transport := &http.Transport{
		DialContext: h.Dial, ForceAttemptHTTP2: true,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, VerifyConnection: token.Fingerprint.VerifyMitigator(time.Now)},
	}
	r.Cleanup(transport.CloseIdleConnections)
	bearer := connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, request connect.AnyRequest) (connect.AnyResponse, error) {
			request.Header().Set("Authorization", "Bearer "+token.Secret.Reveal())
			return next(ctx, request)
		}
	})
	r.admin = wirev1connect.NewAdminServiceClient(&http.Client{Transport: transport}, "https://127.0.0.1:8443", connect.WithInterceptors(bearer))
}

// connected says whether the mitigator has its device and reads its source.
func (r *rig) connected() error {
	status, err := r.admin.GetStatus(r.Context(), connect.NewRequest(&wirev1.GetStatusRequest{}))
	if err != nil {
		return err
	}
	for _, s := range status.Msg.GetSources() {
		if !s.GetHealthy() {
			return fmt.Errorf("source: %s", s.GetError())
		}
	}
	for _, d := range status.Msg.GetDevices() {
		if !d.GetConnected() {
			return fmt.Errorf("device: %s", d.GetError())
		}
	}
	return nil
}

// inForce says whether the device has all of the quarantines in force.
func (r *rig) inForce(quarantines int) error {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", r.lan.Appliance.Path("/run/cordon/enforcer.sock"))
	}}
	defer transport.CloseIdleConnections()
	client := wirev1connect.NewDeviceServiceClient(&http.Client{Transport: transport}, "http://device")
	status, err := client.Status(r.Context(), connect.NewRequest(&wirev1.StatusRequest{}))
	if err == nil && int(status.Msg.GetInForce()) != quarantines {
		err = fmt.Errorf("%d are, of %d", status.Msg.GetInForce(), quarantines)
	}
	return err
}

// settled waits until a program has nothing more to do.
func (r *rig) settled(p *testlan.Process) {
	r.Helper()
	r.eventually("the program is at rest", func() error {
		before := r.processorTime(p)
		time.Sleep(time.Second)
		if used := r.processorTime(p) - before; used > 50*time.Millisecond {
			return fmt.Errorf("it used %s of the last second", used)
		}
		return nil
	})
}

// processorTime is what a program used until now, user and system (proc_pid_stat(5)).
func (r *rig) processorTime(p *testlan.Process) time.Duration {
	r.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
	if err != nil {
		r.Fatal(err)
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	var ticks time.Duration
	for _, f := range fields[11:13] {
		n, err := strconv.Atoi(f)
		if err != nil {
			r.Fatal(err)
		}
		ticks += time.Duration(n)
	}
	return ticks * time.Second / 100 // USER_HZ
}

// release ends the quarantine of a host as an administrator does.
func (r *rig) release(h *testlan.Host) *wirev1.QuarantineInfo {
	r.Helper()
	mac := r.mac(h)
	resp, err := r.admin.ReleaseEndpoint(r.Context(), connect.NewRequest(&wirev1.ReleaseEndpointRequest{
		Endpoint: mac.String(), ThreatIsGone: true, Note: "benchmark",
	}))
	if err != nil {
		r.Fatal(err)
	}
	return resp.Msg.GetQuarantines()[0]
}

func (r *rig) mac(h *testlan.Host) net.HardwareAddr {
	r.Helper()
	mac, err := h.MAC(testlan.Port)
	if err != nil {
		r.Fatal(err)
	}
	return mac
}

// known makes the device see a host, so that the mitigator knows its MAC.
func (r *rig) known(h *testlan.Host, address string) {
	r.Helper()
	mac := r.mac(h).String()
	r.eventually("the mitigator knows "+h.Name(), func() error {
		if _, err := h.Ping(r.Context(), testlan.ApplianceIPv4, time.Second); err != nil {
			return err
		}
		return r.endpointHas(mac, address)
	})
}

// endpointHas looks for the address among the endpoint's: the newest endpoints
// are the LAN's own.
func (r *rig) endpointHas(mac, address string) error {
	for after := int64(0); ; {
		list, err := r.admin.ListEndpoints(r.Context(), connect.NewRequest(&wirev1.ListEndpointsRequest{AfterId: after, Limit: 1000}))
		if err != nil {
			return err
		}
		for _, e := range list.Msg.GetEndpoints() {
			after = e.GetId()
			if strings.Join(e.GetMacs(), "") == mac && strings.Contains(strings.Join(e.GetAddresses(), " "), address) {
				return nil
			}
		}
		if len(list.Msg.GetEndpoints()) == 0 {
			return fmt.Errorf("%s with %s is not among the endpoints", mac, address)
		}
	}
}

// introduce gives a host a lasting neighbour entry of another, so that traffic
// between them flows again at once after a release, without ARP.
func (r *rig) introduce(h, other *testlan.Host, a net.IP) {
	r.Helper()
	mac := r.mac(other)
	err := h.NetNS(func() error {
		link, err := netlink.LinkByName(testlan.Port)
		if err != nil {
			return err
		}
		return netlink.NeighSet(&netlink.Neigh{LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT, IP: a, HardwareAddr: mac})
	})
	if err != nil {
		r.Fatal(err)
	}
}
