package testlan

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// c2StatusPort is where a C2 answers, on its host's loopback only, what it has
// seen.
const c2StatusPort = 8666

// Connection is one connection that a C2 has accepted.
type Connection struct {
	// Remote is the endpoint's side of it.
	Remote netip.AddrPort `json:"remote"`
	// Name and PID are what the payload said of itself; PID is that of its host.
	Name string `json:"name"`
	PID  int    `json:"pid"`
	// Beacons counts what came in; Last is when the last one did.
	Beacons int       `json:"beacons"`
	Since   time.Time `json:"since"`
	Last    time.Time `json:"last"`
	// Open: the C2 has seen no end of it. A connection that was cut without a
	// word stays open; its Last stands still.
	Open bool `json:"open"`
}

// C2 is a command-and-control server that runs on a host. It is as harmless as
// the payloads that call it: it answers "ok".
type C2 struct {
	*Process
	host *Host
}

// StartC2 starts a C2 on the host that listens on ports, of all its addresses.
// A host has one at most.
func (h *Host) StartC2(ctx context.Context, ports ...uint16) (*C2, error) {
	var args []string
	for _, p := range ports {
		args = append(args, strconv.Itoa(int(p)))
	}
	p, err := h.startActor(ctx, c2Actor, args...)
	if err != nil {
		return nil, err
	}
	c := &C2{Process: p, host: h}
	if err := h.waitServing(ctx, p, func(ctx context.Context) error { _, err := c.Status(ctx); return err }); err != nil {
		return nil, err
	}
	return c, nil
}

// Status returns the connections that the C2 has accepted, oldest first.
func (c *C2) Status(ctx context.Context) ([]Connection, error) {
	body, err := c.host.Fetch(ctx, fmt.Sprintf("http://127.0.0.1:%d/", c2StatusPort))
	if err != nil {
		return nil, err
	}
	var out []Connection
	if err := json.Unmarshal([]byte(body), &out); err != nil {
		return nil, fmt.Errorf("status of the C2 on %s: %w", c.host.name, err)
	}
	return out, nil
}

// WaitFor polls the status until it is as wanted, and returns it.
func (c *C2) WaitFor(ctx context.Context, wanted func([]Connection) bool) ([]Connection, error) {
	for {
		status, err := c.Status(ctx)
		if err == nil && wanted(status) {
			return status, nil
		}
		select {
		case <-ctx.Done():
			return status, fmt.Errorf("the C2 on %s has %d connections, not the wanted ones: %w", c.host.name, len(status), errors.Join(ctx.Err(), err))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Receiving returns the connections from an address on which beacons came
// after a time.
func Receiving(status []Connection, from netip.Addr, after time.Time) []Connection {
	return slices.DeleteFunc(slices.Clone(status), func(c Connection) bool {
		return c.Remote.Addr() != from || !c.Open || c.Beacons == 0 || !c.Last.After(after)
	})
}

// waitServing polls until a server that was started answers.
func (h *Host) waitServing(ctx context.Context, p *Process, probe func(context.Context) error) error {
	for {
		err := probe(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.Done():
			return fmt.Errorf("%s on %s ended: %w", p.cmd.Args[0], h.name, errors.Join(p.Wait(), err))
		case <-ctx.Done():
			return fmt.Errorf("%s on %s does not answer: %w", p.cmd.Args[0], h.name, errors.Join(ctx.Err(), err, p.Kill()))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// beaconServer is the C2 itself, in its own process.
type beaconServer struct {
	mu          sync.Mutex
	connections []*Connection
}

func runC2(args []string) error {
	flags := flag.NewFlagSet(c2Actor, flag.ContinueOnError)
	if err := flags.Parse(args); err != nil {
		return err
	}
	s := &beaconServer{}
	for _, port := range flags.Args() {
		l, err := net.Listen("tcp", net.JoinHostPort("", port))
		if err != nil {
			return err
		}
		go s.accept(l)
	}
	return http.ListenAndServe(fmt.Sprintf("127.0.0.1:%d", c2StatusPort), s)
}

func (s *beaconServer) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		go s.serve(conn)
	}
}

func (s *beaconServer) serve(conn net.Conn) {
	defer conn.Close()
	remote, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return
	}
	now := time.Now()
	c := &Connection{Remote: netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port()), Since: now, Last: now, Open: true}
	s.mu.Lock()
	s.connections = append(s.connections, c)
	s.mu.Unlock()
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		s.mu.Lock()
		c.note(lines.Text(), time.Now())
		s.mu.Unlock()
		if _, err := conn.Write([]byte("ok\n")); err != nil {
			break
		}
	}
	s.mu.Lock()
	c.Open = false
	s.mu.Unlock()
}

// note takes in one line: "beacon NAME PID".
func (c *Connection) note(line string, at time.Time) {
	c.Beacons++
	c.Last = at
	fields := strings.Fields(line)
	if len(fields) < 3 {
		return
	}
	c.Name = fields[1]
	if pid, err := strconv.Atoi(fields[2]); err == nil {
		c.PID = pid
	}
}

// ServeHTTP writes the status as JSON.
func (s *beaconServer) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(s.connections) // the caller has hung up: nobody to tell
}
