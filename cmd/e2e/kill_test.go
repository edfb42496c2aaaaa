package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/vishvananda/netlink"

	"github.com/cordon-security/cordon/agent/link"
	"github.com/cordon-security/cordon/enforcer/desired"
	"github.com/cordon-security/cordon/enforcer/device"
	"github.com/cordon-security/cordon/enforcer/neighbor"
	"github.com/cordon-security/cordon/enforcer/reconcile"
	"github.com/cordon-security/cordon/internal/guard"
	"github.com/cordon-security/cordon/internal/pki"
	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
	"github.com/cordon-security/cordon/internal/wire/v1/wirev1connect"
	"github.com/cordon-security/cordon/mitigator/admin"
	"github.com/cordon-security/cordon/mitigator/event"
	"github.com/cordon-security/cordon/mitigator/store"
	"github.com/cordon-security/cordon/mitigator/store/sqlite"
	"github.com/cordon-security/cordon/mitigator/threat"

	root "github.com/cordon-security/cordon/mitigator"
)

// The endpoint of these tests, which is also where the mitigator listens: a
// connection to one's own address comes from that address.
var (
	endpointAddr = netip.MustParseAddr("10.9.0.10")
	endpointMAC  = guard.MAC{2, 0, 0, 0, 0, 10}
)

const (
	agentPort = "7443"
	adminPort = "8443"
	networkOf = "CORDON_E2E_NETWORK"
)

// inOwnNetwork runs the test again in a network namespace of its own, in which
// loopback has the endpoint's address. It returns true there.
func inOwnNetwork(t *testing.T) bool {
	t.Helper()
	if os.Getenv(networkOf) != "" {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			t.Fatal(err)
		}
		addr := &netlink.Addr{IPNet: netlink.NewIPNet(endpointAddr.AsSlice())}
		if err := errors.Join(netlink.LinkSetUp(lo), netlink.AddrAdd(lo, addr)); err != nil && !errors.Is(err, syscall.EEXIST) {
			t.Fatal(err)
		}
		return true
	}
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root, to make a network namespace")
		}
		t.Skip("needs root, to make a network namespace")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v="+strconv.FormatBool(testing.Verbose()), "-test.timeout=20m")
	cmd.Env = append(os.Environ(), networkOf+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("in a network of its own: %v\n%s", err, out)
	} else {
		t.Logf("%s", out)
	}
	return false
}

// scenario is one way through the life of a threat.
type scenario struct {
	name   string
	policy func(*threat.Policy)
	// agent answers tasks; nil for an agent that is away. It waits for the endpoint
	// to be cut off first when afterCut is set.
	agent    func(*wirev1.Task) *wirev1.TaskResult
	afterCut bool
	// person decides, and is asked again until it returns nil.
	person func(context.Context, wirev1connect.AdminServiceClient) error
	// state and quarantine are where it ends; quarantine is empty when there is none.
	state      threat.State
	quarantine threat.QuarantineState
	// cut is how often the endpoint is cut off, which is once or never however
	// often the mitigator dies; isCut is whether it is so at the end.
	cut   int
	isCut bool
	tasks []threat.TaskKind
}

func confirmed(*wirev1.Task) *wirev1.TaskResult {
	return &wirev1.TaskResult{Status: wirev1.TaskStatus_TASK_STATUS_DONE, Verdict: wirev1.Verdict_VERDICT_CONFIRMED, Reasons: []string{"it is"}}
}

func notConfirmed(*wirev1.Task) *wirev1.TaskResult {
	return &wirev1.TaskResult{Status: wirev1.TaskStatus_TASK_STATUS_DONE, Verdict: wirev1.Verdict_VERDICT_NOT_CONFIRMED, Reasons: []string{"it is not"}}
}

func uncleanable(task *wirev1.Task) *wirev1.TaskResult {
	if task.GetKind() == wirev1.TaskKind_TASK_KIND_ASSESS {
		return confirmed(task)
	}
	return &wirev1.TaskResult{Status: wirev1.TaskStatus_TASK_STATUS_UNRESOLVED, Verdict: wirev1.Verdict_VERDICT_CONFIRMED, Reasons: []string{"it came back"}}
}

func release(ctx context.Context, c wirev1connect.AdminServiceClient) error {
	got, err := c.GetThreat(ctx, connect.NewRequest(&wirev1.GetThreatRequest{Id: 1}))
	if err != nil {
		return err
	}
	if got.Msg.GetThreat().GetEnded() {
		return nil
	}
	if got.Msg.GetQuarantine().GetState() != string(threat.QuarantineInForce) {
		return errors.New("not in force yet")
	}
	_, err = c.ReleaseEndpoint(ctx, connect.NewRequest(&wirev1.ReleaseEndpointRequest{Endpoint: endpointAddr.String(), ThreatIsGone: true}))
	return err
}

func closeIt(ctx context.Context, c wirev1connect.AdminServiceClient) error {
	got, err := c.GetThreat(ctx, connect.NewRequest(&wirev1.GetThreatRequest{Id: 1}))
	if err != nil {
		return err
	}
	switch threat.State(got.Msg.GetThreat().GetState()) {
	case threat.Closed:
		return nil
	case threat.Unresolved:
		_, err = c.CloseThreat(ctx, connect.NewRequest(&wirev1.CloseThreatRequest{Id: 1, Note: "known"}))
		return err
	}
	return errors.New("not unresolved yet")
}

var scenarios = []scenario{
	{name: "cleaned", agent: confirmed, state: threat.Resolved, tasks: []threat.TaskKind{threat.Assess, threat.Clean}},
	{name: "quarantined and released", agent: uncleanable, person: release, state: threat.Released,
		quarantine: threat.QuarantineEnded, cut: 1, tasks: []threat.TaskKind{threat.Assess, threat.Clean}},
	{name: "contained first and cleared", agent: notConfirmed, afterCut: true, state: threat.NotConfirmed,
		policy:     func(p *threat.Policy) { p.ContainFirst = []event.Severity{event.High, event.Critical} },
		quarantine: threat.QuarantineEnded, cut: 1, tasks: []threat.TaskKind{threat.Assess}},
	{name: "the agent is away", policy: func(p *threat.Policy) { p.Hold = 300 * time.Millisecond },
		state: threat.Quarantined, quarantine: threat.QuarantineInForce, cut: 1, isCut: true, tasks: []threat.TaskKind{threat.Assess}},
	{name: "closed by a person", agent: uncleanable, policy: func(p *threat.Policy) { p.Unresolved = threat.ChooseWait },
		person: closeIt, state: threat.Closed, tasks: []threat.TaskKind{threat.Assess, threat.Clean}},
}

// longRun asks for what takes minutes: `make test-long` sets it.
const longRun = "CORDON_TEST_LONG"

// TestKillAtEveryTransition ends the mitigator with SIGKILL at the commit of each
// transition of each scenario, once inside the transaction and once right after
// it, starts it again, and holds that the threat comes to the end that it comes
// to without: each transition once, each task carried out once, the endpoint cut
// off once.
func TestKillAtEveryTransition(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			home := prepare(t, s)
			want := newTrial(t, s, home, death{}).play()
			all := steps(want.timeline)
			if len(all) < 2 {
				t.Fatalf("the scenario has the transitions %v", all)
			}
			for _, step := range all {
				for _, inside := range []bool{true, false} {
					got := newTrial(t, s, home, death{Step: step, Inside: inside}).play()
					got.compare(t, want)
					if !got.killed {
						t.Errorf("%s: it lived", got.death)
					}
				}
			}
		})
	}
}

// TestKillAtEveryCommit is the same for each commit, those without a transition
// too: an agent's word, a binding, a task that was handed over, a device's
// answer. Which one has which number differs from run to run. The short run
// takes one scenario, CORDON_TEST_LONG=true all.
func TestKillAtEveryCommit(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	for _, s := range scenarios {
		if s.name != "quarantined and released" && os.Getenv(longRun) != "true" {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			home := prepare(t, s)
			want := newTrial(t, s, home, death{}).play()
			for _, inside := range []bool{true, false} {
				died := 0
				for commit := 1; ; commit++ {
					got := newTrial(t, s, home, death{Commit: commit, Inside: inside}).play()
					got.compare(t, want)
					if !got.killed {
						break
					}
					died++
				}
				if died <= len(steps(want.timeline)) {
					t.Errorf("killed at %d commits alone", died)
				}
			}
		})
	}
}

// outcome is what a scenario left.
type outcome struct {
	death    death
	killed   bool
	threat   threat.Threat
	timeline []threat.Transition
	tasks    []threat.Task
	state    threat.QuarantineState
	events   int
	runs     map[string]int
	cut      int
	isCut    bool
}

// steps are the transitions, without the notes.
func steps(timeline []threat.Transition) (out []string) {
	for _, tr := range timeline {
		if tr.From != tr.To {
			out = append(out, fmt.Sprintf("%s→%s", tr.From, tr.To))
		}
	}
	return out
}

func words(timeline []threat.Transition) string {
	var out strings.Builder
	for _, tr := range timeline {
		fmt.Fprintf(&out, "\n\t%s→%s %s: %s", tr.From, tr.To, tr.Actor, tr.Cause)
	}
	return out.String()
}

func (o outcome) compare(t *testing.T, want outcome) {
	t.Helper()
	what := o.death
	if got := steps(o.timeline); !slices.Equal(got, steps(want.timeline)) {
		t.Errorf("%s: the threat went%s\nwant%s", what, words(o.timeline), words(want.timeline))
	}
	if o.events != 1 || o.threat.EventCount != 1 {
		t.Errorf("%s: %d events, %d of them counted", what, o.events, o.threat.EventCount)
	}
	if len(o.tasks) != len(want.tasks) {
		t.Errorf("%s: tasks %+v, want %+v", what, o.tasks, want.tasks)
	}
	for id, n := range o.runs {
		if n != 1 {
			t.Errorf("%s: task %s was carried out %d times", what, id, n)
		}
	}
	if len(o.runs) != len(want.runs) {
		t.Errorf("%s: %d tasks were carried out, want %d", what, len(o.runs), len(want.runs))
	}
	if o.state != want.state || o.cut != want.cut || o.isCut != want.isCut {
		t.Errorf("%s: quarantine %q, cut off %d times, now %v; want %q, %d, %v", what, o.state, o.cut, o.isCut, want.state, want.cut, want.isCut)
	}
}

// home is a state from which each trial starts: a mitigator that knows its
// endpoint, an agent that is enrolled, an administrator.
type home struct {
	dir     string
	agentID string
	token   pki.Token
}

// prepare makes the state by letting mitigator, device and agent really meet.
func prepare(t *testing.T, s scenario) home {
	t.Helper()
	h := home{dir: t.TempDir()}
	if err := os.MkdirAll(filepath.Join(h.dir, "mitigator"), 0o700); err != nil {
		t.Fatal(err)
	}
	ca, err := root.OpenCA(filepath.Join(h.dir, "mitigator"))
	if err != nil {
		t.Fatal(err)
	}
	admins, err := admin.New(filepath.Join(h.dir, "mitigator"))
	if err != nil {
		t.Fatal(err)
	}
	if h.token, err = admins.Add("carol", "", ca.Fingerprint(), time.Now()); err != nil {
		t.Fatal(err)
	}
	tr := &trial{T: t, scenario: s, home: h, dir: h.dir, method: newEnforcement()}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stopDevice := tr.device(ctx)
	stop := tr.mitigator(death{})
	enrol, err := eventuallyGets(ctx, func() (*connect.Response[wirev1.CreateAgentTokenResponse], error) {
		return tr.client().CreateAgentToken(ctx, connect.NewRequest(&wirev1.CreateAgentTokenRequest{}))
	})
	if err != nil {
		t.Fatal(err)
	}
	token, err := pki.ParseToken(enrol.Msg.GetToken())
	if err != nil {
		t.Fatal(err)
	}
	h.agentID, err = link.Enroll(ctx, link.EnrollOptions{StateDir: filepath.Join(h.dir, "agent"), Token: token,
		Server: endpointAddr.String() + ":" + agentPort, Hostname: "alice", Version: "1"})
	if err != nil {
		t.Fatal(err)
	}
	stopAgent := tr.agent(ctx, &executor{})
	eventually(t, "the mitigator knows the agent's endpoint", func() bool {
		got, err := tr.client().ListEndpoints(ctx, connect.NewRequest(&wirev1.ListEndpointsRequest{}))
		return err == nil && len(got.Msg.GetEndpoints()) == 1 && got.Msg.GetEndpoints()[0].GetAgentId() == h.agentID &&
			slices.Contains(got.Msg.GetEndpoints()[0].GetAddresses(), endpointAddr.String())
	})
	stopAgent()
	stop()
	stopDevice()
	return h
}

func eventuallyGets[T any](ctx context.Context, fn func() (T, error)) (out T, err error) {
	for end := time.Now().Add(patience); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
		if out, err = fn(); err == nil {
			return out, nil
		}
	}
	return out, err
}

// trial is one run of a scenario.
type trial struct {
	*testing.T
	scenario scenario
	home     home
	dir      string
	death    death
	method   *enforcement
}

func newTrial(t *testing.T, s scenario, h home, d death) *trial {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(h.dir)); err != nil {
		t.Fatal(err)
	}
	// CopyFS leaves out what is not in a mode: secrets must not be readable.
	for _, private := range []string{"mitigator", "mitigator/pki", "agent"} {
		if err := os.Chmod(filepath.Join(dir, private), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return &trial{T: t, scenario: s, home: h, dir: dir, death: d, method: newEnforcement()}
}

func (tr *trial) client() wirev1connect.AdminServiceClient {
	transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{
		MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, VerifyConnection: tr.home.token.Fingerprint.VerifyMitigator(nil),
	}}
	return wirev1connect.NewAdminServiceClient(&http.Client{Transport: withToken{transport, tr.home.token.Secret.Reveal()}},
		"https://"+endpointAddr.String()+":"+adminPort)
}

type withToken struct {
	next  http.RoundTripper
	token string
}

// RoundTrip implements http.RoundTripper.
func (w withToken) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+w.token)
	return w.next.RoundTrip(r)
}

// play runs the scenario to its end and says what it left.
func (tr *trial) play() (o outcome) {
	tr.Helper()
	ctx, cancel := context.WithCancel(tr.Context())
	defer cancel()
	tr.alert()
	stopDevice := tr.device(ctx)
	ex := &executor{}
	stopAgent := func() {}
	if tr.scenario.agent != nil {
		ex.then(func(ctx context.Context, task *wirev1.Task) *wirev1.TaskResult {
			for tr.scenario.afterCut && !tr.method.has(endpointMAC) && ctx.Err() == nil {
				time.Sleep(time.Millisecond)
			}
			return tr.scenario.agent(task)
		})
		stopAgent = tr.agent(ctx, ex)
	}
	stop := tr.mitigator(tr.death)
	if err := tr.end(ctx); err != nil {
		tr.Fatalf("%s: it never came to its end: %v", tr.death, err)
	}
	stopAgent()
	o = outcome{death: tr.death, cut: tr.method.times(), isCut: tr.method.has(endpointMAC)}
	o.killed = stop()
	stopDevice()
	tr.read(&o)
	o.runs = ex.runs
	return o
}

// end waits until the threat is where the scenario ends and the device agrees.
func (tr *trial) end(ctx context.Context) error {
	c := tr.client()
	_, err := eventuallyGets(ctx, func() (bool, error) {
		if tr.scenario.person != nil {
			if err := tr.scenario.person(ctx, c); err != nil {
				return false, err
			}
		}
		got, err := c.GetThreat(ctx, connect.NewRequest(&wirev1.GetThreatRequest{Id: 1}))
		if err != nil {
			return false, err
		}
		q := threat.QuarantineState(got.Msg.GetQuarantine().GetState())
		if s := threat.State(got.Msg.GetThreat().GetState()); s != tr.scenario.state || q != tr.scenario.quarantine {
			return false, fmt.Errorf("it is %s (waits for %q), its quarantine %q", s, got.Msg.GetThreat().GetWaitingFor(), q)
		}
		if isCut := tr.method.has(endpointMAC); isCut != tr.scenario.isCut {
			return false, fmt.Errorf("cut off: %v", isCut)
		}
		return true, nil
	})
	return err
}

// read takes the rest from the store itself.
func (tr *trial) read(o *outcome) {
	s, err := sqlite.Open(tr.Context(), filepath.Join(tr.dir, "mitigator", "cordon.db"))
	if err != nil {
		tr.Fatal(err)
	}
	defer s.Close()
	err = s.View(tr.Context(), func(v store.View) error {
		all, err := v.Threats(false, 0, 0)
		if err != nil || len(all) != 1 {
			return errors.Join(err, fmt.Errorf("%d threats", len(all)))
		}
		o.threat = all[0]
		if o.timeline, err = v.Timeline(o.threat.ID); err != nil {
			return err
		}
		if o.tasks, err = v.TasksOfThreat(o.threat.ID); err != nil {
			return err
		}
		quarantines, err := v.Quarantines(false, 0)
		if err != nil || len(quarantines) > 1 {
			return errors.Join(err, fmt.Errorf("%d quarantines", len(quarantines)))
		}
		for _, q := range quarantines {
			o.state = q.State
		}
		events, err := v.Events(0, 0)
		o.events = len(events)
		return err
	})
	if err != nil {
		tr.Fatalf("%s: %v", tr.death, err)
	}
}

// alert writes the record that it all begins with, as Suricata does.
func (tr *trial) alert() {
	now := time.Now().UTC().Format("2006-01-02T15:04:05.000000-0700")
	line, err := json.Marshal(map[string]any{
		"timestamp": now, "flow_id": 77, "event_type": "alert", "src_ip": endpointAddr.String(), "src_port": 50000,
		"dest_ip": "198.51.100.66", "dest_port": 443, "proto": "TCP", "app_proto": "tls", "direction": "to_server",
		"alert": map[string]any{"action": "allowed", "gid": 1, "signature_id": 2000001, "rev": 1, "signature": "TEST CnC",
			"category": "Malware Command and Control Activity Detected", "severity": 1},
		"flow": map[string]any{"pkts_toserver": 12, "pkts_toclient": 10, "bytes_toserver": 2400, "bytes_toclient": 9000, "start": now},
	})
	if err != nil {
		tr.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tr.dir, "eve.json"), append(line, '\n'), 0o600); err != nil {
		tr.Fatal(err)
	}
}

// agent runs the endpoint's agent until it is stopped.
func (tr *trial) agent(ctx context.Context, ex link.Executor) (stop func()) {
	addresses := &addresses{list: []link.Binding{{Address: endpointAddr, MAC: endpointMAC[:]}}}
	l, err := link.New(link.Options{StateDir: filepath.Join(tr.dir, "agent"), Executor: ex, Log: (*logBook)(nil).logger(),
		Hostname: "alice", Version: "1", Addresses: addresses, BackoffBase: 5 * time.Millisecond, BackoffCap: 50 * time.Millisecond})
	if err != nil {
		tr.Fatal(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			tr.Error(err)
		}
	}
}

// device runs an enforcement device that enforces in memory, until it is stopped.
func (tr *trial) device(ctx context.Context) (stop func()) {
	dir := filepath.Join(tr.dir, "device")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		tr.Fatal(err)
	}
	d, err := device.New(device.Options{Name: "gate", Version: "1", StateDir: dir, Method: tr.method, Flows: noFlows{}, Locals: noLocals{},
		Sources: []neighbor.Source{oneNeighbor{}}, Log: (*logBook)(nil).logger()})
	if err != nil {
		tr.Fatal(err)
	}
	if err := d.Start(); err != nil {
		tr.Fatal(err)
	}
	listener, err := device.Listen(filepath.Join(tr.dir, "gate.sock"), "")
	if err != nil {
		tr.Fatal(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 2)
	go func() { ended <- d.Run(ctx) }()
	go func() { ended <- device.Serve(ctx, listener, device.NewService(d)) }()
	return func() {
		cancel()
		if err := errors.Join(<-ended, <-ended, d.Close()); err != nil {
			tr.Error(err)
		}
	}
}

// mitigator runs the mitigator as a process that ends itself by SIGKILL where it
// is told to, and that is then started again. stop says whether that happened.
func (tr *trial) mitigator(d death) (stop func() (killed bool)) {
	p := &process{trial: tr, stopping: make(chan struct{}), ended: make(chan error, 1)}
	p.start(d)
	go func() { p.ended <- p.wait() }()
	return func() bool {
		close(p.stopping)
		p.signal()
		if err := <-p.ended; err != nil {
			tr.Errorf("%s: the mitigator did not end well: %v", d, err)
		}
		return p.killed
	}
}

// process is the mitigator's.
type process struct {
	*trial
	stopping chan struct{}
	ended    chan error
	killed   bool

	mu  sync.Mutex
	cmd *exec.Cmd
}

func (p *process) start(d death) {
	text, err := json.Marshal(victim{Dir: p.dir, Death: d, Note: filepath.Join(p.dir, "killed"), Scenario: p.scenario.name})
	if err != nil {
		p.Error(err)
		return
	}
	cmd := exec.CommandContext(p.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), victimEnv+"="+string(text))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cmd = cmd
	if err := cmd.Start(); err != nil {
		p.Error(err)
	}
}

func (p *process) signal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.Error(err)
	}
}

// wait returns when the process has ended for good. One that dies while it is
// stopping, at a last commit, is not started again.
func (p *process) wait() error {
	err := p.cmd.Wait()
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() || status.Signal() != syscall.SIGKILL {
		return err
	}
	select {
	case <-p.stopping:
		return nil
	default:
	}
	p.killed = true
	p.start(death{})
	select {
	case <-p.stopping:
		p.signal()
	default:
	}
	return p.cmd.Wait()
}

// enforcement enforces in memory and counts how often the endpoint is cut off.
type enforcement struct {
	mu   sync.Mutex
	have map[reconcile.Member]desired.Access
	cut  int
}

func newEnforcement() *enforcement { return &enforcement{have: map[reconcile.Member]desired.Access{}} }

func (m *enforcement) has(mac guard.MAC) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.have[reconcile.Member{MAC: mac}] != 0
}

func (m *enforcement) times() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cut
}

func bare(x reconcile.Member) reconcile.Member {
	return reconcile.Member{MAC: x.MAC, Address: x.Address}
}

func (m *enforcement) put(x reconcile.Member) {
	if bare(x) == (reconcile.Member{MAC: endpointMAC}) && m.have[bare(x)] == 0 {
		m.cut++
	}
	m.have[bare(x)] = x.Access
}

// Name implements device.Method, and so do the others.
func (m *enforcement) Name() string { return "memory" }

func (m *enforcement) Ensure(all []reconcile.Member) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, x := range all {
		m.put(x)
	}
	return nil
}

func (m *enforcement) Remove(all []reconcile.Member) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, x := range all {
		delete(m.have, bare(x))
	}
	return nil
}

func (m *enforcement) ReadBack(all []reconcile.Member) ([]bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]bool, len(all))
	for i, x := range all {
		out[i] = m.have[bare(x)] == x.Access
	}
	return out, nil
}

func (m *enforcement) Prune(want reconcile.Wanted, keep bool) (r reconcile.Report, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for x := range m.have {
		if want.Access(x) == 0 && !keep {
			delete(m.have, x)
			r.Removed++
		}
	}
	want.Each(func(x reconcile.Member) {
		if m.have[bare(x)] != x.Access {
			m.put(x)
			r.Added++
		}
	})
	return r, nil
}

func (m *enforcement) Repair() ([]string, bool, error) { return nil, false, nil }

func (m *enforcement) Count() (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.have), nil
}

func (m *enforcement) Clear() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.have)
	return nil
}

type noFlows struct{}

func (noFlows) End([]netip.Addr) error { return nil }

type noLocals struct{}

func (noLocals) Protected(func(guard.MAC) bool) ([]guard.Protected, error) { return nil, nil }

// oneNeighbor sees the endpoint.
type oneNeighbor struct{}

func (oneNeighbor) Run(ctx context.Context, report func(neighbor.Observation)) error {
	report(neighbor.Observation{Address: endpointAddr, MAC: endpointMAC, Seen: time.Now(), Present: true})
	<-ctx.Done()
	return nil
}
