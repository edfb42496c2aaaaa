package e2e

import (
	"context"
	"crypto/tls"
	"errors"

	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/cordon-security/cordon/agent/link"
	"github.com/cordon-security/cordon/internal/pki"
	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

func enrol(dir string, token pki.Token) error {
	_, err := link.Enroll(context.Background(), link.EnrollOptions{StateDir: dir, Token: token})
	return err
}

func TestEnrolmentToken(t *testing.T) {
	m := newMitigator(t).start()
	used, expired := m.token(), m.token()
	if err := enrol(t.TempDir(), used); err != nil {
		t.Fatal(err)
	}
	wrong, err := pki.NewToken(m.ca.Fingerprint(), m.address)
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for name, c := range map[string]struct {
		token pki.Token
		ahead time.Duration
		log   string
	}{
		"wrong":   {wrong, 0, "unknown"},
		"reused":  {used, 0, "already used"},
		"expired": {expired, 2 * time.Hour, "expired"},
	} {
		m.clock.set(c.ahead)
		dir := t.TempDir()
		err := enrol(dir, c.token)
		if connect.CodeOf(err) != connect.CodeUnauthenticated || !strings.Contains(err.Error(), "cordon agent token") {
			t.Errorf("%s token: error %v does not say what to do", name, err)
			continue
		}
		if strings.Contains(err.Error(), c.token.Secret.Reveal()) || m.log.count(c.token.Secret.Reveal()) != 0 {
			t.Errorf("%s token: the secret is shown", name)
		}
		if m.log.count(c.log) == 0 {
			t.Errorf("%s token: the mitigator's log does not say why", name)
		}
		if _, err := os.Stat(filepath.Join(dir, "identity.json")); err == nil {
			t.Errorf("%s token: there is an identity", name)
		}
		texts = append(texts, err.Error())
	}
	for _, text := range texts {
		if text != texts[0] {
			t.Errorf("the errors tell tokens apart: %q and %q", text, texts[0])
		}
	}
}

func TestEnrolmentIsRateLimited(t *testing.T) {
	m := newMitigator(t).start()
	good := m.token()
	wrong, err := pki.NewToken(m.ca.Fingerprint(), m.address)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	limited := func() bool { return connect.CodeOf(enrol(dir, wrong)) == connect.CodeResourceExhausted }
	eventually(t, "wrong tokens are no longer looked at", limited)
	if err := enrol(dir, good); connect.CodeOf(err) != connect.CodeResourceExhausted {
		t.Fatalf("error %v, want the limit", err)
	}
	m.clock.advance(time.Minute)
	if err := enrol(dir, good); err != nil {
		t.Fatalf("still refused after a minute: %v", err)
	}
}

// The mitigator proves who it is before it sees the secret.
func TestWrongFingerprintKeepsTheSecret(t *testing.T) {
	m := newMitigator(t).start()
	rogue, err := pki.Open(pki.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	server, err := rogue.NewServer([]string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{GetCertificate: server.GetCertificate, MinVersion: tls.VersionTLS13})
	if err != nil {
		t.Fatal(err)
	}
	var heard, came atomic.Int64
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			came.Add(1)
			n, _ := conn.Read(make([]byte, 4096))
			heard.Add(int64(n))
			_ = conn.Close()
		}
	}()
	token := m.token()
	token.Server = listener.Addr().String()
	err = enrol(t.TempDir(), token)
	if !errors.Is(err, pki.ErrWrongCA) {
		t.Errorf("error %v, want ErrWrongCA", err)
	}
	_ = listener.Close()
	<-served
	if came.Load() == 0 || heard.Load() != 0 {
		t.Fatalf("the rogue was reached %d times and heard %d bytes", came.Load(), heard.Load())
	}
	token.Server = m.address
	if err := enrol(t.TempDir(), token); err != nil {
		t.Fatalf("the token is spent: %v", err)
	}
}

// An agent that cannot keep its first certificate has not lost its token.
func TestEnrolmentGoesOnAfterACrash(t *testing.T) {
	m := newMitigator(t).start()
	dir, token := t.TempDir(), m.token()
	blocked := filepath.Join(dir, "identity.json", "x")
	if err := os.MkdirAll(blocked, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := enrol(dir, token); err == nil {
		t.Fatal("an identity that cannot be kept is no error")
	}
	if err := os.RemoveAll(filepath.Dir(blocked)); err != nil {
		t.Fatal(err)
	}
	if err := enrol(dir, token); err != nil {
		t.Fatal(err)
	}
	agents, err := m.store.Agents(context.Background())
	if err != nil || len(agents) != 1 {
		t.Fatalf("%d agents, %v; want 1", len(agents), err)
	}
	if err := enrol(dir, m.token()); !errors.Is(err, link.ErrAlreadyEnrolled) {
		t.Fatalf("error %v, want ErrAlreadyEnrolled", err)
	}
	for _, name := range []string{"identity.json"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("%s: %v, %v; want mode 0600", name, info, err)
		}
	}
}

func TestCallsWithoutAnAgentsCertificate(t *testing.T) {
	m := newMitigator(t).start()
	a := m.enrol()
	csr := []byte("x")
	for name, certs := range map[string][]tls.Certificate{"none": nil, "own CA": {selfSigned(t)}, "device": {deviceCertificate(t, m)}} {
		c := client(t, m.address, certs...)
		if _, err := c.Report(t.Context(), connect.NewRequest(&wirev1.ReportRequest{Result: &wirev1.TaskResult{TaskId: "1"}})); err == nil {
			t.Errorf("%s: Report went through", name)
		}
		if _, err := c.Renew(t.Context(), connect.NewRequest(&wirev1.RenewRequest{Csr: csr})); err == nil {
			t.Errorf("%s: Renew went through", name)
		}
		in, err := c.Tasks(t.Context(), connect.NewRequest(&wirev1.TasksRequest{}))
		if err == nil && in.Receive() {
			t.Errorf("%s: Tasks went through", name)
		}
	}
	if _, err := client(t, m.address, a.certificate()).Observe(t.Context(), connect.NewRequest(&wirev1.ObserveRequest{})); err != nil {
		t.Fatalf("the agent itself is refused: %v", err)
	}
	old, err := tls.Dial("tcp", m.address, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
	if err == nil {
		_ = old.Close()
		t.Fatal("TLS 1.2 was taken")
	}
}

func TestExpiredCertificate(t *testing.T) {
	m := newMitigator(t).start()
	a := m.enrol()
	a.clock.set(31 * 24 * time.Hour)
	_, err := link.New(link.Options{StateDir: a.dir, Executor: a.executor, Log: a.log.logger(), Now: a.clock.now})
	if !errors.Is(err, link.ErrExpired) || !strings.Contains(err.Error(), "enrol anew") {
		t.Fatalf("error %v, want ErrExpired and what to do", err)
	}
	// The agent's clock lags, so the mitigator must notice.
	a.clock.set(0)
	m.clock.set(31 * 24 * time.Hour)
	a.start()
	eventually(t, "the agent says that its certificate is refused", func() bool {
		return a.log.count("refuses this agent's certificate") > 1
	})
	if m.lifecycle.Connected(a.id) {
		t.Fatal("an expired certificate was taken")
	}
}

func TestCertificateThatExpiresEndsTheRun(t *testing.T) {
	m := newMitigator(t).start()
	a := m.enrol().start()
	eventually(t, "the agent is connected", func() bool { return m.lifecycle.Connected(a.id) })
	m.stop()
	a.clock.set(31 * 24 * time.Hour)
	select {
	case err := <-a.ended:
		if !errors.Is(err, link.ErrExpired) {
			t.Fatalf("Run ended with %v, want ErrExpired", err)
		}
	case <-time.After(patience):
		t.Fatal("Run goes on with an expired certificate")
	}
}

// A stream ends with the certificate that it was opened with.
func TestStreamEndsWithItsCertificate(t *testing.T) {
	m := newMitigator(t)
	m.lifetime = time.Second
	m.start()
	a := m.enrol()
	in, err := client(t, m.address, a.certificate()).Tasks(t.Context(), connect.NewRequest(&wirev1.TasksRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	for in.Receive() {
		continue
	}
	if connect.CodeOf(in.Err()) != connect.CodeUnauthenticated {
		t.Fatalf("the stream ended with %v", in.Err())
	}
}

// A task that runs while the certificate changes is neither lost nor repeated.
func TestRenewalUnderARunningStream(t *testing.T) {
	m := newMitigator(t).start()
	a := m.enrol()
	first := a.certificate().Leaf
	proceed := make(chan struct{})
	a.executor.then(func(context.Context, *wirev1.Task) *wirev1.TaskResult {
		<-proceed
		return done()
	})
	m.give(a.id, "during")
	a.clock.set(25 * 24 * time.Hour)
	a.start()
	eventually(t, "the task runs", func() bool { return a.executor.count("during") == 1 })
	eventually(t, "the certificate is renewed", func() bool { return a.certificate().Leaf.SerialNumber.Cmp(first.SerialNumber) != 0 })
	eventually(t, "the store knows the new one", func() bool {
		stored, err := m.store.Agent(context.Background(), a.id)
		return err == nil && stored.Serial == pki.SerialText(a.certificate().Leaf)
	})
	eventually(t, "the new certificate is in use", func() bool { return m.lifecycle.Delivered("during") >= 2 })
	close(proceed)
	m.give(a.id, "after")
	eventually(t, "the results come in", func() bool {
		return m.lifecycle.Result("during") != nil && m.lifecycle.Result("after") != nil
	})
	if n := a.executor.count("during"); n != 1 {
		t.Fatalf("the task was carried out %d times", n)
	}
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	ca, err := pki.Open(pki.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return clientCertificate(t, ca, pki.Identity{Role: pki.RoleAgent, ID: "a"})
}

func deviceCertificate(t *testing.T, m *mitigator) tls.Certificate {
	t.Helper()
	return clientCertificate(t, m.ca, pki.Identity{Role: pki.RoleDevice, ID: "a"})
}
