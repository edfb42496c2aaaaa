package link

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"
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

// conn is one client to the mitigator with TCP connections of its own.
type conn struct {
	wirev1connect.AgentServiceClient
	transport *http.Transport

	mu     sync.Mutex
	opened []net.Conn
	closed bool
}

func dial(server string, config *tls.Config) *conn {
	c := &conn{}
	c.transport = &http.Transport{
		DialContext:         c.dial,
		TLSClientConfig:     config,
		TLSHandshakeTimeout: dialTimeout,
		ForceAttemptHTTP2:   true,
		DisableCompression:  true,
		HTTP2:               &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
	}
	client := &http.Client{Transport: c.transport, CheckRedirect: noRedirects}
	c.AgentServiceClient = wirev1connect.NewAgentServiceClient(client, "https://"+server,
		connect.WithReadMaxBytes(maxMessageSize),
		connect.WithAcceptCompression("gzip", nil, nil),
	)
	return c
}

func (c *conn) dial(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := &net.Dialer{Timeout: dialTimeout}
	opened, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errors.Join(net.ErrClosed, opened.Close())
	}
	c.opened = append(c.opened, opened)
	return opened, nil
}

// close ends the client and its connections, also those that a call that was
// just cancelled still holds: the transport would keep them open.
func (c *conn) close() {
	c.transport.CloseIdleConnections()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, opened := range c.opened {
		// The only error is that it is closed already.
		_ = opened.Close()
	}
	c.opened = nil
}

func noRedirects(*http.Request, []*http.Request) error {
	return errors.New("the mitigator answered with a redirect, which agents do not follow")
}

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
