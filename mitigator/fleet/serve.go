package fleet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/netutil"
)

const (
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 60 * time.Second
	maxHeaderBytes    = 16 << 10
	// maxStreams is an agent's calls at a time on one connection: its Tasks
	// stream and a few short ones.
	maxStreams  = 16
	headerTable = 256
	// A connection that brought nothing for pingAfter is asked for an answer, and
	// is dead without one within pingTimeout. Both together are well below the
	// minute that an assessment may take, so that a task which went into a dead
	// connection waits for the agent again before it counts as unanswered.
	pingAfter       = 10 * time.Second
	pingTimeout     = 10 * time.Second
	shutdownTimeout = 5 * time.Second
)

// Serve serves agents on a TCP listener until the context ends, and then closes
// it and all connections. It returns nil when the context ended.
func (f *Fleet) Serve(ctx context.Context, listener net.Listener) error {
	server := &http.Server{
		Handler:           f.handler,
		TLSConfig:         f.TLSConfig(),
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ConnState:         f.connState,
		ErrorLog:          slog.NewLogLogger(f.log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams,
			// An agent sends a handful of headers; a table of 4 kB on each side of
			// each idle connection is not worth its memory.
			MaxDecoderHeaderTableSize: headerTable,
			MaxEncoderHeaderTableSize: headerTable,
			SendPingTimeout:           pingAfter,
			PingTimeout:               pingTimeout,
			WriteByteTimeout:          sendTimeout,
		},
	}
	failed := make(chan error, 1)
	go func() {
		failed <- server.ServeTLS(netutil.LimitListener(listener, f.options.MaxConnections), "", "")
	}()
	select {
	case err := <-failed:
		return fmt.Errorf("serve agents on %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	f.streams.closeAll(errStopping)
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	err := server.Shutdown(stop)
	if err != nil {
		err = server.Close()
	}
	if served := <-failed; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	if err != nil {
		return fmt.Errorf("stop serving agents on %s: %w", listener.Addr(), err)
	}
	return nil
}

// connState keeps the connections of each agent known, so that Revoke can close
// them. HTTP/2 connections reach StateActive after the handshake.
func (f *Fleet) connState(c net.Conn, state http.ConnState) {
	conn, ok := c.(*tls.Conn)
	if !ok {
		return
	}
	switch state {
	case http.StateActive:
		f.registerConn(conn)
	case http.StateClosed, http.StateHijacked:
		f.conns.remove(conn)
	}
}

func (f *Fleet) registerConn(conn *tls.Conn) {
	if f.conns.known(conn) {
		return
	}
	state := conn.ConnectionState()
	id, err := agentOf(state.PeerCertificates)
	if err != nil {
		return
	}
	f.conns.add(id, conn)
	// A revocation between the handshake's check and this line has not seen
	// this connection.
	if errors.Is(f.checkAgent(context.Background(), id), errRevoked) {
		f.conns.close(id)
	}
}
