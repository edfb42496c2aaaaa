package main

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/cordon-security/cordon/enforcer/nft"
	"github.com/cordon-security/cordon/internal/config"
	"github.com/cordon-security/cordon/internal/guard"
)

// Config is the configuration file of cordon-enforcer.
type Config struct {
	// Name is the device's name in statuses, timelines and logs.
	Name string `yaml:"name" doc:"The device's name in statuses, timelines and logs."`
	// StateDir holds the desired set and the break-glass marker.
	StateDir string `yaml:"state_dir" doc:"Directory of the desired set and the break-glass marker; it must survive a reboot."`
	// Socket is where orders come in.
	Socket string `yaml:"socket" doc:"Unix socket that takes orders."`
	// SocketGroup may connect to the socket.
	SocketGroup string `yaml:"socket_group" doc:"Group that may connect to the socket; empty leaves the group as it is."`
	// Protected is what this device never cuts off, whatever it is ordered.
	Protected Protected `yaml:"protected"`
	// Cap limits how many may be cut off.
	Cap Cap `yaml:"cap"`
	// Allow is what endpoints with limited access may reach.
	Allow []Allow `yaml:"allow"`
}

// Protected is the device's own protected list. Its own addresses and MACs and
// its default gateways are on it by themselves.
type Protected struct {
	// Addresses are single addresses and networks.
	Addresses []Network `yaml:"addresses" doc:"Addresses and networks that are never blocked."`
	// MACs are what is never quarantined.
	MACs []config.MAC `yaml:"macs" doc:"MAC addresses that are never quarantined."`
}

// Cap is the device's own cap; no order can loosen it.
type Cap struct {
	// MaxAtOnce is how many MACs may be quarantined.
	MaxAtOnce int `yaml:"max_at_once" doc:"How many MAC addresses may be quarantined at once; 0 does not limit."`
	// MaxNew is how many may begin to be within Window.
	MaxNew int `yaml:"max_new" doc:"How many MAC addresses may begin to be quarantined within the window; 0 does not limit."`
	// Window slides.
	Window time.Duration `yaml:"window" doc:"The sliding window that max_new counts in."`
}

// Allow is one thing that endpoints with limited access may reach.
type Allow struct {
	// Prefix is an address or a network.
	Prefix Network `yaml:"prefix" doc:"Address or network that limited access may reach."`
	// Protocol is tcp, udp or empty for everything.
	Protocol string `yaml:"protocol" doc:"tcp, udp, or empty for everything."`
	// Port is the port there; 0 means every port.
	Port uint16 `yaml:"port" doc:"Port there; 0 means every port."`
}

// Network is an address or a network in a configuration file.
type Network netip.Prefix

// UnmarshalText parses 192.0.2.1, 192.0.2.0/24 and the same of IPv6.
func (n *Network) UnmarshalText(text []byte) error {
	if a, err := netip.ParseAddr(string(text)); err == nil && a.Zone() == "" {
		*n = Network(netip.PrefixFrom(a, a.BitLen()))
		return nil
	}
	p, err := netip.ParsePrefix(string(text))
	if err != nil {
		return fmt.Errorf("%q is neither an address nor a network (write 192.0.2.1 or 192.0.2.0/24)", text)
	}
	*n = Network(p)
	return nil
}

// MarshalText writes a network, or the address alone when it is one.
func (n Network) MarshalText() ([]byte, error) {
	p := netip.Prefix(n)
	if p.IsSingleIP() {
		return []byte(p.Addr().String()), nil
	}
	return []byte(p.String()), nil
}

func defaults() Config {
	return Config{
		Name: "enforcer", StateDir: "/var/lib/cordon/enforcer", Socket: "/run/cordon/enforcer.sock",
		Cap: Cap{MaxAtOnce: 64, MaxNew: 16, Window: time.Hour},
	}
}

// Validate refuses everything that cannot work, each with its key.
func (c *Config) Validate() error {
	var errs []error
	if c.Name == "" {
		errs = append(errs, config.Invalid("name", "must not be empty"))
	}
	for key, path := range map[string]string{"state_dir": c.StateDir, "socket": c.Socket} {
		if !filepath.IsAbs(path) {
			errs = append(errs, config.Invalid(key, "must be an absolute path, not %q", path))
		}
	}
	if _, err := guard.New(c.protected(), guard.Cap{}); err != nil {
		errs = append(errs, config.Invalid("protected", "%w", err))
	}
	if _, err := guard.New(nil, c.limit()); err != nil {
		errs = append(errs, config.Invalid("cap", "%w", err))
	}
	for i, a := range c.Allow {
		key := fmt.Sprintf("allow[%d]", i)
		if !netip.Prefix(a.Prefix).IsValid() {
			errs = append(errs, config.Invalid(key+".prefix", "is missing"))
		}
		if _, ok := protocols[a.Protocol]; !ok {
			errs = append(errs, config.Invalid(key+".protocol", "must be tcp, udp or empty, not %q", a.Protocol))
		}
		if a.Port != 0 && a.Protocol == "" {
			errs = append(errs, config.Invalid(key+".port", "needs a protocol, tcp or udp"))
		}
	}
	return errors.Join(errs...)
}

var protocols = map[string]uint8{"": 0, "tcp": 6, "udp": 17}

func (c *Config) limit() guard.Cap {
	return guard.Cap{AtOnce: c.Cap.MaxAtOnce, New: c.Cap.MaxNew, Window: c.Cap.Window}
}

// protected is the configured list. A single address that limited access may
// reach is on it too: blocking it would take the mitigator out of reach.
func (c *Config) protected() []guard.Protected {
	var out []guard.Protected
	for _, p := range c.Protected.Addresses {
		out = append(out, guard.Protected{Prefix: netip.Prefix(p), Origin: "protected.addresses"})
	}
	for _, m := range c.Protected.MACs {
		if mac, err := guard.MACFrom(m); err == nil {
			out = append(out, guard.Protected{MAC: mac, Origin: "protected.macs"})
		}
	}
	for _, a := range c.Allow {
		if p := netip.Prefix(a.Prefix); p.IsValid() && p.IsSingleIP() {
			out = append(out, guard.Protected{Prefix: p, Origin: "allow"})
		}
	}
	return out
}

func (c *Config) allowed() []nft.Allowed {
	var out []nft.Allowed
	for _, a := range c.Allow {
		out = append(out, nft.Allowed{Prefix: netip.Prefix(a.Prefix).Masked(), Protocol: protocols[a.Protocol], Port: a.Port})
	}
	return out
}
