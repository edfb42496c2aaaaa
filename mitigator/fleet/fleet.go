package fleet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"github.com/cordon-security/cordon/internal/pki"
	"github.com/cordon-security/cordon/internal/wire/v1/wirev1connect"
)

const (
	defaultCertLifetime   = 30 * 24 * time.Hour
	defaultKeepAlive      = 30 * time.Second
	defaultMaxConnections = 65536

	// MaxMessageSize bounds one message from an agent, in bytes.
	MaxMessageSize = 4 << 20

	// sendTimeout is how long an agent may take to read one message.
	sendTimeout = 30 * time.Second
	// receiveTimeout is how long an agent may take to send one request.
	receiveTimeout = 60 * time.Second

	minTokenLifetime = time.Minute
	maxTokenLifetime = 30 * 24 * time.Hour
)

// Options is what a Fleet needs. Those without a default are required.
type Options struct {
	CA *pki.CA
	// Server is the certificate to serve with.
	Server    *pki.Server
	Store     Store
	Lifecycle Lifecycle
	Log       *slog.Logger

	// TokenServer is the "HOST:PORT" that new tokens carry, for agents to
	// dial; empty leaves it to the person who enrols.
	TokenServer string
	// CertLifetime is the validity of agents' certificates; 30 days by default.
	CertLifetime time.Duration
	// KeepAlive is the interval of keep-alives on Tasks streams; 30 seconds by
	// default.
	KeepAlive time.Duration
	// MaxConnections bounds open connections; 65,536 by default.
	MaxConnections int
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Fleet serves agents. It is safe for concurrent use.
type Fleet struct {
	options Options
	ca      *pki.CA
	store   Store
	engine  Lifecycle
	log     *slog.Logger
	now     func() time.Time

	streams    streams
	announcing announceLocks
	conns      connections
	limiter    limiter
	handler    http.Handler
}

// New checks the options and returns a Fleet; Serve makes it listen.
func New(o Options) (*Fleet, error) {
	if o.CA == nil || o.Server == nil || o.Store == nil || o.Lifecycle == nil || o.Log == nil {
		return nil, errors.New("fleet: CA, Server, Store, Lifecycle and Log are required")
	}
	if o.TokenServer != "" {
		if err := pki.CheckServer(o.TokenServer); err != nil {
			return nil, fmt.Errorf("fleet: address for tokens: %w", err)
		}
	}
	if o.CertLifetime == 0 {
		o.CertLifetime = defaultCertLifetime
	}
	if o.KeepAlive == 0 {
		o.KeepAlive = defaultKeepAlive
	}
	if o.MaxConnections == 0 {
		o.MaxConnections = defaultMaxConnections
	}
	if o.CertLifetime < 0 || o.KeepAlive < 0 || o.MaxConnections < 0 {
		return nil, errors.New("fleet: CertLifetime, KeepAlive and MaxConnections must not be negative")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	f := &Fleet{
		options: o, ca: o.CA, store: o.Store, engine: o.Lifecycle, log: o.Log, now: o.Now,
		limiter: limiter{now: o.Now}, announcing: announceLocks{seed: maphash.MakeSeed()},
	}
	path, handler := wirev1connect.NewAgentServiceHandler(&service{fleet: f},
		connect.WithReadMaxBytes(MaxMessageSize),
		// Messages are small, and a compressor costs more memory than all the
		// rest of an idle stream.
		connect.WithCompression("gzip", nil, nil),
		connect.WithRecover(f.recovered),
	)
	mux := http.NewServeMux()
	mux.Handle(path, handler)
	f.handler = f.withPeer(mux)
	return f, nil
}

func (f *Fleet) recovered(_ context.Context, spec connect.Spec, _ http.Header, cause any) error {
	f.log.Error("agent call failed inside", "procedure", spec.Procedure, "cause", cause)
	return connect.NewError(connect.CodeInternal, errors.New("the mitigator failed on this call; its log says why"))
}

// NewToken makes and stores a one-time enrolment token. Its text (Reveal) is to
// be shown once; only a hash of it is kept. The lifetime must lie between one
// minute and 30 days.
func (f *Fleet) NewToken(ctx context.Context, comment, createdBy string, lifetime time.Duration) (pki.Token, time.Time, error) {
	if lifetime < minTokenLifetime || lifetime > maxTokenLifetime {
		return pki.Token{}, time.Time{}, fmt.Errorf("a token's lifetime must lie between %s and %s, not %s", minTokenLifetime, maxTokenLifetime, lifetime)
	}
	token, err := pki.NewToken(f.ca.Fingerprint(), f.options.TokenServer)
	if err != nil {
		return pki.Token{}, time.Time{}, err
	}
	now := f.now()
	stored := Token{
		Hash: token.Secret.Hash(), Comment: comment, CreatedBy: createdBy,
		CreatedAt: now, ExpiresAt: now.Add(lifetime),
	}
	if err := f.store.CreateToken(ctx, stored); err != nil {
		return pki.Token{}, time.Time{}, fmt.Errorf("store an enrolment token: %w", err)
	}
	return token, stored.ExpiresAt, nil
}

// Wake says that the agent may have a new task, or one that was called back: its
// stream, if it has one, asks the Lifecycle at once. It never blocks, and many
// calls may lead to one look. An agent that is away learns of both when it
// connects.
func (f *Fleet) Wake(agentID string) { f.streams.wake(agentID) }

// Connected reports whether the agent holds a Tasks stream now.
func (f *Fleet) Connected(agentID string) bool { return f.streams.has(agentID) }

// ConnectedCount is the number of agents that hold a Tasks stream now.
func (f *Fleet) ConnectedCount() int { return f.streams.count() }

// Revoke makes the agent's certificates worthless, durably and at once: its
// streams and connections are closed before Revoke returns, and from then on
// its handshakes and calls are refused. It is final; the endpoint may enrol
// anew. Revoking twice is no error; the error of an agent that is not there
// wraps ErrAgentUnknown.
func (f *Fleet) Revoke(ctx context.Context, agentID, by, reason string) error {
	if err := f.store.RevokeAgent(ctx, agentID, f.now(), by, reason); err != nil {
		return fmt.Errorf("revoke agent %s: %w", agentID, err)
	}
	f.streams.close(agentID, errRevoked)
	closed := f.conns.close(agentID)
	f.log.Info("agent revoked", "agent", agentID, "by", by, "reason", reason, "connections_closed", closed)
	return nil
}

// TLSConfig returns the configuration to serve agents with: TLS 1.3 only, and a
// client certificate, where one is given, must be a live one of our CA.
// Sessions are not resumed: a resumed one would outlive a renewal.
func (f *Fleet) TLSConfig() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		GetCertificate:         f.options.Server.GetCertificate,
		ClientAuth:             tls.VerifyClientCertIfGiven,
		ClientCAs:              f.ca.Pool(),
		SessionTicketsDisabled: true,
		NextProtos:             []string{"h2", "http/1.1"},
		Time:                   f.now,
		VerifyConnection:       f.verifyConnection,
	}
}

// Handler serves AgentService. It needs the connection's TLS state, so it must
// stand on a server with TLSConfig; Serve puts both together.
func (f *Fleet) Handler() http.Handler { return f.handler }
