package main

import (
	"fmt"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
	"github.com/cordon-security/cordon/internal/wire/v1/wirev1connect"
)

type eventsCommand struct {
	Limit uint32 `help:"How many at most." default:"50"`
}

// Run implements the command.
func (c *eventsCommand) Run(s *session) error {
	if err := atLeastOne(c.Limit); err != nil {
		return err
	}
	events, err := pages(c.Limit, (*wirev1.Event).GetId, func(before int64, want uint32) ([]*wirev1.Event, error) {
		m, err := call(s, "list events", wirev1connect.AdminServiceClient.ListEvents,
			&wirev1.ListEventsRequest{Limit: want, BeforeId: before}, nil)
		return m.GetEvents(), err
	})
	if err != nil {
		return err
	}
	err = s.show(&wirev1.ListEventsResponse{Events: events}, func(p *page) {
		if len(events) == 0 {
			p.line(text("no event yet; `cordon sources` shows whether the data sources are well"))
			return
		}
		eventTable(p, events)
	})
	s.more(len(events), c.Limit)
	return err
}

func eventTable(p *page, events []*wirev1.Event) {
	var rows [][]cell
	for _, e := range events {
		rows = append(rows, texts(fmt.Sprint(e.GetId()), p.time(e.GetAt()), e.GetSource(), e.GetSeverity(), e.GetProtocol(),
			e.GetSrc(), e.GetDst(), e.GetSignature(), disposition(e)))
	}
	p.table([]string{"ID", "TIME", "SOURCE", "SEVERITY", "PROTOCOL", "FROM", "TO", "SIGNATURE", "WENT TO"}, rows)
}

// disposition says what became of an event.
func disposition(e *wirev1.Event) string {
	switch e.GetDisposition() {
	case "threat":
		return fmt.Sprintf("threat %d", e.GetThreatId())
	case "kept":
		return "kept: neither side is ours"
	case "filtered":
		return "filtered out"
	case "excepted":
		return "an exception"
	}
	return e.GetDisposition()
}
