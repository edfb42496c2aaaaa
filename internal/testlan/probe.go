package testlan

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// ErrNoReply is returned by Ping when nothing came back in time.
var ErrNoReply = errors.New("no reply")

// pingEvery is the pause between two echo requests of one Ping.
const pingEvery = 200 * time.Millisecond

// Ping sends ICMP echo requests from the host to an address until one is
// answered, and returns that one's round trip. Without an answer within the
// time-out the error wraps ErrNoReply.
func (h *Host) Ping(ctx context.Context, to netip.Addr, timeout time.Duration) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	network, local, kind := "ip4:icmp", "0.0.0.0", icmp.Type(ipv4.ICMPTypeEcho)
	if to.Is6() {
		network, local, kind = "ip6:ipv6-icmp", "::", ipv6.ICMPTypeEchoRequest
	}
	var conn *icmp.PacketConn
	err := h.NetNS(func() (err error) {
		conn, err = icmp.ListenPacket(network, local)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("ping from %s: %w", h.name, err)
	}
	defer conn.Close()
	p := pinger{conn: conn, to: &net.IPAddr{IP: to.AsSlice(), Zone: to.Zone()}, kind: kind, mark: make([]byte, 16)}
	if _, err := rand.Read(p.mark); err != nil {
		return 0, err
	}
	var last error
	for seq := 1; ctx.Err() == nil; seq++ {
		rtt, err := p.once(seq)
		if err == nil {
			return rtt, nil
		}
		last = err
	}
	return 0, fmt.Errorf("ping %s from %s: %w (%w)", to, h.name, ErrNoReply, last)
}

// pinger sends echo requests that carry a mark of its own.
type pinger struct {
	conn *icmp.PacketConn
	to   *net.IPAddr
	kind icmp.Type
	mark []byte
}

// once sends one request and waits pingEvery for its answer.
func (p *pinger) once(seq int) (time.Duration, error) {
	id := int(p.mark[0])<<8 | int(p.mark[1])
	request, err := (&icmp.Message{Type: p.kind, Body: &icmp.Echo{ID: id, Seq: seq, Data: p.mark}}).Marshal(nil)
	if err != nil {
		return 0, err
	}
	sent := time.Now()
	deadline := sent.Add(pingEvery)
	if _, err := p.conn.WriteTo(request, p.to); err != nil {
		time.Sleep(pingEvery) // no route, or dropped by a local rule: it may change
		return 0, err
	}
	if err := p.conn.SetReadDeadline(deadline); err != nil {
		return 0, err
	}
	buf := make([]byte, 1500)
	for {
		n, _, err := p.conn.ReadFrom(buf)
		if err != nil {
			return 0, err
		}
		if p.answers(buf[:n], seq) {
			return time.Since(sent), nil
		}
	}
}

func (p *pinger) answers(packet []byte, seq int) bool {
	m, err := icmp.ParseMessage(p.kind.Protocol(), packet)
	if err != nil || (m.Type != ipv4.ICMPTypeEchoReply && m.Type != ipv6.ICMPTypeEchoReply) {
		return false
	}
	echo, ok := m.Body.(*icmp.Echo)
	return ok && echo.Seq == seq && bytes.Equal(echo.Data, p.mark)
}

// HTTPClient returns a client whose connections start at the host. Addresses
// in URLs are IP literals. Redirects are not followed.
func (h *Host) HTTPClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext:       h.Dial,
			DisableKeepAlives: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Fetch gets a page by HTTP from the host and returns its text, at most 1 MiB.
// A status other than 200 is an error.
func (h *Host) Fetch(ctx context.Context, url string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", fmt.Errorf("fetch from %s: %w", h.name, err)
	}
	answer, err := h.HTTPClient().Do(request)
	if err != nil {
		return "", fmt.Errorf("fetch from %s: %w", h.name, err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		return "", fmt.Errorf("fetch %s from %s: %w", url, h.name, err)
	}
	if answer.StatusCode != http.StatusOK {
		return string(body), fmt.Errorf("fetch %s from %s: %s", url, h.name, answer.Status)
	}
	return string(body), nil
}

// Resolve asks a name server, over UDP from the host, for a name's addresses
// of both families. A name that does not exist gives none and no error.
func (h *Host) Resolve(ctx context.Context, server netip.AddrPort, name string) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
		addrs, err := h.query(ctx, server, name, kind)
		if err != nil {
			return nil, fmt.Errorf("resolve %s from %s: %w", name, h.name, err)
		}
		out = append(out, addrs...)
	}
	return out, nil
}

func (h *Host) query(ctx context.Context, server netip.AddrPort, name string, kind uint16) ([]netip.Addr, error) {
	conn, err := h.Dial(ctx, "udp", server.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	question := new(dns.Msg).SetQuestion(dns.Fqdn(name), kind)
	client := dns.Client{Timeout: time.Minute} // ctx is what ends it
	answer, _, err := client.ExchangeWithConn(question, &dns.Conn{Conn: conn})
	if errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, r := range answer.Answer {
		var ip net.IP
		switch r := r.(type) {
		case *dns.A:
			ip = r.A.To4()
		case *dns.AAAA:
			ip = r.AAAA
		}
		if a, ok := netip.AddrFromSlice(ip); ok {
			out = append(out, a)
		}
	}
	return out, nil
}
