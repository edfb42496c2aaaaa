package store

import (
	"errors"
	"time"

	"github.com/cordon-security/cordon/internal/config"
)

// Retention is how long the mitigator keeps what has come to its end. What is
// open or active, and what that needs, is kept for as long as it is.
type Retention struct {
	// Events bounds the age of events, MaxEvents their number.
	Events    time.Duration `yaml:"events" doc:"how long events are kept; 0 keeps them for ever, default 2160h (90 days)"`
	MaxEvents int64         `yaml:"max_events" doc:"how many events are kept, whatever their age, the newest first (about 2.5 GB a million); 0 does not limit, default 2000000"`
	// Threats is for threats that ended, with their timelines, tasks and quarantines.
	Threats time.Duration `yaml:"threats" doc:"how long a threat that ended is kept, with its timeline, tasks and quarantine; 0 keeps them for ever, default 9600h (400 days)"`
	// Endpoints is for those without agent, threat or quarantine.
	Endpoints    time.Duration `yaml:"endpoints" doc:"how long an endpoint without agent, threat or quarantine is kept after it was last seen; 0 keeps them for ever, default 720h (30 days)"`
	MaxEndpoints int           `yaml:"max_endpoints" doc:"above how many endpoints those without agent, threat or quarantine go before their time; 0 does not limit, default 100000"`
	// MaxUnknown bounds endpoints that a forged source can make.
	MaxUnknown int `yaml:"max_unknown" doc:"how many endpoints may be known by nothing but an address, which a forged source can make at will; alerts of further such addresses are kept as events alone; 0 does not limit, default 10000"`
	// Bindings is for bindings of an address to a MAC that ended.
	Bindings time.Duration `yaml:"bindings" doc:"how long it is kept which machine had an address before; 0 keeps it for ever, default 720h (30 days)"`
}

// DefaultRetention is a new installation's.
func DefaultRetention() Retention {
	const day = 24 * time.Hour
	return Retention{
		Events: 90 * day, MaxEvents: 2_000_000, Threats: 400 * day,
		Endpoints: 30 * day, MaxEndpoints: 100_000, MaxUnknown: 10_000, Bindings: 30 * day,
	}
}

// minRetention is the least that can be meant: an alert may come late, and must
// still find whose the address was.
const minRetention = time.Hour

// Validate says what cannot be meant.
func (r Retention) Validate() error {
	var errs []error
	for key, d := range map[string]time.Duration{"events": r.Events, "threats": r.Threats, "endpoints": r.Endpoints, "bindings": r.Bindings} {
		if d != 0 && d < minRetention {
			errs = append(errs, config.Invalid("retention."+key, "must be 0 (for ever) or at least %v, not %v", minRetention, d))
		}
	}
	for key, n := range map[string]int64{"max_events": r.MaxEvents, "max_endpoints": int64(r.MaxEndpoints), "max_unknown": int64(r.MaxUnknown)} {
		if n != 0 && n < 100 {
			errs = append(errs, config.Invalid("retention."+key, "must be 0 (no limit) or at least 100, not %d", n))
		}
	}
	return errors.Join(errs...)
}

// Cutoffs says what Prune may remove: what ended, or was last seen, before a
// time; a zero time removes nothing of the kind.
type Cutoffs struct {
	Events time.Time
	// MaxEvents is how many of the newest events are kept; 0 does not limit.
	MaxEvents int64
	Threats   time.Time
	// Endpoints is also for bindings of a MAC that is no endpoint's.
	Endpoints time.Time
	Bindings  time.Time
	// From is where to go on: Pruned.Next of the call before, zero at first.
	From Position
}

// Position is how far a walk of Prune has come.
type Position struct {
	Event, Endpoint, Binding int64
}

// Pruned is what one call of Prune removed.
type Pruned struct {
	Events, Threats, Quarantines, Endpoints, Bindings int
	// Next is where to go on while More is set.
	Next Position
	More bool
}

// EvidenceEvents is how many events of a threat are kept while it is open,
// whatever their age: its first.
const EvidenceEvents = DefaultLimit

// What one machine's word can make the store keep.
const (
	// MaxBindingsOfMAC is how many addresses one MAC may hold; above it the one
	// unseen longest ends.
	MaxBindingsOfMAC = 64
	// MaxPastBindings is how many bindings that ended are kept of one MAC, and of
	// one address.
	MaxPastBindings = 192
)
