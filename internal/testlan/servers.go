package testlan

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// StartWeb starts a web server on port 80 of all addresses of the host. Every
// page of it is the given text.
func (h *Host) StartWeb(ctx context.Context, text string) (*Process, error) {
	p, err := h.startActor(ctx, webActor, text)
	if err != nil {
		return nil, err
	}
	probe := func(ctx context.Context) error { _, err := h.Fetch(ctx, "http://127.0.0.1/"); return err }
	return p, h.waitServing(ctx, p, probe)
}

func runWeb(args []string) error {
	text := strings.Join(args, " ")
	return http.ListenAndServe(":80", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, text)
	}))
}

// StartNameserver starts a name server on port 53, UDP and TCP, of all
// addresses of the host. It knows the given names; others do not exist.
func (h *Host) StartNameserver(ctx context.Context, names map[string][]netip.Addr) (*Process, error) {
	var args []string
	for name, addrs := range names {
		for _, a := range addrs {
			args = append(args, name+"="+a.String())
		}
	}
	p, err := h.startActor(ctx, nameserverActor, args...)
	if err != nil {
		return nil, err
	}
	probe := func(ctx context.Context) error {
		return h.DialTCP(ctx, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 53))
	}
	return p, h.waitServing(ctx, p, probe)
}

func runNameserver(args []string) error {
	zone := nameserver{}
	for _, arg := range args {
		name, text, _ := strings.Cut(arg, "=")
		a, err := netip.ParseAddr(text)
		if err != nil {
			return fmt.Errorf("name %s: %w", name, err)
		}
		key := dns.CanonicalName(name)
		zone[key] = append(zone[key], a)
	}
	udp, err := net.ListenPacket("udp", ":53")
	if err != nil {
		return err
	}
	failed := make(chan error, 2)
	go func() { failed <- (&dns.Server{PacketConn: udp, Handler: zone}).ActivateAndServe() }()
	go func() { failed <- (&dns.Server{Addr: ":53", Net: "tcp", Handler: zone}).ListenAndServe() }()
	return errors.Join(errors.New("name server ended"), <-failed)
}

// nameserver maps canonical names to their addresses.
type nameserver map[string][]netip.Addr

// ServeDNS answers one question.
func (z nameserver) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg).SetReply(q)
	m.Authoritative = true
	if len(q.Question) != 1 {
		m.Rcode = dns.RcodeFormatError
		_ = w.WriteMsg(m) // the asker asks again
		return
	}
	name, kind := q.Question[0].Name, q.Question[0].Qtype
	addrs, ok := z[dns.CanonicalName(name)]
	if !ok {
		m.Rcode = dns.RcodeNameError
	}
	for _, a := range addrs {
		header := dns.RR_Header{Name: name, Class: dns.ClassINET, Ttl: 60}
		switch {
		case kind == dns.TypeA && a.Is4():
			header.Rrtype = dns.TypeA
			m.Answer = append(m.Answer, &dns.A{Hdr: header, A: a.AsSlice()})
		case kind == dns.TypeAAAA && a.Is6():
			header.Rrtype = dns.TypeAAAA
			m.Answer = append(m.Answer, &dns.AAAA{Hdr: header, AAAA: a.AsSlice()})
		}
	}
	_ = w.WriteMsg(m) // the asker asks again
}
