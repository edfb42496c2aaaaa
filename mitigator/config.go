// Package mitigator puts the rooms of the mitigator together: data sources,
// life cycle, store, agents, enforcement devices, and what administrators use.
package mitigator

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"github.com/cordon-security/cordon/internal/config"
	"github.com/cordon-security/cordon/internal/guard"
	"github.com/cordon-security/cordon/internal/pki"
	"github.com/cordon-security/cordon/mitigator/intake"
	"github.com/cordon-security/cordon/mitigator/store"
	"github.com/cordon-security/cordon/mitigator/threat"
)

// Config is the configuration file of cordon-mitigator.
type Config struct {
	// StateDir holds the database, the CA and the administrators.
	StateDir string `yaml:"state_dir" doc:"Directory of the database, the certificate authority and the administrators; it must survive a reboot."`
	// Names are what the server certificate is valid for.
	Names []string `yaml:"names" doc:"Host names and addresses by which browsers reach the console; empty takes the machine's host name and its addresses at start."`
	// Agents is where agents connect.
	Agents ListenConfig `yaml:"agents" doc:"where agents connect"`
	// Admin is where administrators and browsers connect.
	Admin ListenConfig `yaml:"admin" doc:"where administrators and browsers connect"`

	intake.Config `yaml:",inline"`

	// Policy is what is decided beforehand.
	Policy threat.Policy `yaml:"policy" doc:"what is decided beforehand"`
	// Retention is how long what has ended is kept.
	Retention store.Retention `yaml:"retention" doc:"how long what has ended is kept"`
	// Protected is what is never cut off, wherever it is.
	Protected ProtectedConfig `yaml:"protected" doc:"what is never cut off, on any device"`
	// Cap limits how many may be cut off in the whole fleet.
	Cap CapConfig `yaml:"cap" doc:"how many endpoints may be cut off in the whole fleet; above it orders wait for a person"`
	// Devices has the enforcement device; a second one is refused for now.
	Devices []DeviceConfig `yaml:"devices" doc:"the enforcement device that carries quarantines out; one for now"`
}

// ListenConfig is one listener and how it is reached.
type ListenConfig struct {
	// Listen is the listener's own address.
	Listen string `yaml:"listen" doc:"HOST:PORT to listen on; [::] listens on every address."`
	// Address is how the others reach it.
	Address string `yaml:"address" doc:"HOST:PORT as others reach it, which new tokens carry; empty leaves it to the person who uses the token."`
}

// ProtectedConfig is the fleet's protected list. The mitigator's own addresses
// and MACs are on it by themselves.
type ProtectedConfig struct {
	// Addresses are networks; one address is a /32 or /128. An endpoint that has
	// one, and did not take it from another a moment ago, is never quarantined.
	Addresses []netip.Prefix `yaml:"addresses" doc:"Networks, as prefixes, whose machines are never quarantined; a machine that took such an address from another within 15 minutes is."`
	// MACs are what is never quarantined.
	MACs []config.MAC `yaml:"macs" doc:"MAC addresses that are never quarantined."`
}

// CapConfig is the fleet's cap; each device has its own beside it.
type CapConfig struct {
	// MaxAtOnce is how many quarantines may stand.
	MaxAtOnce int `yaml:"max_at_once" doc:"How many endpoints may be quarantined at once; 0 does not limit."`
	// MaxNew is how many may begin to be within Window.
	MaxNew int `yaml:"max_new" doc:"How many quarantines may begin within the window; 0 does not limit."`
	// Window slides.
	Window time.Duration `yaml:"window" doc:"The sliding window that max_new counts in."`
}

// DeviceConfig is one enforcement device.
type DeviceConfig struct {
	// Name stands in timelines and on the console.
	Name string `yaml:"name" doc:"The device's name in timelines and on the console."`
	// Socket is the path of its Unix socket.
	Socket string `yaml:"socket" doc:"Path of the device's Unix socket."`
}

// DefaultConfig is what holds without a configuration file: everything listens,
// nothing is enforced, and no data source is read.
func DefaultConfig() Config {
	return Config{
		StateDir: "/var/lib/cordon/mitigator",
		Agents:   ListenConfig{Listen: "[::]:7443"},
		Admin:    ListenConfig{Listen: "[::]:8443"},
		Config:   intake.Config{Filters: intake.FilterConfig{MaxAge: 24 * time.Hour}},
		Policy:   threat.DefaultPolicy(), Retention: store.DefaultRetention(),
		Cap:     CapConfig{MaxAtOnce: 64, MaxNew: 16, Window: time.Hour},
		Devices: []DeviceConfig{{Name: "built-in", Socket: "/run/cordon/enforcer.sock"}},
	}
}

// Validate says everything that cannot work.
func (c *Config) Validate() error {
	var errs []error
	if !filepath.IsAbs(c.StateDir) || filepath.Clean(c.StateDir) == "/" {
		errs = append(errs, config.Invalid("state_dir", "must be an absolute path to a directory of its own"))
	}
	for key, l := range map[string]ListenConfig{"agents": c.Agents, "admin": c.Admin} {
		if _, _, err := net.SplitHostPort(l.Listen); err != nil {
			errs = append(errs, config.Invalid(key+".listen", "must be HOST:PORT, as in [::]:7443, not %q", l.Listen))
		}
		if l.Address == "" {
			continue
		}
		if err := pki.CheckServer(l.Address); err != nil {
			errs = append(errs, config.Invalid(key+".address", "must be HOST:PORT: %w", err))
		}
	}
	errs = append(errs, c.Config.Validate(), c.Policy.Validate(), c.Retention.Validate(), c.validateGuard(), c.validateDevices())
	return errors.Join(errs...)
}

func (c *Config) validateGuard() error {
	if c.Cap.MaxAtOnce < 0 || c.Cap.MaxNew < 0 || c.Cap.Window < 0 {
		return config.Invalid("cap", "must not have negative values")
	}
	if c.Cap.MaxNew > 0 && c.Cap.Window == 0 {
		return config.Invalid("cap.window", "must be more than 0 for max_new to count in it")
	}
	if _, err := guard.New(c.protected(), c.limit()); err != nil {
		return config.Invalid("protected", "%w", err)
	}
	var errs []error
	for i, p := range c.Protected.Addresses {
		// One machine's address with the mask of its network would protect them all,
		// and nothing would ever be cut off.
		if p.IsValid() && p != p.Masked() {
			errs = append(errs, config.Invalid(fmt.Sprintf("protected.addresses[%d]", i),
				"%s has bits below its mask; did you mean %s, or all of %s?", p, netip.PrefixFrom(p.Addr(), p.Addr().BitLen()), p.Masked()))
		}
	}
	return errors.Join(errs...)
}

func (c *Config) validateDevices() error {
	var errs []error
	if len(c.Devices) > 1 {
		// What is in force is kept a quarantine, not a device: of two, the one that
		// spoke last would stand for both.
		errs = append(errs, config.Invalid("devices[1]", "there can be one enforcement device for now"))
	}
	names, sockets := map[string]bool{}, map[string]bool{}
	for i, d := range c.Devices {
		if d.Name == "" || names[d.Name] {
			errs = append(errs, config.Invalid(fmt.Sprintf("devices[%d].name", i), "must be there, and unlike the others"))
		}
		names[d.Name] = true
		if !filepath.IsAbs(d.Socket) {
			errs = append(errs, config.Invalid(fmt.Sprintf("devices[%d].socket", i), "must be an absolute path, not %q", d.Socket))
		} else if path := filepath.Clean(d.Socket); sockets[path] {
			errs = append(errs, config.Invalid(fmt.Sprintf("devices[%d].socket", i), "%q is another device's already", d.Socket))
		}
		sockets[filepath.Clean(d.Socket)] = true
	}
	return errors.Join(errs...)
}

func (c *Config) limit() guard.Cap {
	return guard.Cap{AtOnce: c.Cap.MaxAtOnce, New: c.Cap.MaxNew, Window: c.Cap.Window}
}

func (c *Config) protected() []guard.Protected {
	var out []guard.Protected
	for _, p := range c.Protected.Addresses {
		out = append(out, guard.Protected{Prefix: p, Origin: "the mitigator's protected.addresses"})
	}
	for _, m := range c.Protected.MACs {
		if mac, err := guard.MACFrom(m); err == nil {
			out = append(out, guard.Protected{MAC: mac, Origin: "the mitigator's protected.macs"})
		}
	}
	return out
}

// serverNames are what the certificate is for.
func (c *Config) serverNames(hostname string, own []netip.Addr) []string {
	if len(c.Names) > 0 {
		return c.Names
	}
	names := []string{"localhost"}
	if hostname != "" && hostname != "localhost" {
		names = append(names, hostname)
	}
	for _, a := range own {
		names = append(names, a.String())
	}
	slices.Sort(names)
	return slices.Compact(names)
}
