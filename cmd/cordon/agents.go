package main

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
	"github.com/cordon-security/cordon/internal/wire/v1/wirev1connect"
)

type agentsCommand struct{}

// Run implements the command.
func (*agentsCommand) Run(s *session) error {
	m, err := call(s, "list agents", wirev1connect.AdminServiceClient.ListAgents, &wirev1.ListAgentsRequest{}, nil)
	if err != nil {
		return err
	}
	return s.show(m, func(p *page) { agentTable(p, m.GetAgents()) })
}

func agentTable(p *page, agents []*wirev1.Agent) {
	if len(agents) == 0 {
		p.line(text("no agent is enrolled; `cordon agent token` lets the first one in"))
		return
	}
	var rows [][]cell
	for _, a := range agents {
		state := cell{"away", care}
		switch {
		case isTime(a.GetRevokedAt()):
			state = cell{"revoked", bad}
		case a.GetConnected():
			state = cell{"connected", good}
		}
		rows = append(rows, []cell{
			text(a.GetId()), text(a.GetHostname()), state, text(a.GetVersion()), text(a.GetObserver()),
			text(p.time(a.GetLastSeen())), text(p.age(a.GetLastSeen())), text(p.age(a.GetCertificateExpiresAt())),
		})
	}
	p.table([]string{"ID", "HOST", "STATE", "VERSION", "SEES BY", "LAST SEEN", "AGE", "CERTIFICATE ENDS"}, rows)
}

type agentCommands struct {
	Token  agentTokenCommand  `cmd:"" help:"Make a one-time token with which one agent enrols."`
	Revoke agentRevokeCommand `cmd:"" help:"Shut an agent out for good, at once."`
}

type agentTokenCommand struct {
	Lifetime span   `help:"How long it may be used." default:"1h" placeholder:"DURATION"`
	Comment  string `help:"For whom; shown in the log." placeholder:"TEXT"`
}

// Run implements the command. The token alone goes to standard output.
func (c *agentTokenCommand) Run(s *session) error {
	m, err := call(s, "make an agent's token", wirev1connect.AdminServiceClient.CreateAgentToken,
		&wirev1.CreateAgentTokenRequest{Lifetime: durationpb.New(time.Duration(c.Lifetime)), Comment: c.Comment}, nil)
	if err != nil {
		return err
	}
	p := s.page()
	s.say("This token is shown once, and enrols one agent until %s.", p.when(m.GetExpiresAt()))
	s.say("On the endpoint, as root: cordon-agent enroll --token-file -  (then paste the token, Enter, Ctrl-D)")
	if !strings.Contains(m.GetToken(), "@") {
		s.say("hint: the token does not say where the appliance is: add --server HOST:7443 there, or set agents.address in the mitigator's configuration and make another")
	}
	return s.show(m, func(p *page) { p.line(text(m.GetToken())) })
}

type agentRevokeCommand struct {
	ID     string `arg:"" name:"id" help:"The agent, as \"cordon agents\" lists it."`
	Reason string `help:"Why; goes into the log." required:"" placeholder:"TEXT"`
}

// Run implements the command.
func (c *agentRevokeCommand) Run(s *session) error {
	if strings.TrimSpace(c.Reason) == "" {
		return usage("--reason is empty", "say why the agent is revoked")
	}
	m, err := call(s, "revoke the agent", wirev1connect.AdminServiceClient.RevokeAgent,
		&wirev1.RevokeAgentRequest{AgentId: c.ID, Reason: c.Reason}, hints{notFound: "`cordon agents` lists them"})
	if err != nil {
		return err
	}
	return s.show(m, func(p *page) {
		p.line(text(fmt.Sprintf("agent %s is revoked: its connection is closed, and it cannot come back without a new token", c.ID)))
	})
}
