package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cordon-security/cordon/agent/link"
	"github.com/cordon-security/cordon/internal/pki"
	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
	"github.com/cordon-security/cordon/internal/wire/v1/wirev1connect"
	"github.com/cordon-security/cordon/mitigator/fleet"
	"github.com/cordon-security/cordon/mitigator/fleet/fleettest"
)

const patience = 30 * time.Second

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if is() {
			return
		}
	}
	t.Fatalf("it never came about that %s", what)
}

// logBook is a log that tests can read.
type logBook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBook) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBook) count(part string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.text.String(), part)
}

func (b *logBook) logger() *slog.Logger {
	if b == nil {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// clock can be set ahead.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }
func (c *clock) set(d time.Duration)     { c.ahead.Store(int64(d)) }
func newTask(id string) *wirev1.Task {
	return &wirev1.Task{Id: id, Kind: wirev1.TaskKind_TASK_KIND_ASSESS}
}
func done() *wirev1.TaskResult { return &wirev1.TaskResult{Status: wirev1.TaskStatus_TASK_STATUS_DONE} }

// mitigator is a Fleet on loopback that can be stopped and started again.
type mitigator struct {
	t         testing.TB
	clock     *clock
	log       *logBook
	ca        *pki.CA
	store     *fleettest.Store
	lifecycle *fleettest.Lifecycle
	lifetime  time.Duration
	keepAlive time.Duration
	address   string

	fleet *fleet.Fleet
	stop  func()
}

func newMitigator(t testing.TB) *mitigator {
	t.Helper()
	m := &mitigator{
		t: t, clock: &clock{}, log: &logBook{}, store: fleettest.NewStore(), lifecycle: fleettest.NewLifecycle(),
		lifetime: 30 * 24 * time.Hour, keepAlive: 200 * time.Millisecond, address: "127.0.0.1:0",
	}
	ca, err := pki.Open(pki.Options{Dir: filepath.Join(t.TempDir(), "ca"), Now: m.clock.now})
	if err != nil {
		t.Fatal(err)
	}
	m.ca = ca
	t.Cleanup(func() {
		if m.stop != nil {
			m.stop()
		}
	})
	return m
}

func (m *mitigator) start() *mitigator {
	m.t.Helper()
	server, err := m.ca.NewServer([]string{"127.0.0.1"})
	if err != nil {
		m.t.Fatal(err)
	}
	listener, err := net.Listen("tcp", m.address)
	if err != nil {
		m.t.Fatal(err)
	}
	m.address = listener.Addr().String()
	m.fleet, err = fleet.New(fleet.Options{
		CA: m.ca, Server: server, Store: m.store, Lifecycle: m.lifecycle, Log: m.log.logger(),
		TokenServer: m.address, CertLifetime: m.lifetime, KeepAlive: m.keepAlive, Now: m.clock.now,
	})
	if err != nil {
		m.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- m.fleet.Serve(ctx, listener) }()
	m.stop = func() {
		m.stop = nil
		cancel()
		if err := <-served; err != nil {
			m.t.Errorf("the mitigator did not stop cleanly: %v", err)
		}
	}
	return m
}

func (m *mitigator) token() pki.Token {
	m.t.Helper()
	token, _, err := m.fleet.NewToken(context.Background(), "test", "admin:test", time.Hour)
	if err != nil {
		m.t.Fatal(err)
	}
	return token
}

func (m *mitigator) give(agentID, taskID string) {
	m.lifecycle.Add(agentID, newTask(taskID))
	m.fleet.Wake(agentID)
}

// executor counts how often each task is carried out.
type executor struct {
	mu   sync.Mutex
	runs map[string]int
	do   func(context.Context, *wirev1.Task) *wirev1.TaskResult
}

func (e *executor) Execute(ctx context.Context, task *wirev1.Task) *wirev1.TaskResult {
	e.mu.Lock()
	if e.runs == nil {
		e.runs = make(map[string]int)
	}
	e.runs[task.GetId()]++
	do := e.do
	e.mu.Unlock()
	if do == nil {
		return done()
	}
	return do(ctx, task)
}

func (e *executor) count(taskID string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.runs[taskID]
}

func (e *executor) then(do func(context.Context, *wirev1.Task) *wirev1.TaskResult) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.do = do
}

// agent is an enrolled agent whose link can be started and stopped.
type agent struct {
	t        testing.TB
	id       string
	dir      string
	server   string
	clock    *clock
	log      *logBook
	executor *executor
	address  *addresses

	ended chan error
	stop  func()
}

// addresses is an AddressSource that tests set.
type addresses struct {
	mu      sync.Mutex
	list    []link.Binding
	changed func()
}

func (a *addresses) Bindings() ([]link.Binding, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.list, nil
}

func (a *addresses) Watch(ctx context.Context, changed func()) error {
	a.mu.Lock()
	a.changed = changed
	a.mu.Unlock()
	<-ctx.Done()
	return nil
}

func (a *addresses) set(list ...link.Binding) {
	a.mu.Lock()
	a.list = list
	changed := a.changed
	a.mu.Unlock()
	if changed != nil {
		changed()
	}
}

func (m *mitigator) enrol() *agent {
	m.t.Helper()
	return m.enrolIn(m.t.TempDir())
}

func (m *mitigator) enrolIn(dir string) *agent {
	m.t.Helper()
	a := &agent{
		t: m.t, dir: dir, clock: &clock{}, log: &logBook{}, executor: &executor{}, address: &addresses{},
		ended: make(chan error, 1),
	}
	id, err := link.Enroll(context.Background(), link.EnrollOptions{StateDir: dir, Token: m.token(), Hostname: "host", Version: "1"})
	if err != nil {
		m.t.Fatal(err)
	}
	a.id = id
	m.t.Cleanup(func() {
		if a.stop != nil {
			a.stop()
		}
	})
	return a
}

func (a *agent) start() *agent {
	a.t.Helper()
	l, err := link.New(link.Options{
		StateDir: a.dir, Server: a.server, Executor: a.executor, Log: a.log.logger(), Hostname: "host", Version: "1", Observer: "bpf",
		Addresses: a.address, BackoffBase: 5 * time.Millisecond, BackoffCap: 100 * time.Millisecond, Now: a.clock.now,
	})
	if err != nil {
		a.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		a.ended <- l.Run(ctx)
	}()
	a.stop = func() {
		a.stop = nil
		cancel()
		<-stopped
		select {
		case err := <-a.ended:
			if err != nil {
				a.t.Errorf("the agent ended with %v", err)
			}
		default:
		}
	}
	return a
}

// client speaks to the mitigator with the agent's own certificate, or any.
func client(t *testing.T, server string, certs ...tls.Certificate) wirev1connect.AgentServiceClient {
	t.Helper()
	transport := &http.Transport{
		ForceAttemptHTTP2: true,
		TLSClientConfig: &tls.Config{
			InsecureSkipVerify: true,
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				if len(certs) == 0 {
					return &tls.Certificate{}, nil
				}
				return &certs[0], nil
			},
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return wirev1connect.NewAgentServiceClient(&http.Client{Transport: transport}, "https://"+server)
}

func (a *agent) certificate() tls.Certificate {
	a.t.Helper()
	data, err := os.ReadFile(filepath.Join(a.dir, "identity.json"))
	if err != nil {
		a.t.Fatal(err)
	}
	var stored struct{ PEM string }
	if err := json.Unmarshal(data, &stored); err != nil {
		a.t.Fatal(err)
	}
	key, chain, err := pki.DecodePair([]byte(stored.PEM))
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{chain[0].Raw}, PrivateKey: key, Leaf: chain[0]}
}

func (a *agent) files(folder string) int {
	entries, err := os.ReadDir(filepath.Join(a.dir, folder))
	if err != nil {
		a.t.Fatal(err)
	}
	return len(entries)
}

// proxy forwards TCP until it is told to swallow everything.
type proxy struct {
	listener net.Listener
	silent   atomic.Bool
	opened   atomic.Int32
}

func newProxy(t *testing.T, to string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: listener}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	keep := func(c net.Conn) {
		mu.Lock()
		defer mu.Unlock()
		conns = append(conns, c)
	}
	wg.Go(func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			keep(in)
			p.opened.Add(1)
			out, err := net.Dial("tcp", to)
			if err != nil {
				_ = in.Close()
				continue
			}
			keep(out)
			wg.Go(func() { p.copy(in, out) })
			wg.Go(func() { p.copy(out, in) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		mu.Lock()
		for _, c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return p
}

func (p *proxy) copy(to, from net.Conn) {
	buffer := make([]byte, 16<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			_ = to.Close()
			return
		}
		if p.silent.Load() {
			continue
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

func clientCertificate(t *testing.T, ca *pki.CA, who pki.Identity) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.SignClient(who, csr, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
}
