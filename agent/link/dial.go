package link

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"github.com/cordon-security/cordon/internal/wire/v1/wirev1connect"
)

const (
	dialTimeout = 15 * time.Second
	callTimeout = 60 * time.Second
	pingAfter   = 30 * time.Second
	pingTimeout = 15 * time.Second

	// maxMessageSize is what the mitigator takes in one message, and what the
	// agent takes from it.
	maxMessageSize = 4 << 20
)

// conn is one client to the mitigator with connections of its own.
type conn struct {
	wirev1connect.AgentServiceClient
	transport *http.Transport
}

func dial(server string, config *tls.Config) *conn {
	dialer := &net.Dialer{Timeout: dialTimeout}
	t := &http.Transport{
		DialContext:         dialer.DialContext,
		TLSClientConfig:     config,
		TLSHandshakeTimeout: dialTimeout,
		ForceAttemptHTTP2:   true,
		DisableCompression:  true,
		HTTP2:               &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
	}
	client := wirev1connect.NewAgentServiceClient(&http.Client{Transport: t, CheckRedirect: noRedirects}, "https://"+server,
		connect.WithReadMaxBytes(maxMessageSize),
		connect.WithAcceptCompression("gzip", nil, nil),
	)
	return &conn{AgentServiceClient: client, transport: t}
}

func noRedirects(*http.Request, []*http.Request) error {
	return errors.New("the mitigator answered with a redirect, which agents do not follow")
}

// close closes the connections that no call uses; cancel the calls first.
func (c *conn) close() { c.transport.CloseIdleConnections() }

// refusedByPeer reports whether the peer ended the handshake with an alert:
// it did not take the agent's certificate.
func refusedByPeer(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

// sleep waits, or returns false when the context ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
