package intake

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/cordon-security/cordon/mitigator/event"
)

// classifier gives events their disposition. It is immutable and safe for
// concurrent use.
type classifier struct {
	home       event.HomeNetworks
	filter     FilterConfig
	only, not  map[uint32]bool
	exceptions []ExceptionConfig
}

func newClassifier(c Config) *classifier {
	return &classifier{
		home:   event.HomeNetworks{Include: c.HomeNetworks.Include, Exclude: c.HomeNetworks.Exclude},
		filter: c.Filters, only: set(c.Filters.Signatures), not: set(c.Filters.ExcludeSignatures),
		exceptions: c.Exceptions,
	}
}

func set(ids []uint32) map[uint32]bool {
	m := make(map[uint32]bool, len(ids))
	for _, id := range ids {
		m[id] = true
	}
	return m
}

// classify decides; now is the time that exceptions expire and events age by.
func (c *classifier) classify(e event.Event, now time.Time) event.Classified {
	out := event.Classified{Event: e, Disposition: event.Threat, Locals: event.Locate(e, c.home)}
	if len(out.Locals) == 0 {
		out.Disposition, out.Reason = event.Kept, "neither side is in the home networks"
		return out
	}
	if why, ok := c.excepted(e, now); ok {
		out.Disposition, out.Reason = event.Excepted, why
		return out
	}
	if why, ok := c.filtered(e, now); ok {
		out.Disposition, out.Reason = event.Filtered, why
	}
	return out
}

func (c *classifier) excepted(e event.Event, now time.Time) (string, bool) {
	for i, x := range c.exceptions {
		if !x.matches(e, now) {
			continue
		}
		if x.Comment == "" {
			return fmt.Sprintf("exception %d", i+1), true
		}
		return fmt.Sprintf("exception %d: %s", i+1, x.Comment), true
	}
	return "", false
}

func (x ExceptionConfig) matches(e event.Event, now time.Time) bool {
	if !x.Expires.IsZero() && !now.Before(x.Expires) {
		return false
	}
	if x.Signature != 0 && x.Signature != e.SignatureID {
		return false
	}
	return len(x.Addresses) == 0 || slices.ContainsFunc(x.Addresses, func(p netip.Prefix) bool {
		return p.Contains(e.Src.Addr()) || p.Contains(e.Dst.Addr())
	})
}

func (c *classifier) tooOld(e event.Event, now time.Time) bool {
	return c.filter.MaxAge > 0 && now.Sub(e.Time) > c.filter.MaxAge
}

func (c *classifier) filtered(e event.Event, now time.Time) (string, bool) {
	switch {
	case c.tooOld(e, now):
		return fmt.Sprintf("it is of %s, older than %s", e.Time.UTC().Format(time.RFC3339), c.filter.MaxAge), true
	case e.Severity < c.filter.MinSeverity:
		return fmt.Sprintf("severity %s is below %s", e.Severity, c.filter.MinSeverity), true
	case c.not[e.SignatureID]:
		return fmt.Sprintf("signature %d is excluded", e.SignatureID), true
	case len(c.only) > 0 && !c.only[e.SignatureID]:
		return fmt.Sprintf("signature %d is not among those that may become threats", e.SignatureID), true
	}
	return "", false
}
