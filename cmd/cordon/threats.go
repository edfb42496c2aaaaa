package main

import (
	"fmt"
	"strings"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
	"github.com/cordon-security/cordon/internal/wire/v1/wirev1connect"
)

type threatsCommand struct {
	All   bool   `help:"Those that ended, too."`
	Limit uint32 `help:"How many at most." default:"100"`
}

// Run implements the command.
func (c *threatsCommand) Run(s *session) error {
	if err := atLeastOne(c.Limit); err != nil {
		return err
	}
	threats, err := pages(c.Limit, (*wirev1.Threat).GetId, func(before int64, want uint32) ([]*wirev1.Threat, error) {
		m, err := call(s, "list threats", wirev1connect.AdminServiceClient.ListThreats,
			&wirev1.ListThreatsRequest{OpenOnly: !c.All, Limit: want, BeforeId: before}, nil)
		return m.GetThreats(), err
	})
	if err != nil {
		return err
	}
	err = s.show(&wirev1.ListThreatsResponse{Threats: threats}, func(p *page) { threatTable(p, threats, c.All) })
	s.more(len(threats), c.Limit)
	return err
}

func threatTable(p *page, threats []*wirev1.Threat, all bool) {
	if len(threats) == 0 {
		words := "no open threat; `cordon threats --all` lists those that ended"
		if all {
			words = "no threat"
		}
		p.line(text(words))
		return
	}
	var rows [][]cell
	for _, t := range threats {
		rows = append(rows, []cell{
			text(fmt.Sprint(t.GetId())), stateCell(t), text(t.GetSeverity()), text(nameOf(t)), text(t.GetSignature()),
			text(t.GetRemote()), text(fmt.Sprint(t.GetEventCount())), text(p.time(t.GetLastSeen())), text(p.age(t.GetLastSeen())),
			text(t.GetWaitingFor()),
		})
	}
	p.table([]string{"ID", "STATE", "SEVERITY", "ENDPOINT", "SIGNATURE", "REMOTE", "EVENTS", "LAST SEEN", "AGE", "WAITING FOR"}, rows)
}

// nameOf is the endpoint's name, or the best there is instead.
func nameOf(t *wirev1.Threat) string {
	switch {
	case t.GetEndpointName() != "":
		return t.GetEndpointName()
	case len(t.GetAddresses()) > 0:
		return t.GetAddresses()[0]
	case len(t.GetMacs()) > 0:
		return t.GetMacs()[0]
	}
	return ""
}

func stateCell(t *wirev1.Threat) cell {
	c := text(t.GetState())
	if t.GetContained() && t.GetState() != "quarantined" {
		c.text += ", contained"
	}
	c.tone = stateTone(t.GetState())
	return c
}

func stateTone(state string) tone {
	switch state {
	case "unresolved", "quarantined", "confirmed":
		return bad
	case "detected", "assessing", "cleaning":
		return care
	case "resolved", "not-confirmed", "released":
		return good
	}
	return plain
}

type threatCommands struct {
	Show  threatShowCommand  `cmd:"" help:"Show one threat: its timeline, what agents found and did, its quarantine, its events."`
	Close threatCloseCommand `cmd:"" help:"End a threat on your own judgement. Its quarantine ends with it, when policy ordered it for this threat alone."`
}

type threatShowCommand struct {
	ID  int64 `arg:"" name:"id" help:"The threat's number, as \"cordon threats\" lists it."`
	Raw bool  `help:"Show the events as the data source delivered them, too."`
}

const threatHint = "`cordon threats --all` lists every threat"

// Run implements the command.
func (c *threatShowCommand) Run(s *session) error {
	m, err := call(s, "read the threat", wirev1connect.AdminServiceClient.GetThreat,
		&wirev1.GetThreatRequest{Id: c.ID}, hints{notFound: threatHint})
	if err != nil {
		return err
	}
	return s.show(m, func(p *page) { threatPage(p, m, c.Raw) })
}

type threatCloseCommand struct {
	ID   int64  `arg:"" name:"id" help:"The threat's number."`
	Note string `help:"Why; goes into the timeline." required:"" placeholder:"TEXT"`
}

// Run implements the command.
func (c *threatCloseCommand) Run(s *session) error {
	if strings.TrimSpace(c.Note) == "" {
		return usage("--note is empty", "say why the threat is closed: it goes into the timeline")
	}
	m, err := call(s, "close the threat", wirev1connect.AdminServiceClient.CloseThreat,
		&wirev1.CloseThreatRequest{Id: c.ID, Note: c.Note},
		hints{notFound: threatHint, precondition: fmt.Sprintf("`cordon threat show %d` shows how it ended", c.ID)})
	if err != nil {
		return err
	}
	return s.show(m, func(p *page) {
		t := m.GetThreat()
		p.line(text(fmt.Sprintf("threat %d on %s is %s", t.GetId(), nameOf(t), t.GetState())))
		if t.GetQuarantineId() != "" {
			p.line(text(fmt.Sprintf("its quarantine %s ends with it when policy ordered it for this threat alone: `cordon quarantines` shows", t.GetQuarantineId())))
		}
	})
}
