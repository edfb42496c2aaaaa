package main

import (
	"fmt"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
	"github.com/cordon-security/cordon/internal/wire/v1/wirev1connect"
)

type statusCommand struct{}

// Run implements the command.
func (*statusCommand) Run(s *session) error {
	st, err := s.status()
	if err != nil {
		return err
	}
	return s.show(st, func(p *page) { statusPage(p, s.open.server, st) })
}

func (s *session) status() (*wirev1.GetStatusResponse, error) {
	return call(s, "read the status", wirev1connect.AdminServiceClient.GetStatus, &wirev1.GetStatusRequest{}, nil)
}

func statusPage(p *page, server string, st *wirev1.GetStatusResponse) {
	for _, a := range st.GetAlarms() {
		p.line(cell{"ALARM  ", bad}, cell{a, bad})
	}
	for _, d := range st.GetDevices() {
		if bg := d.GetBreakGlass(); bg.GetOn() {
			p.line(cell{fmt.Sprintf("BREAK GLASS on %s: nothing is enforced there, since %s, by %s: %s",
				d.GetName(), p.when(bg.GetSince()), bg.GetActor(), bg.GetReason()), bad})
		}
	}
	if p.Len() > 0 {
		p.WriteString("\n")
	}
	p.line(append([]cell{text("mode          ")}, modeWords(st.GetMode()))...)
	p.field("appliance", fmt.Sprintf("%s, version %s, running since %s", server, st.GetVersion(), p.when(st.GetStartedAt())))
	p.field("threats", fmt.Sprintf("%d open, %d of them waiting for a person", st.GetThreatsOpen(), st.GetThreatsWaiting()))
	p.field("agents", fmt.Sprintf("%d, %d of them connected", st.GetAgents(), st.GetAgentsConnected()))

	p.heading("Enforcement devices")
	if len(st.GetDevices()) == 0 {
		p.line(cell{"none: no quarantine can be enforced", care})
	} else {
		p.table([]string{"DEVICE", "CONNECTION", "ORDERED", "IN FORCE", "REVISION", "ERROR"}, deviceRows(st.GetDevices()))
	}
	p.heading("Data sources")
	sourceTable(p, st.GetSources())
}

// modeWords says what the mode means.
func modeWords(mode string) cell {
	switch mode {
	case "observe":
		return cell{"OBSERVE: nothing is enforced; what would have been done is recorded", care}
	case "enforce":
		return cell{"ENFORCE: quarantines are enforced", good}
	}
	return cell{mode, care}
}

func deviceRows(devices []*wirev1.DeviceStatus) [][]cell {
	var rows [][]cell
	for _, d := range devices {
		connection := cell{"connected", good}
		if !d.GetConnected() {
			connection = cell{"NOT CONNECTED", bad}
		}
		force := text(fmt.Sprint(d.GetInForce()))
		if d.GetInForce() != d.GetDesired() {
			force.tone = care
		}
		rows = append(rows, []cell{
			text(d.GetName()), connection, text(fmt.Sprint(d.GetDesired())), force,
			text(revisions(d)), text(d.GetError()),
		})
	}
	return rows
}

// revisions shows what the device holds, and what was ordered when it is behind.
func revisions(d *wirev1.DeviceStatus) string {
	held, ordered := revision(d.GetHeld()), revision(d.GetOrdered())
	if held == ordered || ordered == "" {
		return held
	}
	if held == "" {
		held = "none"
	}
	return held + " of " + ordered
}

func revision(r *wirev1.Revision) string {
	if r == nil {
		return ""
	}
	return fmt.Sprintf("%d.%d", r.GetEpoch(), r.GetNumber())
}
