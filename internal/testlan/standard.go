package testlan

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
)

// Addresses of the standard LAN, of which the outer ones are for documentation
// (RFC 5737, RFC 3849).
var (
	LANIPv4       = netip.MustParsePrefix("10.77.0.0/24")
	LANIPv6       = netip.MustParsePrefix("fd77::/64")
	ApplianceIPv4 = netip.MustParseAddr("10.77.0.1")
	ApplianceIPv6 = netip.MustParseAddr("fd77::1")
	AliceIPv4     = netip.MustParseAddr("10.77.0.10")
	AliceIPv6     = netip.MustParseAddr("fd77::10")
	BobIPv4       = netip.MustParseAddr("10.77.0.11")
	BobIPv6       = netip.MustParseAddr("fd77::11")
	PrinterIPv4   = netip.MustParseAddr("10.77.0.12")
	PrinterIPv6   = netip.MustParseAddr("fd77::12")

	UplinkIPv4 = netip.MustParseAddr("198.51.100.1")
	UplinkIPv6 = netip.MustParseAddr("2001:db8:100::1")
	C2IPv4     = netip.MustParseAddr("198.51.100.66")
	C2IPv6     = netip.MustParseAddr("2001:db8:100::66")
	WebIPv4    = netip.MustParseAddr("198.51.100.80")
	WebIPv6    = netip.MustParseAddr("2001:db8:100::80")
	DNSIPv4    = netip.MustParseAddr("198.51.100.53")
	DNSIPv6    = netip.MustParseAddr("2001:db8:100::53")
)

const (
	// C2Port is where the standard LAN's C2 listens.
	C2Port = 4444
	// C2WebPort is where it listens too: malware likes ports that are open
	// everywhere, and a sensor can tell from a low port who opened the flow.
	C2WebPort = 443
	// WebText is the page of the standard LAN's web server.
	WebText = "hello from the internet"
	// WebName and C2Name are names that the standard LAN's name server knows.
	WebName = "www.example.net"
	// C2Name is the C2's.
	C2Name = "update.example.org"

	// Bridge is the appliance's bridge; its ports are named after the hosts,
	// PortOf.
	Bridge = "br0"
	// Uplink is the appliance's interface to the internet.
	Uplink = "uplink"
	// Port is the one interface of every other host.
	Port = "eth0"
)

// PortOf names the appliance's port to a host.
func PortOf(host string) string { return "to-" + host }

// StandardOptions says how the standard LAN differs from its plain form.
type StandardOptions struct {
	Options
	// Binds are mounted in every host, such as the folder of built programs.
	Binds []Bind
	// Customize may change a host's options before it is made. Nil: no change.
	Customize func(host string, o *HostOptions)
	// NoSystemd makes alice a plain host, which starts faster.
	NoSystemd bool
}

// Standard is the LAN of the story: an appliance that is gateway and bridge;
// alice, who runs systemd, bob and a printer behind it; and an internet with a
// C2, a web server and a name server.
type Standard struct {
	*LAN
	Appliance, Alice, Bob, Printer, Internet *Host
	C2                                       *C2
}

// NewStandard makes the standard LAN and waits until it works, alice's systemd
// included.
func NewStandard(ctx context.Context, o StandardOptions) (*Standard, error) {
	lan, err := New(ctx, o.Options)
	if err != nil {
		return nil, err
	}
	s := &Standard{LAN: lan}
	if err := s.build(ctx, o); err != nil {
		return nil, errors.Join(err, lan.Close())
	}
	return s, nil
}

func (s *Standard) build(ctx context.Context, o StandardOptions) error {
	if err := s.addHosts(ctx, o); err != nil {
		return err
	}
	if err := s.cable(); err != nil {
		return err
	}
	if err := s.serve(ctx); err != nil {
		return err
	}
	if o.NoSystemd {
		return nil
	}
	_, err := s.Alice.WaitSystemd(ctx)
	return err
}

func (s *Standard) addHosts(ctx context.Context, o StandardOptions) error {
	for _, h := range []struct {
		name string
		host **Host
	}{
		{"alice", &s.Alice}, {"appliance", &s.Appliance}, {"bob", &s.Bob}, {"printer", &s.Printer}, {"internet", &s.Internet},
	} {
		ho := HostOptions{
			Systemd: h.name == "alice" && !o.NoSystemd,
			Binds:   o.Binds,
			DNS:     []netip.Addr{DNSIPv4},
			Names:   map[string]netip.Addr{"appliance": ApplianceIPv4, "alice": AliceIPv4, "bob": BobIPv4, "printer": PrinterIPv4},
		}
		delete(ho.Names, h.name) // its own name is its loopback's
		if o.Customize != nil {
			o.Customize(h.name, &ho)
		}
		host, err := s.AddHost(ctx, h.name, ho)
		if err != nil {
			return err
		}
		*h.host = host
	}
	return nil
}

// cable makes the links, addresses and routes.
func (s *Standard) cable() error {
	members := []struct {
		host   *Host
		v4, v6 netip.Addr
	}{{s.Alice, AliceIPv4, AliceIPv6}, {s.Bob, BobIPv4, BobIPv6}, {s.Printer, PrinterIPv4, PrinterIPv6}}
	var ports []string
	for _, m := range members {
		port := PortOf(m.host.name)
		if err := s.Connect(m.host, Port, s.Appliance, port); err != nil {
			return err
		}
		ports = append(ports, port)
	}
	if err := s.Connect(s.Internet, Port, s.Appliance, Uplink); err != nil {
		return err
	}
	outside4, outside6 := 24, 64
	errs := []error{
		s.Appliance.AddBridge(Bridge, ports...),
		s.Appliance.SetAddress(Bridge, netip.PrefixFrom(ApplianceIPv4, LANIPv4.Bits()), netip.PrefixFrom(ApplianceIPv6, LANIPv6.Bits())),
		s.Appliance.SetAddress(Uplink, netip.PrefixFrom(UplinkIPv4, outside4), netip.PrefixFrom(UplinkIPv6, outside6)),
		s.Appliance.Forward(),
	}
	for _, m := range members {
		errs = append(errs,
			m.host.SetAddress(Port, netip.PrefixFrom(m.v4, LANIPv4.Bits()), netip.PrefixFrom(m.v6, LANIPv6.Bits())),
			m.host.DefaultRoute(ApplianceIPv4), m.host.DefaultRoute(ApplianceIPv6))
	}
	for _, a := range []netip.Addr{C2IPv4, WebIPv4, DNSIPv4} {
		errs = append(errs, s.Internet.SetAddress(Port, netip.PrefixFrom(a, outside4)))
	}
	for _, a := range []netip.Addr{C2IPv6, WebIPv6, DNSIPv6} {
		errs = append(errs, s.Internet.SetAddress(Port, netip.PrefixFrom(a, outside6)))
	}
	return errors.Join(append(errs, s.Internet.DefaultRoute(UplinkIPv4), s.Internet.DefaultRoute(UplinkIPv6))...)
}

// serve starts the servers of the internet.
func (s *Standard) serve(ctx context.Context) error {
	c2, err := s.Internet.StartC2(ctx, C2Port, C2WebPort)
	if err != nil {
		return fmt.Errorf("start the C2: %w", err)
	}
	s.C2 = c2
	if _, err := s.Internet.StartWeb(ctx, WebText); err != nil {
		return fmt.Errorf("start the web server: %w", err)
	}
	_, err = s.Internet.StartNameserver(ctx, map[string][]netip.Addr{
		WebName: {WebIPv4, WebIPv6},
		C2Name:  {C2IPv4, C2IPv6},
	})
	if err != nil {
		return fmt.Errorf("start the name server: %w", err)
	}
	return nil
}
