package main

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/cordon-security/cordon/internal/pki"
	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
	"github.com/cordon-security/cordon/internal/wire/v1/wirev1connect"
)

// wants checks an exit code, that nothing went to standard output, and the
// words of the error and its hint.
func (r result) wants(t *testing.T, code int, words ...string) {
	t.Helper()
	if r.code != code || r.out != "" {
		t.Errorf("exit code %d, want %d; output %q", r.code, code, r.out)
	}
	what, hint, hinted := strings.Cut(r.err, "\nhint: ")
	if !strings.HasPrefix(what, "cordon: ") || !hinted || strings.Count(hint, "\n") != 1 {
		t.Errorf("not one error with one hint: %q", r.err)
	}
	for _, word := range words {
		if !strings.Contains(r.err, word) {
			t.Errorf("nothing about %q in %q", word, r.err)
		}
	}
}

func TestRefusals(t *testing.T) {
	quarantine := []string{"quarantine", "bob", "--reason", "odd"}
	for _, c := range []struct {
		name   string
		method string
		args   []string
		err    error
		code   int
		words  []string
	}{
		{"protected address", "QuarantineEndpoint", quarantine, connect.NewError(connect.CodePermissionDenied, errors.New("refused: 192.0.2.1 is protected by rule gateway")), exitRefused, []string{"rule gateway", "guard"}},
		{"already quarantined", "QuarantineEndpoint", quarantine, connect.NewError(connect.CodeFailedPrecondition, errors.New("bob (q-1): quarantined already")), exitFailed, []string{"q-1", "cordon quarantines"}},
		{"no MAC", "QuarantineEndpoint", quarantine, connect.NewError(connect.CodeFailedPrecondition, errors.New("the endpoint's MAC is not known yet")), exitFailed, []string{"MAC", "cordon endpoints"}},
		{"at the cap", "QuarantineEndpoint", quarantine, connect.NewError(connect.CodeResourceExhausted, errors.New("10 in 1h are quarantined")), exitRefused, []string{"10 in 1h", "limit"}},
		{"unknown endpoint", "QuarantineEndpoint", quarantine, connect.NewError(connect.CodeNotFound, errors.New("no endpoint \"bob\"")), exitNotFound, []string{"cordon endpoints"}},
		{"two of a name", "QuarantineEndpoint", quarantine, connect.NewError(connect.CodeInvalidArgument, errors.New("2 endpoints are called bob")), exitUsage, []string{"2 endpoints", "MAC"}},
		{"full disk", "QuarantineEndpoint", quarantine, connect.NewError(connect.CodeUnavailable, errors.New("the disk is full")), exitFailed, []string{"disk", "nothing was changed"}},
		{"not quarantined", "ReleaseEndpoint", []string{"release", "bob", "--threat-is-gone"}, connect.NewError(connect.CodeFailedPrecondition, errors.New("not quarantined")), exitFailed, []string{"cordon quarantines"}},
		{"no such threat", "GetThreat", []string{"threat", "show", "7"}, connect.NewError(connect.CodeNotFound, errors.New("threat 7: not found")), exitNotFound, []string{"cordon threats --all"}},
		{"ended threat", "CloseThreat", []string{"threat", "close", "7", "--note", "x"}, connect.NewError(connect.CodeFailedPrecondition, errors.New("has ended already")), exitFailed, []string{"cordon threat show 7"}},
		{"no such agent", "RevokeAgent", []string{"agent", "revoke", "x", "--reason", "y"}, connect.NewError(connect.CodeNotFound, errors.New("no such agent")), exitNotFound, []string{"cordon agents"}},
		{"lifetime", "CreateAgentToken", []string{"agent", "token", "--lifetime", "31d"}, connect.NewError(connect.CodeInvalidArgument, errors.New("a token lives up to 720h")), exitUsage, []string{"720h", "--help"}},
		{"inside", "ListThreats", []string{"threats"}, connect.NewError(connect.CodeInternal, errors.New("broken")), exitFailed, []string{"journalctl"}},
		{"older appliance", "ListRejects", []string{"rejects"}, connect.NewError(connect.CodeUnimplemented, errors.New("unknown method")), exitFailed, []string{"version"}},
		{"busy appliance", "ListThreats", []string{"threats"}, connect.NewError(connect.CodeDeadlineExceeded, errors.New("busy")), exitUnreachable, []string{"--timeout"}},
		{"hostile text", "ListThreats", []string{"threats"}, connect.NewError(connect.CodeInternal, errors.New(hostile)), exitFailed, []string{"owned"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newAppliance(t)
			a.answers[c.method] = c.err
			got := a.run(c.args...)
			got.wants(t, c.code, c.words...)
			checkSafe(t, c.name, got.err)
		})
	}
}

// What is recorded and yet not enforced is said, and is a failure for scripts
// unless the administrator set it so.
func TestQuarantineThatIsNotEnforced(t *testing.T) {
	for _, c := range []struct {
		state string
		code  int
		words string
	}{
		{"observed", exitOK, "nothing was enforced"},
		{"held", exitRefused, "raise the cap"},
		{"refused", exitRefused, "protected list"},
		{"suspended", exitRefused, "cordon-enforcer resume"},
		{"ordered", exitOK, "cordon status"},
		{"in-force", exitOK, ""},
	} {
		a := newAppliance(t)
		a.answers["QuarantineEndpoint"] = &wirev1.QuarantineEndpointResponse{Quarantine: &wirev1.QuarantineInfo{
			Id: "q-1", EndpointName: "bob", State: c.state, Detail: "because",
		}}
		got := a.run("quarantine", "bob", "--reason", "odd")
		if got.code != c.code || !strings.Contains(got.err, c.words) || c.words == "" && got.err != "" {
			t.Errorf("%s: exit code %d, %q", c.state, got.code, got.err)
		}
		if !strings.Contains(got.out, quarantineWords(c.state)) {
			t.Errorf("%s: %q", c.state, got.out)
		}
	}
}

// A release that the device has not carried out is not told as done.
func TestReleaseThatIsNotCarriedOut(t *testing.T) {
	for state, words := range map[string][2]string{
		"releasing": {"bob is not free yet", "cordon status"},
		"ended":     {"bob is released", ""},
	} {
		a := newAppliance(t)
		a.answers["ReleaseEndpoint"] = &wirev1.ReleaseEndpointResponse{Quarantines: []*wirev1.QuarantineInfo{{Id: "q-1", EndpointName: "bob", State: state}}}
		got := a.run("release", "bob", "--threat-is-gone")
		if got.code != exitOK || !strings.Contains(got.out, words[0]) || !strings.Contains(got.err, words[1]) || words[1] == "" && got.err != "" {
			t.Errorf("%s: exit code %d, %q, %q", state, got.code, got.out, got.err)
		}
	}
}

func TestWrongToken(t *testing.T) {
	a := newAppliance(t)
	other, err := pki.NewAdminToken(a.token.Fingerprint, "")
	if err != nil {
		t.Fatal(err)
	}
	i := a.as()
	i.env["CORDON_TOKEN"] = other.Reveal()
	i.run("status").wants(t, exitRefused, "not an administrator's token", "cordon-mitigator admin add", "cordon login")
}

// A server of another CA gets no request, let alone the secret.
func TestInterceptedConnection(t *testing.T) {
	a := newAppliance(t)
	ca, _ := newCA(t)
	i := a.as()
	i.env["CORDON_TOKEN"] = newToken(t, ca).Reveal()
	i.run("status").wants(t, exitRefused, "is not the token's appliance", "intercepting", "was not sent")
	if a.calls() != 0 {
		t.Error("the appliance was called")
	}
}

// An agent's certificate of the right CA does not make a mitigator.
func TestCertificateOfAnotherRole(t *testing.T) {
	a := newAppliance(t)
	ca, _ := newCA(t)
	key, csr := newRequest(t)
	cert, err := ca.SignClient(pki.Identity{Role: pki.RoleAgent, ID: "mallory"}, csr, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{
		Certificate: [][]byte{cert.Raw, ca.Certificate().Raw}, PrivateKey: key,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.NotFoundHandler(), ErrorLog: discarded()}
	go func() { _ = s.Serve(listener) }()
	t.Cleanup(func() { _ = s.Close() })
	i := a.as()
	i.env["CORDON_TOKEN"], i.env["CORDON_SERVER"] = newToken(t, ca).Reveal(), listener.Addr().String()
	i.run("status").wants(t, exitRefused, "is not the token's appliance")
}

func TestExpiredCertificate(t *testing.T) {
	a := newAppliance(t)
	i := a.as()
	i.now = func() time.Time { return noon.AddDate(1, 0, 0) }
	i.run("status").wants(t, exitRefused, "expired", "clock")
	if a.calls() != 0 {
		t.Error("the appliance was called")
	}
}

func TestUnreachable(t *testing.T) {
	a := newAppliance(t)
	at := func(address string, args ...string) result {
		i := a.as()
		i.env["CORDON_SERVER"] = address
		return i.run(append([]string{"status"}, args...)...)
	}
	t.Run("nobody listens", func(t *testing.T) {
		at(closedPort(t)).wants(t, exitUnreachable, "refused", "cordon-mitigator running", "--server")
	})
	t.Run("no such name", func(t *testing.T) {
		at("appliance.invalid:8443").wants(t, exitUnreachable, "appliance.invalid", "check the name")
	})
	t.Run("no answer", func(t *testing.T) {
		at(raw(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }), "--timeout", "100ms").
			wants(t, exitUnreachable, "no answer within 100ms", "firewall")
	})
	t.Run("no TLS", func(t *testing.T) {
		at(raw(t, func(c net.Conn) { _, _ = io.WriteString(c, "SSH-2.0-OpenSSH_9.2\r\n") })).
			wants(t, exitUnreachable, "does not speak TLS", "8443")
	})
	t.Run("breaks off", func(t *testing.T) {
		at(raw(t, func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) })).wants(t, exitUnreachable)
	})
	t.Run("no address", func(t *testing.T) {
		at("appliance").wants(t, exitUsage, "HOST:PORT")
	})
}

func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// raw serves each connection with a function and closes it.
func raw(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c)
			}()
		}
	}()
	return l.Addr().String()
}

// What answers with the right certificate and is not the API.
func TestNotTheAPI(t *testing.T) {
	ca, server := newCA(t)
	elsewhere := 0
	for name, handler := range map[string]http.HandlerFunc{
		"not found": http.NotFound,
		"a page":    func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") },
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/elsewhere" {
				elsewhere++
			}
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		},
	} {
		t.Run(name, func(t *testing.T) {
			address := serveTLS(t, server, handler)
			i := invocation{env: map[string]string{"CORDON_TOKEN": newToken(t, ca).Reveal(), "CORDON_SERVER": address}}
			i.run("status").wants(t, exitUnreachable, address, "8443")
		})
	}
	if elsewhere != 0 {
		t.Error("a redirect was followed")
	}
	t.Run("401", func(t *testing.T) {
		address := serveTLS(t, server, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusUnauthorized) }))
		i := invocation{env: map[string]string{"CORDON_TOKEN": newToken(t, ca).Reveal(), "CORDON_SERVER": address}}
		i.run("status").wants(t, exitRefused, "cordon login")
	})
}

func TestOversizedAnswer(t *testing.T) {
	a := newAppliance(t)
	a.answers["ListEvents"] = &wirev1.ListEventsResponse{Events: []*wirev1.Event{{Id: 1, Raw: make([]byte, maxAnswer+1)}}}
	a.run("events").wants(t, exitFailed, "larger than 32 MB", "--limit")
}

func TestInterrupted(t *testing.T) {
	a := newAppliance(t)
	ctx, cancel := context.WithCancel(t.Context())
	a.answers["GetStatus"] = func(*wirev1.GetStatusRequest) *wirev1.GetStatusResponse {
		cancel()
		return &wirev1.GetStatusResponse{}
	}
	i := a.as()
	i.ctx = ctx
	// The answer may win; then the command is done.
	if got := i.run("status"); got.code != exitOK {
		got.wants(t, exitFailed, "interrupted")
	}
	i.run("status").wants(t, exitFailed, "interrupted")
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{
		{}, {"bogus"}, {"threat"}, {"threat", "show"}, {"threat", "show", "x"}, {"threats", "--limit", "0"}, {"quarantines", "--limit", "1001"}, {"rejects", "--limit", "1001"}, {"threats", "-o", "xml"},
		{"quarantine", "bob"}, {"quarantine", "bob", "--reason", " "}, {"quarantine", "bob", "--reason", "x", "--for", "0s"},
		{"quarantine", "bob", "--reason", "x", "--access", "all"}, {"threat", "close", "1", "--note", ""}, {"agent", "revoke", "x", "--reason", ""},
		{"completion", "tcsh"}, {"status", "--timeout", "0s"}, {"status", "--server", "nowhere"}, {"events", "--limit", "-1"}, {"threat", "show", "\x1b[2J"},
	} {
		i := invocation{env: map[string]string{"CORDON_TOKEN": "cordonadmin1-" + strings.Repeat("a", 32) + "-" + strings.Repeat("a", 52)}}
		got := i.run(args...)
		got.wants(t, exitUsage)
		checkSafe(t, strings.Join(args, " "), got.err)
	}
}

// A token that was typed as an argument is not shown again.
func TestTokenAsArgument(t *testing.T) {
	a := newAppliance(t)
	got := invocation{}.run("login", a.token.Reveal())
	got.wants(t, exitUsage, "[redacted]", "process list")
	if strings.Contains(got.err, a.token.Secret.Reveal()) {
		t.Error("the secret was shown")
	}
}

func TestHelp(t *testing.T) {
	got := invocation{}.run("quarantine", "--help")
	if got.code != exitOK || got.err != "" || !strings.Contains(got.out, "--for=DURATION") {
		t.Errorf("%+v", got)
	}
}

var _ wirev1connect.AdminServiceHandler = (*appliance)(nil)
