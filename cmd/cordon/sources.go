package main

import (
	"fmt"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
	"github.com/cordon-security/cordon/internal/wire/v1/wirev1connect"
)

type sourcesCommand struct{}

// Run implements the command.
func (*sourcesCommand) Run(s *session) error {
	m, err := call(s, "list the data sources", wirev1connect.AdminServiceClient.ListSources, &wirev1.ListSourcesRequest{}, nil)
	if err != nil {
		return err
	}
	return s.show(m, func(p *page) { sourceTable(p, m.GetSources()) })
}

func sourceTable(p *page, sources []*wirev1.Source) {
	if len(sources) == 0 {
		p.line(text("no data source: name one in the mitigator's configuration, so that alerts come in"))
		return
	}
	var rows [][]cell
	for _, src := range sources {
		health := cell{"healthy", good}
		if !src.GetHealthy() {
			health = cell{"FAULTY", bad}
		}
		rejected := text(fmt.Sprint(src.GetRejected()))
		if src.GetRejected() > 0 {
			rejected.tone = care
		}
		rows = append(rows, []cell{
			text(src.GetName()), text(src.GetKind()), text(src.GetTarget()), health,
			text(fmt.Sprint(src.GetEvents())), rejected, text(p.age(src.GetLastEventAt())), text(src.GetError()),
		})
	}
	p.table([]string{"SOURCE", "KIND", "TARGET", "HEALTH", "EVENTS", "REJECTED", "LAST EVENT", "ERROR"}, rows)
}

type rejectsCommand struct {
	Source string `arg:"" optional:"" help:"A source's name; all when left out."`
	Limit  uint32 `help:"How many at most." default:"50"`
}

// Run implements the command.
func (c *rejectsCommand) Run(s *session) error {
	if err := unpaged(c.Limit); err != nil {
		return err
	}
	m, err := call(s, "list rejected records", wirev1connect.AdminServiceClient.ListRejects,
		&wirev1.ListRejectsRequest{Source: c.Source, Limit: c.Limit},
		hints{notFound: "`cordon sources` lists the data sources"})
	if err != nil {
		return err
	}
	err = s.show(m, func(p *page) { rejectTable(p, m.GetRejects()) })
	s.more(len(m.GetRejects()), c.Limit)
	return err
}

func rejectTable(p *page, rejects []*wirev1.Reject) {
	if len(rejects) == 0 {
		p.line(text("nothing was rejected"))
		return
	}
	var rows [][]cell
	for _, r := range rejects {
		rows = append(rows, texts(p.time(r.GetReceivedAt()), r.GetSource(), fmt.Sprint(r.GetSize()), r.GetReason(), string(r.GetRaw())))
	}
	p.table([]string{"RECEIVED", "SOURCE", "BYTES", "REASON", "RECORD"}, rows)
}
