package intake

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/cordon-security/cordon/internal/config"
	"github.com/cordon-security/cordon/mitigator/event"
)

// The kinds of source that SourceConfig.Kind takes.
const (
	KindSuricataFile   = "suricata-file"
	KindSuricataSocket = "suricata-socket"
)

// Config is the intake's part of the mitigator's configuration.
type Config struct {
	// HomeNetworks says which addresses are ours.
	HomeNetworks HomeNetworksConfig `yaml:"home_networks" doc:"which addresses are endpoints of ours"`
	// Sources are read side by side.
	Sources []SourceConfig `yaml:"sources" doc:"the detectors whose events are read"`
	// Filters say which events may become threats; the others are logged only.
	Filters FilterConfig `yaml:"filters" doc:"which events may become threats; all are logged"`
	// Exceptions name events that are known and harmless here.
	Exceptions []ExceptionConfig `yaml:"exceptions" doc:"events that are known and harmless here: logged, never a threat"`
}

// HomeNetworksConfig says which addresses are ours.
type HomeNetworksConfig struct {
	// Include holds prefixes; one address is a /32 or /128.
	Include []netip.Prefix `yaml:"include" doc:"networks whose machines are ours, as prefixes"`
	// Exclude holds parts of them that are nobody's endpoint.
	Exclude []netip.Prefix `yaml:"exclude" doc:"parts of them that are no endpoints"`
}

// SourceConfig names one data source.
type SourceConfig struct {
	// Name is unique; it stands in events, logs and the status. Renaming a source
	// makes it start anew.
	Name string `yaml:"name" doc:"unique name; a renamed source starts anew"`
	// Kind is suricata-file or suricata-socket.
	Kind string `yaml:"kind" doc:"suricata-file or suricata-socket"`
	// Path is absolute: the file that the detector writes, or the socket that
	// Cordon makes.
	Path string `yaml:"path" doc:"absolute path of the file that is read, or of the socket that Cordon makes"`
	// Datagram makes the socket one for the detector's unix_dgram.
	Datagram bool `yaml:"datagram" doc:"suricata-socket: the detector writes unix_dgram, not unix_stream"`
}

// FilterConfig says which events may become threats.
type FilterConfig struct {
	// MinSeverity is the lowest that passes.
	MinSeverity event.Severity `yaml:"min_severity" doc:"lowest severity that may become a threat: info, low, medium, high, critical"`
	// MaxAge is how old an event may be to pass; 0 for any age.
	MaxAge time.Duration `yaml:"max_age" doc:"how old an event may be to become a threat, by its own time; 0: any age"`
	// Signatures, when not empty, are the only ones that pass.
	Signatures []uint32 `yaml:"signatures" doc:"signature ids; when given, only these may become threats"`
	// ExcludeSignatures never pass.
	ExcludeSignatures []uint32 `yaml:"exclude_signatures" doc:"signature ids that never become threats"`
}

// ExceptionConfig matches an event when everything that it names fits.
type ExceptionConfig struct {
	// Signature is an id; 0 for any.
	Signature uint32 `yaml:"signature" doc:"signature id; left out: any"`
	// Addresses match either side of the event; empty for any.
	Addresses []netip.Prefix `yaml:"addresses" doc:"prefixes, one of which holds either side of the event; left out: any"`
	// Expires is when it stops to count; zero for never.
	Expires time.Time `yaml:"expires" doc:"when it ends, RFC 3339; left out: never"`
	// Comment says why; it is logged with the events.
	Comment string `yaml:"comment" doc:"why; shown with every event that it matches"`
}

// Validate reports everything that is wrong, each with its key and what to do.
func (c Config) Validate() error {
	var errs []error
	// One without sources has nothing to decide about.
	if len(c.HomeNetworks.Include) == 0 && len(c.Sources) > 0 {
		errs = append(errs, config.Invalid("home_networks.include", "is empty: without it no endpoint is ours; name the LAN's prefixes"))
	}
	errs = append(errs, checkPrefixes(c.HomeNetworks.Include, "home_networks.include"), checkPrefixes(c.HomeNetworks.Exclude, "home_networks.exclude"))
	names := map[string]bool{}
	for i, s := range c.Sources {
		if names[s.Name] {
			errs = append(errs, config.Invalid(fmt.Sprintf("sources[%d].name", i), "%q is taken by another source", s.Name))
		}
		names[s.Name] = true
		errs = append(errs, s.validate(fmt.Sprintf("sources[%d]", i)))
	}
	if c.Filters.MaxAge < 0 {
		errs = append(errs, config.Invalid("filters.max_age", "must not be negative"))
	}
	for i, x := range c.Exceptions {
		key := fmt.Sprintf("exceptions[%d]", i)
		if x.Signature == 0 && len(x.Addresses) == 0 {
			errs = append(errs, config.Invalid(key, "names neither signature nor addresses and would except everything"))
		}
		errs = append(errs, checkPrefixes(x.Addresses, key+".addresses"))
	}
	return errors.Join(errs...)
}

func (s SourceConfig) validate(key string) error {
	switch {
	case s.Name == "":
		return config.Invalid(key+".name", "is missing")
	case s.Kind != KindSuricataFile && s.Kind != KindSuricataSocket:
		return config.Invalid(key+".kind", "%q is not known: use %s or %s", s.Kind, KindSuricataFile, KindSuricataSocket)
	case !filepath.IsAbs(s.Path):
		return config.Invalid(key+".path", "%q must be absolute", s.Path)
	case s.Datagram && s.Kind != KindSuricataSocket:
		return config.Invalid(key+".datagram", "is for %s only", KindSuricataSocket)
	}
	return nil
}

// checkPrefixes refuses a prefix with bits below its mask: it is a typing error
// more often than not.
func checkPrefixes(prefixes []netip.Prefix, key string) error {
	var errs []error
	for i, p := range prefixes {
		if p.IsValid() && p != p.Masked() {
			errs = append(errs, config.Invalid(fmt.Sprintf("%s[%d]", key, i), "%s has bits below its mask; did you mean %s?", p, p.Masked()))
		}
	}
	return errors.Join(errs...)
}
