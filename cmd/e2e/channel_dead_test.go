package e2e

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/cordon-security/cordon/internal/pki"
	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
	"github.com/cordon-security/cordon/internal/wire/v1/wirev1connect"
	"github.com/cordon-security/cordon/mitigator/fleet"
	"github.com/cordon-security/cordon/mitigator/fleet/fleettest"
)

// noticedWithin is half of the shortest time that a task has by default, so that
// one which went into a dead connection is known to wait for its agent long
// before it counts as unanswered.
const noticedWithin = 30 * time.Second

// memory is a network in memory with one server. Its connections have no buffers.
type memory struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newMemory() *memory { return &memory{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (n *memory) Accept() (net.Conn, error) {
	select {
	case c := <-n.conns:
		return c, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

func (n *memory) Close() error {
	n.once.Do(func() { close(n.closed) })
	return nil
}

func (n *memory) Addr() net.Addr { return &net.UnixAddr{Name: "memory", Net: "unix"} }

func (n *memory) dial(context.Context, string, string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case n.conns <- theirs:
		return ours, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

// cable is an agent's end of a connection that can be cut without the server's
// being told.
type cable struct {
	net.Conn
	cut atomic.Bool
	// buffers says that what the server writes after the cut is taken and lost;
	// else its writes hang.
	buffers bool
	pulled  chan struct{}
}

func (c *cable) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		if err != nil || !c.cut.Load() {
			return n, err
		}
		if !c.buffers {
			<-c.pulled
			return 0, net.ErrClosed
		}
	}
}

func (c *cable) Write(p []byte) (int, error) {
	if c.cut.Load() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func (c *cable) unplug() {
	close(c.pulled)
	if c.Conn != nil {
		// The only error is that it is closed already.
		_ = c.Conn.Close()
	}
}

// A connection that dies without a word is noticed while a task that was written
// to it can still wait for its agent, and one that is only idle stays.
func TestMitigatorNoticesDeadConnection(t *testing.T) {
	for name, buffers := range map[string]bool{"what is written is lost": true, "nothing is read": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { noticesDeadConnection(t, buffers) })
		})
	}
}

func noticesDeadConnection(t *testing.T, buffers bool) {
	ctx, cancel := context.WithCancel(t.Context())
	ca, err := pki.Open(pki.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	server, err := ca.NewServer([]string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	store, lifecycle := fleettest.NewStore(), fleettest.NewLifecycle()
	f, err := fleet.New(fleet.Options{
		CA: ca, Server: server, Store: store, Lifecycle: lifecycle, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	token, _, err := f.NewToken(ctx, "", "", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.EnrollAgent(ctx, token.Secret.Hash(), time.Now(), fleet.Agent{ID: "a"}); err != nil {
		t.Fatal(err)
	}
	network := newMemory()
	served := make(chan error, 1)
	go func() { served <- f.Serve(ctx, network) }()
	defer func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()

	line := &cable{buffers: buffers, pulled: make(chan struct{})}
	cert := clientCertificate(t, ca, pki.Identity{Role: pki.RoleAgent, ID: "a"})
	transport := &http.Transport{
		ForceAttemptHTTP2: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{cert}},
		DialContext: func(ctx context.Context, kind, address string) (net.Conn, error) {
			var err error
			line.Conn, err = network.dial(ctx, kind, address)
			return line, err
		},
	}
	defer transport.CloseIdleConnections()
	defer line.unplug()
	in, err := wirev1connect.NewAgentServiceClient(&http.Client{Transport: transport}, "https://memory").
		Tasks(t.Context(), connect.NewRequest(&wirev1.TasksRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for in.Receive() {
			continue
		}
	}()
	// Not a time at which a ping or a keep-alive is due as well.
	time.Sleep(10*time.Minute + 5*time.Second)
	if !f.Connected("a") || !lifecycle.Connected("a") {
		t.Fatal("an idle connection does not stay")
	}

	line.cut.Store(true)
	lifecycle.Add("a", newTask("1"))
	f.Wake("a")
	synctest.Wait()
	if lifecycle.Delivered("1") != 1 {
		t.Fatal("the task was not written to the dead connection")
	}
	time.Sleep(noticedWithin)
	synctest.Wait()
	if f.Connected("a") || lifecycle.Connected("a") {
		t.Errorf("the agent counts as connected %v after its connection died", noticedWithin)
	}
}
