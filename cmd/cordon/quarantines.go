package main

import (
	"cmp"
	"fmt"
	"strings"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
	"github.com/cordon-security/cordon/internal/wire/v1/wirev1connect"
)

type quarantinesCommand struct {
	All   bool   `help:"Those that ended, too."`
	Limit uint32 `help:"How many at most." default:"1000"`
}

// Run implements the command.
func (c *quarantinesCommand) Run(s *session) error {
	if err := unpaged(c.Limit); err != nil {
		return err
	}
	m, err := call(s, "list quarantines", wirev1connect.AdminServiceClient.ListQuarantines,
		&wirev1.ListQuarantinesRequest{ActiveOnly: !c.All, Limit: c.Limit}, nil)
	if err != nil {
		return err
	}
	err = s.show(m, func(p *page) { quarantineTable(p, m.GetQuarantines(), c.All) })
	s.more(len(m.GetQuarantines()), c.Limit)
	return err
}

func quarantineTable(p *page, quarantines []*wirev1.QuarantineInfo, all bool) {
	if len(quarantines) == 0 {
		words := "nothing is quarantined; `cordon quarantines --all` lists what was"
		if all {
			words = "nothing was ever quarantined"
		}
		p.line(text(words))
		return
	}
	var rows [][]cell
	for _, q := range quarantines {
		threat := ""
		if q.GetThreatId() != 0 {
			threat = fmt.Sprint(q.GetThreatId())
		}
		ends := cmp.Or(p.age(q.GetExpiresAt()), "when released")
		if isTime(q.GetEndedAt()) {
			ends = p.age(q.GetEndedAt())
		}
		rows = append(rows, []cell{
			text(q.GetId()), text(q.GetEndpointName()), text(strings.Join(q.GetMacs(), " ")), {q.GetState(), quarantineTone(q.GetState())},
			text(q.GetAccess()), text(threat), text(q.GetActor()), text(p.time(q.GetCreatedAt())), text(ends),
			text(q.GetReason()), text(q.GetDetail()),
		})
	}
	p.table([]string{"ID", "ENDPOINT", "MAC", "STATE", "ACCESS", "THREAT", "BY", "SINCE", "ENDS", "REASON", "DETAIL"}, rows)
}

// quarantineWords says what a quarantine's state means for its endpoint.
func quarantineWords(state string) string {
	switch state {
	case "observed":
		return "observed: recorded and NOT ENFORCED, since the appliance is in observe mode"
	case "held":
		return "held: NOT ENFORCED, since the cap on quarantines is reached"
	case "ordered":
		return "ordered: on its way to the enforcement device, not read back yet"
	case "in-force":
		return "in force: read back from the enforcement device"
	case "refused":
		return "refused: NOT ENFORCED, since the enforcement device's guard protects it"
	case "suspended":
		return "suspended: NOT ENFORCED, since break glass is on at the device"
	case "releasing":
		return "releasing: not read back as gone yet"
	case "ended":
		return "ended"
	}
	return state
}

func quarantineTone(state string) tone {
	switch state {
	case "in-force":
		return bad
	case "ended", "":
		return plain
	}
	return care
}
