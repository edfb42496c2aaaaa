package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"

	"connectrpc.com/connect"

	"github.com/cordon-security/cordon/internal/pki"
	"github.com/cordon-security/cordon/internal/wire/v1/wirev1connect"
)

const (
	defaultServer = "localhost:8443"
	// maxAnswer bounds what is read of one answer, in bytes.
	maxAnswer = 32 << 20
	// maxHeader bounds an answer's header, in bytes.
	maxHeader = 64 << 10
)

var errRedirect = errors.New("it answered with a redirect, which is not followed")

// connection is a client of one appliance, as one administrator.
type connection struct {
	client    wirev1connect.AdminServiceClient
	transport *http.Transport
	server    string
}

func (c *connection) close() { c.transport.CloseIdleConnections() }

// connectTo finds the token and the server of this run. Nothing is dialled yet.
func connectTo(s *session) (*connection, error) {
	token, err := s.token()
	if err != nil {
		return nil, err
	}
	return s.connectAs(token)
}

func (s *session) connectAs(token pki.Token) (*connection, error) {
	if s.Timeout <= 0 {
		return nil, usage("--timeout must be more than nothing", "such as --timeout 30s")
	}
	server := s.server(token)
	if err := pki.CheckServer(server); err != nil {
		return nil, usage("server \""+server+"\": "+err.Error(), "give it as --server HOST:PORT, such as appliance.example:8443 or [2001:db8::1]:8443")
	}
	// No proxy: the appliance is on the LAN, and the token is for it alone.
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{
			MinVersion: tls.VersionTLS13,
			// The standard check is replaced, not left out: VerifyConnection
			// checks chain, time, usage and role against the token's CA.
			InsecureSkipVerify: true,
			VerifyConnection:   token.Fingerprint.VerifyMitigator(s.now),
			Time:               s.now,
		},
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeader,
	}
	client := wirev1connect.NewAdminServiceClient(
		&http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return errRedirect }},
		"https://"+server,
		connect.WithReadMaxBytes(maxAnswer),
		connect.WithAcceptCompression("gzip", nil, nil),
		connect.WithInterceptors(bearer(token.Secret)),
	)
	return &connection{client: client, transport: transport, server: server}, nil
}

func (s *session) server(token pki.Token) string {
	for _, server := range []string{s.Server, s.env("CORDON_SERVER"), token.Server} {
		if server != "" {
			return server
		}
	}
	return defaultServer
}

// bearer sends the token's secret part with each call.
func bearer(secret pki.Secret) connect.UnaryInterceptorFunc {
	return func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, request connect.AnyRequest) (connect.AnyResponse, error) {
			request.Header().Set("Authorization", "Bearer "+secret.Reveal())
			return next(ctx, request)
		}
	}
}
