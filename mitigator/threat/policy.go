package threat

import (
	"errors"
	"slices"
	"time"

	"github.com/cordon-security/cordon/internal/config"
	"github.com/cordon-security/cordon/mitigator/event"
)

// Mode says whether decisions are carried out.
type Mode string

// The modes. A new installation observes: it does everything but enforce, and
// says what it would have done.
const (
	Observe Mode = "observe"
	Enforce Mode = "enforce"
)

// Choice is what policy does when the agent cannot settle a threat.
type Choice string

// The choices.
const (
	// ChooseQuarantine cuts the endpoint off.
	ChooseQuarantine Choice = "quarantine"
	// ChooseWait leaves it to a person.
	ChooseWait Choice = "wait"
)

// Policy is what the administrator decided beforehand.
type Policy struct {
	Mode Mode `yaml:"mode" doc:"observe (the default): do everything but enforce, and say what would have been done; enforce: carry quarantines out"`
	// ContainFirst are the severities at which an attacker is contained before
	// the assessment.
	ContainFirst []event.Severity `yaml:"contain_first" doc:"severities at which an attacker is contained at once and assessed while contained; default none"`
	Access       Access           `yaml:"access" doc:"what a quarantined endpoint may reach: limited (the device's allow list) or none; default limited"`
	NoAgent      Choice           `yaml:"no_agent" doc:"what to do with an attacker that has no agent: quarantine or wait (for a person); default quarantine"`
	Unresolved   Choice           `yaml:"unresolved" doc:"what to do with an attacker that could not be cleaned: quarantine or wait; default quarantine"`
	AssessLimit  time.Duration    `yaml:"assess_limit" doc:"how long an agent may work on an assessment; default 1m"`
	CleanLimit   time.Duration    `yaml:"clean_limit" doc:"how long an agent may work on a cleanup; default 3m"`
	Hold         time.Duration    `yaml:"hold" doc:"how long a task waits for an agent that is away before policy decides; default 1h"`
	Expire       time.Duration    `yaml:"expire" doc:"how long a quarantine by policy lasts; 0 (the default): until it is released"`
}

// DefaultPolicy is a new installation's.
func DefaultPolicy() Policy {
	return Policy{
		Mode: Observe, Access: AccessLimited,
		NoAgent: ChooseQuarantine, Unresolved: ChooseQuarantine,
		AssessLimit: time.Minute, CleanLimit: 3 * time.Minute, Hold: time.Hour,
	}
}

// Validate says everything that cannot be meant, each with its key.
func (p Policy) Validate() error {
	var errs []error
	if p.Mode != Observe && p.Mode != Enforce {
		errs = append(errs, config.Invalid("policy.mode", "%q is not known: use observe or enforce", p.Mode))
	}
	if p.Access != AccessLimited && p.Access != AccessNone {
		errs = append(errs, config.Invalid("policy.access", "%q is not known: use limited or none", p.Access))
	}
	for name, c := range map[string]Choice{"no_agent": p.NoAgent, "unresolved": p.Unresolved} {
		if c != ChooseQuarantine && c != ChooseWait {
			errs = append(errs, config.Invalid("policy."+name, "%q is not known: use quarantine or wait", c))
		}
	}
	for name, d := range map[string]time.Duration{"assess_limit": p.AssessLimit, "clean_limit": p.CleanLimit, "hold": p.Hold} {
		if d <= 0 {
			errs = append(errs, config.Invalid("policy."+name, "must be more than 0, not %v", d))
		}
	}
	if p.Expire < 0 {
		errs = append(errs, config.Invalid("policy.expire", "must be 0 (until released) or more, not %v", p.Expire))
	}
	return errors.Join(errs...)
}

func (p Policy) containsFirst(s event.Severity) bool { return slices.Contains(p.ContainFirst, s) }

// Limit is how long an agent may work on a task of the kind.
func (p Policy) Limit(k TaskKind) time.Duration {
	if k == Clean {
		return p.CleanLimit
	}
	return p.AssessLimit
}
