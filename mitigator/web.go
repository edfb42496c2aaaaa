package mitigator

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

const (
	webHeaderTimeout = 10 * time.Second
	webReadTimeout   = 30 * time.Second
	webWriteTimeout  = 2 * time.Minute
	webIdleTimeout   = 2 * time.Minute
	webHeaderBytes   = 32 << 10
	webConnections   = 512
	// webShare is how many of them one source may have: many times what a browser
	// opens.
	webShare       = 64
	webStopTimeout = 5 * time.Second

	// agentConnections is for all agents; agentShare for those behind one address,
	// as a branch office behind a NAT.
	agentConnections = 65_536
	agentShare       = 8192
)

// serveWeb serves administrators and browsers until ctx ends.
func (m *Mitigator) serveWeb(ctx context.Context, listener net.Listener) error {
	server := &http.Server{
		Handler:           m.web,
		TLSConfig:         &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: m.server.GetCertificate},
		ReadHeaderTimeout: webHeaderTimeout,
		ReadTimeout:       webReadTimeout,
		WriteTimeout:      webWriteTimeout,
		IdleTimeout:       webIdleTimeout,
		MaxHeaderBytes:    webHeaderBytes,
		// A browser that does not know the CA yet fails its handshake: not news.
		ErrorLog:    slog.NewLogLogger(m.log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	failed := make(chan error, 1)
	go func() { failed <- server.ServeTLS(newSharedListener(listener, webConnections, webShare), "", "") }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve administrators on %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), webStopTimeout)
	defer cancel()
	if server.Shutdown(stop) != nil {
		if err := server.Close(); err != nil {
			return fmt.Errorf("stop serving administrators: %w", err)
		}
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve administrators on %s: %w", listener.Addr(), err)
	}
	return nil
}
