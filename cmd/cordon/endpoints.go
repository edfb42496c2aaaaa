package main

import (
	"fmt"
	"strings"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
	"github.com/cordon-security/cordon/internal/wire/v1/wirev1connect"
)

type endpointsCommand struct {
	Limit uint32 `help:"How many at most." default:"1000"`
}

// Run implements the command.
func (c *endpointsCommand) Run(s *session) error {
	if err := atLeastOne(c.Limit); err != nil {
		return err
	}
	endpoints, err := pages(c.Limit, (*wirev1.Endpoint).GetId, func(after int64, want uint32) ([]*wirev1.Endpoint, error) {
		m, err := call(s, "list endpoints", wirev1connect.AdminServiceClient.ListEndpoints,
			&wirev1.ListEndpointsRequest{Limit: want, AfterId: after}, nil)
		return m.GetEndpoints(), err
	})
	if err != nil {
		return err
	}
	err = s.show(&wirev1.ListEndpointsResponse{Endpoints: endpoints}, func(p *page) { endpointTable(p, endpoints) })
	s.more(len(endpoints), c.Limit)
	return err
}

func endpointTable(p *page, endpoints []*wirev1.Endpoint) {
	if len(endpoints) == 0 {
		p.line(text("no endpoint is known yet"))
		return
	}
	var rows [][]cell
	for _, e := range endpoints {
		agent := text("none")
		switch {
		case e.GetAgentConnected():
			agent = cell{"connected", good}
		case e.GetAgentId() != "":
			agent = cell{"away", care}
		}
		rows = append(rows, []cell{
			text(fmt.Sprint(e.GetId())), text(e.GetHostname()), text(strings.Join(e.GetAddresses(), " ")),
			text(strings.Join(e.GetMacs(), " ")), agent, {e.GetQuarantineId(), bad}, text(p.time(e.GetLastSeen())), text(p.age(e.GetLastSeen())),
		})
	}
	p.table([]string{"ID", "NAME", "ADDRESSES", "MAC", "AGENT", "QUARANTINE", "LAST SEEN", "AGE"}, rows)
}
