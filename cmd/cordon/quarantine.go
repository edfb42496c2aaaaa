package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
	"github.com/cordon-security/cordon/internal/wire/v1/wirev1connect"
)

const endpointHint = "`cordon endpoints` lists them: give an endpoint's number, name, MAC or address. One that was never seen can be quarantined by its MAC"

type quarantineCommand struct {
	Endpoint string `arg:"" help:"The endpoint's number, name, MAC or address."`
	Access   string `help:"What it may still reach: none, or limited (the mitigator and the device's allow list). Default: as the policy says." enum:"none,limited," default:"" placeholder:"none|limited"`
	Reason   string `help:"Why; people will read it." required:"" placeholder:"TEXT"`
	For      span   `help:"When it ends by itself, such as 8h or 2d. Default: when released." placeholder:"DURATION"`
}

// accesses are the words of --access; none at all leaves it to the policy.
var accesses = map[string]wirev1.Access{
	"":        wirev1.Access_ACCESS_UNSPECIFIED,
	"none":    wirev1.Access_ACCESS_NONE,
	"limited": wirev1.Access_ACCESS_LIMITED,
}

// Run implements the command.
func (c *quarantineCommand) Run(s *session) error {
	if strings.TrimSpace(c.Reason) == "" {
		return usage("--reason is empty", "say why the endpoint is quarantined: people will read it")
	}
	request := &wirev1.QuarantineEndpointRequest{Endpoint: c.Endpoint, Reason: c.Reason, Access: accesses[c.Access]}
	if c.For > 0 {
		request.Duration = durationpb.New(time.Duration(c.For))
	}
	m, err := call(s, "quarantine "+c.Endpoint, wirev1connect.AdminServiceClient.QuarantineEndpoint, request, hints{
		notFound:     endpointHint,
		precondition: "`cordon quarantines` shows whether it is quarantined already (release it first to change that); `cordon endpoints` shows whether a MAC of it is known, which a quarantine binds to",
		invalid:      endpointHint,
	})
	if err != nil {
		return err
	}
	q := m.GetQuarantine()
	if err := s.show(m, func(p *page) {
		p.line(cell{q.GetEndpointName() + ": ", bold}, cell{quarantineWords(q.GetState()), quarantineTone(q.GetState())})
		quarantinePart(p, q)
	}); err != nil {
		return err
	}
	return s.notEnforced(q)
}

// notEnforced tells the person when what was asked for is recorded and yet not
// done. Observe mode is as the administrator set it; the rest is a refusal.
func (s *session) notEnforced(q *wirev1.QuarantineInfo) error {
	f := &failure{code: exitRefused, what: q.GetEndpointName() + " is not quarantined: " + quarantineWords(q.GetState())}
	if q.GetDetail() != "" {
		f.err = errors.New(q.GetDetail())
	}
	switch q.GetState() {
	case "observed":
		s.say("hint: nothing was enforced: set policy.mode to enforce in the mitigator's configuration when you trust what it would do")
		return nil
	case "held":
		f.hint = "it is recorded, and ordered by itself when the cap allows; `cordon quarantines` shows what stands: release what need not, or raise the cap in the mitigator's configuration"
	case "refused":
		f.hint = "the protected list on the enforcement device decides, and only a person at the device can change it"
	case "suspended":
		f.hint = "break glass is on; `cordon-enforcer resume` on the device ends it"
	case "ordered":
		s.say("hint: the device has not answered yet: `cordon quarantines` shows when it is in force, `cordon status` whether the device is connected")
		return nil
	default:
		return nil
	}
	return f
}

var releaseHints = hints{
	notFound:     endpointHint,
	precondition: "`cordon quarantines` shows what is quarantined; in observe mode nothing is, so nothing is to be released",
	invalid:      endpointHint,
}

type releaseCommand struct {
	Endpoint     string `arg:"" help:"The endpoint's number, name, MAC or address."`
	ThreatIsGone bool   `help:"Confirm that the threat on the endpoint is gone, instead of being asked: for scripts."`
	Note         string `help:"What makes you sure; goes into the timeline." placeholder:"TEXT"`
}

// Run implements the command.
func (c *releaseCommand) Run(s *session) error {
	if err := c.confirm(s); err != nil {
		return err
	}
	m, err := call(s, "release "+c.Endpoint, wirev1connect.AdminServiceClient.ReleaseEndpoint,
		&wirev1.ReleaseEndpointRequest{Endpoint: c.Endpoint, ThreatIsGone: true, Note: c.Note}, releaseHints)
	if err != nil {
		return err
	}
	err = s.show(m, func(p *page) {
		for _, q := range m.GetQuarantines() {
			name, from := q.GetEndpointName(), " from quarantine "+q.GetId()
			if q.GetState() == "releasing" {
				p.line(cell{name + " is not free yet", care}, text(": its release"+from+" is ordered, not read back as gone"))
				continue
			}
			p.line(cell{name + " is released", good}, text(from))
		}
		if len(m.GetQuarantines()) == 0 {
			p.line(text(c.Endpoint + " had no quarantine"))
		}
	})
	for _, q := range m.GetQuarantines() {
		if q.GetState() == "releasing" {
			s.say("hint: the device has not answered yet: `cordon quarantines` lists %s until it has, `cordon status` says whether the device is connected", q.GetEndpointName())
		}
	}
	return err
}

// confirm wants the word that the threat is gone: the flag, or an answer.
func (c *releaseCommand) confirm(s *session) error {
	if c.ThreatIsGone {
		return nil
	}
	if !isTerminal(s.stdin) {
		return usage(fmt.Sprintf("release %s: nobody confirmed that the threat on it is gone", c.Endpoint),
			"give --threat-is-gone when it is; on a terminal the command asks")
	}
	// A name can be claimed: the person sees which machine it stands for.
	m, err := call(s, "release "+c.Endpoint, wirev1connect.AdminServiceClient.ReleaseEndpoint,
		&wirev1.ReleaseEndpointRequest{Endpoint: c.Endpoint, Preview: true}, releaseHints)
	if err != nil {
		return err
	}
	for _, q := range m.GetQuarantines() {
		s.say("%s [%s] is quarantined since %s by %s: %s", q.GetEndpointName(), strings.Join(q.GetMacs(), " "),
			q.GetCreatedAt().AsTime().Format(time.RFC3339), q.GetActor(), q.GetReason())
	}
	answer, err := s.ask(fmt.Sprintf("Is the threat on %s gone? Type the endpoint's name (or 'yes'):", c.Endpoint))
	if err != nil {
		return err
	}
	if !strings.EqualFold(answer, "yes") && !strings.EqualFold(answer, c.Endpoint) {
		return &failure{code: exitFailed, what: c.Endpoint + " was not released: the answer was neither its name nor 'yes'",
			hint: "`cordon threats` shows what is still open on it"}
	}
	return nil
}
