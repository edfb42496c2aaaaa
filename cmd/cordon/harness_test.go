package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/cordon-security/cordon/internal/pki"
	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
	"github.com/cordon-security/cordon/internal/wire/v1/wirev1connect"
)

// TestMain plays the program itself when a test runs this binary as "cordon".
func TestMain(m *testing.M) {
	if os.Getenv("CORDON_PLAYED_BY_TEST") != "" {
		main()
	}
	os.Exit(m.Run())
}

var update = flag.Bool("update", false, "write the golden files anew")

// noon is the time of every test.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func clock() time.Time { return noon }

// appliance is a mitigator's API that replays: each method gives the answer or
// the error that the test set, and its requests are kept.
type appliance struct {
	address string
	token   pki.Token
	answers map[string]any

	mu   sync.Mutex
	got  map[string][]proto.Message
	auth []string
}

func newAppliance(t *testing.T) *appliance {
	t.Helper()
	a := &appliance{answers: map[string]any{}, got: map[string][]proto.Message{}}
	ca, server := newCA(t)
	a.token = newToken(t, ca)
	mux := http.NewServeMux()
	mux.Handle(wirev1connect.NewAdminServiceHandler(a, connect.WithInterceptors(a.doorman())))
	a.address = serveTLS(t, server, mux)
	return a
}

func newCA(t *testing.T) (*pki.CA, *pki.Server) {
	t.Helper()
	ca, err := pki.Open(pki.Options{Dir: t.TempDir(), Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	server, err := ca.NewServer([]string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	return ca, server
}

func newToken(t *testing.T, ca *pki.CA) pki.Token {
	t.Helper()
	token, err := pki.NewAdminToken(ca.Fingerprint(), "")
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// serveTLS serves on loopback until the test ends, and returns the address.
func serveTLS(t *testing.T, server *pki.Server, handler http.Handler) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: handler, TLSConfig: serverTLS(server), ErrorLog: discarded()}
	done := make(chan error, 1)
	go func() { done <- s.ServeTLS(listener, "", "") }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}

// doorman keeps what each call came with, and lets the token's secret in alone.
func (a *appliance) doorman() connect.UnaryInterceptorFunc {
	return func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
			a.mu.Lock()
			a.auth = append(a.auth, r.Header().Get("Authorization"))
			a.mu.Unlock()
			if r.Header().Get("Authorization") != "Bearer "+a.token.Secret.Reveal() {
				return nil, connect.NewError(connect.CodeUnauthenticated, errors.New("not an administrator's token"))
			}
			return next(ctx, r)
		}
	}
}

// replay answers one call as the test set it; an empty answer otherwise.
func replay[Req, Res any, PReq interface {
	*Req
	proto.Message
}](a *appliance, name string, r *connect.Request[Req]) (*connect.Response[Res], error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.got[name] = append(a.got[name], proto.Clone(PReq(r.Msg)))
	switch answer := a.answers[name].(type) {
	case error:
		return nil, answer
	case func(*Req) *Res:
		return connect.NewResponse(answer(r.Msg)), nil
	case *Res:
		return connect.NewResponse(answer), nil
	}
	return connect.NewResponse(new(Res)), nil
}

// last is the latest request of a method.
func last[T proto.Message](t *testing.T, a *appliance, name string) T {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	all := a.got[name]
	if len(all) == 0 {
		t.Fatalf("%s was not called", name)
	}
	m, ok := all[len(all)-1].(T)
	if !ok {
		t.Fatalf("%s was called with a %T", name, all[len(all)-1])
	}
	return m
}

func (a *appliance) calls() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.auth)
}

// result is what a command did.
type result struct {
	code     int
	out, err string
}

// invocation is what a command line is run in; its zero value has no terminal, no
// environment, and the tests' clock.
type invocation struct {
	stdin  io.Reader
	stdout io.Writer
	env    map[string]string
	now    func() time.Time
	ctx    context.Context
}

func (i invocation) run(args ...string) result {
	var out, err bytes.Buffer
	if i.stdin == nil {
		i.stdin = strings.NewReader("")
	}
	if i.stdout == nil {
		i.stdout = &out
	}
	if i.now == nil {
		i.now = clock
	}
	if i.ctx == nil {
		i.ctx = context.Background()
	}
	code := run(i.ctx, process{
		args: args, stdin: i.stdin, stdout: i.stdout, stderr: &err, now: i.now,
		env: func(name string) string { return i.env[name] },
	})
	return result{code, out.String(), err.String()}
}

// as is an invocation with the appliance's address and token in the environment.
func (a *appliance) as() invocation {
	return invocation{env: map[string]string{"CORDON_SERVER": a.address, "CORDON_TOKEN": a.token.Reveal()}}
}

// run runs a command at the appliance, with times in UTC.
func (a *appliance) run(args ...string) result { return a.as().run(append(args, "--utc")...) }

// golden compares with the file in testdata. The server's port is not the same twice.
func (a *appliance) golden(t *testing.T, name, got string) {
	t.Helper()
	got = strings.ReplaceAll(got, a.address, "appliance.example:8443")
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", file, got, want)
	}
}

// GetStatus implements wirev1connect.AdminServiceHandler.
func (a *appliance) GetStatus(_ context.Context, r *connect.Request[wirev1.GetStatusRequest]) (*connect.Response[wirev1.GetStatusResponse], error) {
	return replay[wirev1.GetStatusRequest, wirev1.GetStatusResponse](a, "GetStatus", r)
}

// ListThreats implements wirev1connect.AdminServiceHandler.
func (a *appliance) ListThreats(_ context.Context, r *connect.Request[wirev1.ListThreatsRequest]) (*connect.Response[wirev1.ListThreatsResponse], error) {
	return replay[wirev1.ListThreatsRequest, wirev1.ListThreatsResponse](a, "ListThreats", r)
}

// GetThreat implements wirev1connect.AdminServiceHandler.
func (a *appliance) GetThreat(_ context.Context, r *connect.Request[wirev1.GetThreatRequest]) (*connect.Response[wirev1.GetThreatResponse], error) {
	return replay[wirev1.GetThreatRequest, wirev1.GetThreatResponse](a, "GetThreat", r)
}

// ListEvents implements wirev1connect.AdminServiceHandler.
func (a *appliance) ListEvents(_ context.Context, r *connect.Request[wirev1.ListEventsRequest]) (*connect.Response[wirev1.ListEventsResponse], error) {
	return replay[wirev1.ListEventsRequest, wirev1.ListEventsResponse](a, "ListEvents", r)
}

// ListEndpoints implements wirev1connect.AdminServiceHandler.
func (a *appliance) ListEndpoints(_ context.Context, r *connect.Request[wirev1.ListEndpointsRequest]) (*connect.Response[wirev1.ListEndpointsResponse], error) {
	return replay[wirev1.ListEndpointsRequest, wirev1.ListEndpointsResponse](a, "ListEndpoints", r)
}

// ListQuarantines implements wirev1connect.AdminServiceHandler.
func (a *appliance) ListQuarantines(_ context.Context, r *connect.Request[wirev1.ListQuarantinesRequest]) (*connect.Response[wirev1.ListQuarantinesResponse], error) {
	return replay[wirev1.ListQuarantinesRequest, wirev1.ListQuarantinesResponse](a, "ListQuarantines", r)
}

// QuarantineEndpoint implements wirev1connect.AdminServiceHandler.
func (a *appliance) QuarantineEndpoint(_ context.Context, r *connect.Request[wirev1.QuarantineEndpointRequest]) (*connect.Response[wirev1.QuarantineEndpointResponse], error) {
	return replay[wirev1.QuarantineEndpointRequest, wirev1.QuarantineEndpointResponse](a, "QuarantineEndpoint", r)
}

// ReleaseEndpoint implements wirev1connect.AdminServiceHandler.
func (a *appliance) ReleaseEndpoint(_ context.Context, r *connect.Request[wirev1.ReleaseEndpointRequest]) (*connect.Response[wirev1.ReleaseEndpointResponse], error) {
	return replay[wirev1.ReleaseEndpointRequest, wirev1.ReleaseEndpointResponse](a, "ReleaseEndpoint", r)
}

// ListAgents implements wirev1connect.AdminServiceHandler.
func (a *appliance) ListAgents(_ context.Context, r *connect.Request[wirev1.ListAgentsRequest]) (*connect.Response[wirev1.ListAgentsResponse], error) {
	return replay[wirev1.ListAgentsRequest, wirev1.ListAgentsResponse](a, "ListAgents", r)
}

// CreateAgentToken implements wirev1connect.AdminServiceHandler.
func (a *appliance) CreateAgentToken(_ context.Context, r *connect.Request[wirev1.CreateAgentTokenRequest]) (*connect.Response[wirev1.CreateAgentTokenResponse], error) {
	return replay[wirev1.CreateAgentTokenRequest, wirev1.CreateAgentTokenResponse](a, "CreateAgentToken", r)
}

// RevokeAgent implements wirev1connect.AdminServiceHandler.
func (a *appliance) RevokeAgent(_ context.Context, r *connect.Request[wirev1.RevokeAgentRequest]) (*connect.Response[wirev1.RevokeAgentResponse], error) {
	return replay[wirev1.RevokeAgentRequest, wirev1.RevokeAgentResponse](a, "RevokeAgent", r)
}

// ListSources implements wirev1connect.AdminServiceHandler.
func (a *appliance) ListSources(_ context.Context, r *connect.Request[wirev1.ListSourcesRequest]) (*connect.Response[wirev1.ListSourcesResponse], error) {
	return replay[wirev1.ListSourcesRequest, wirev1.ListSourcesResponse](a, "ListSources", r)
}

// CloseThreat implements wirev1connect.AdminServiceHandler.
func (a *appliance) CloseThreat(_ context.Context, r *connect.Request[wirev1.CloseThreatRequest]) (*connect.Response[wirev1.CloseThreatResponse], error) {
	return replay[wirev1.CloseThreatRequest, wirev1.CloseThreatResponse](a, "CloseThreat", r)
}

// ListRejects implements wirev1connect.AdminServiceHandler.
func (a *appliance) ListRejects(_ context.Context, r *connect.Request[wirev1.ListRejectsRequest]) (*connect.Response[wirev1.ListRejectsResponse], error) {
	return replay[wirev1.ListRejectsRequest, wirev1.ListRejectsResponse](a, "ListRejects", r)
}
