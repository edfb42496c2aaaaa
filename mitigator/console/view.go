package console

import (
	"fmt"
	"strconv"
	"strings"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

const (
	// maxName is how many characters of a name or an id a page shows.
	maxName = 80
	// maxAddresses is how many addresses of one endpoint a page shows.
	maxAddresses = 8
	// maxAlarms is how many alarms, devices and sources a page shows.
	maxAlarms = 50
)

// statusView is the state of the product as a whole.
type statusView struct {
	Mode         badge
	ModeWords    string
	Alarms       []string
	Open         uint32
	Waiting      uint32
	Agents       uint32
	AgentsOnline uint32
	Devices      []partView
	Sources      []partView
	Version      string
	Started      moment
}

// partView is a device or a source: its name, whether it works, and a line.
type partView struct {
	Name, Line string
	State      badge
	Last       moment
}

func (c *Console) statusView(s *wirev1.GetStatusResponse) statusView {
	v := statusView{
		Open: s.GetThreatsOpen(), Waiting: s.GetThreatsWaiting(), Agents: s.GetAgents(), AgentsOnline: s.GetAgentsConnected(),
		Version: clean(s.GetVersion(), maxName), Started: c.moment(s.GetStartedAt()),
	}
	v.Mode, v.ModeWords = modeWords(s.GetMode())
	alarms := s.GetAlarms()
	for _, a := range alarms[:min(len(alarms), maxAlarms)] {
		v.Alarms = append(v.Alarms, clean(a, maxText))
	}
	if n := len(alarms) - len(v.Alarms); n > 0 {
		v.Alarms = append(v.Alarms, "and "+plural(n, "more alarm", "more alarms"))
	}
	devices, sources := s.GetDevices(), s.GetSources()
	for _, d := range devices[:min(len(devices), maxAlarms)] {
		v.Devices = append(v.Devices, deviceView(d))
	}
	for _, s := range sources[:min(len(sources), maxAlarms)] {
		v.Sources = append(v.Sources, c.sourceView(s))
	}
	return v
}

func modeWords(mode string) (badge, string) {
	switch mode {
	case "observe":
		return badge{"Observe mode", warning}, "Cordon does everything but enforce: nobody new is cut off."
	case "enforce":
		return badge{"Enforce mode", good}, "Endpoints that cannot be cleaned are cut off, as policy says."
	}
	return badge{"Mode " + clean(mode, 40), alarm}, "This mode is not known to the console."
}

func deviceView(d *wirev1.DeviceStatus) partView {
	v := partView{Name: clean(d.GetName(), maxName), State: badge{"connected", good}}
	v.Line = fmt.Sprintf("%d of %s in force", d.GetInForce(), plural(int(d.GetDesired()), "quarantine", "quarantines"))
	if d.GetError() != "" {
		v.State = badge{"connected", warning}
		v.Line += ". " + clean(d.GetError(), maxText)
	}
	if d.GetBreakGlass().GetOn() {
		v.State = badge{"break glass is on", alarm}
		v.Line = "nothing is enforced, by " + clean(d.GetBreakGlass().GetActor(), maxName) + ": " + clean(d.GetBreakGlass().GetReason(), maxText)
	}
	if !d.GetConnected() {
		v.State = badge{"not connected", alarm}
		v.Line = "what is in force stays in force. " + clean(d.GetError(), maxText)
	}
	return v
}

func (c *Console) sourceView(s *wirev1.Source) partView {
	v := partView{Name: clean(s.GetName(), maxName), State: badge{"healthy", good}, Last: c.moment(s.GetLastEventAt())}
	if s.GetName() == "" {
		v.Name = clean(s.GetKind(), maxName)
	}
	v.Line = plural(int(s.GetEvents()), "event", "events")
	if s.GetRejected() > 0 {
		v.Line += ", " + strconv.FormatUint(s.GetRejected(), 10) + " rejected"
	}
	if !s.GetHealthy() {
		v.State = badge{"not healthy", alarm}
		v.Line += ". " + clean(s.GetError(), maxText)
	}
	return v
}

// threatRow is one threat in a table, and the head of its own page.
type threatRow struct {
	ID              int64
	State, Severity badge
	Signature       string
	Kind, Role      string
	Endpoint        string
	Addresses, MACs []string
	Remote          string
	Events          uint32
	First, Last     moment
	Waiting         string
	// Contained is set where the state alone does not say that it is cut off.
	Contained bool
	Ended     bool
}

func (c *Console) threatRow(t *wirev1.Threat) threatRow {
	return threatRow{
		ID: t.GetId(), State: stateBadge(t.GetState()), Severity: severityBadge(t.GetSeverity()),
		Signature: named(t.GetSignature(), maxText, "unnamed threat"), Kind: clean(t.GetKind(), maxName), Role: clean(t.GetRole(), maxName),
		Endpoint: endpointName(t.GetEndpointName(), t.GetEndpointId()), Addresses: list(t.GetAddresses()), MACs: list(t.GetMacs()),
		Remote: clean(t.GetRemote(), maxName), Events: t.GetEventCount(),
		First: c.moment(t.GetFirstSeen()), Last: c.moment(t.GetLastSeen()),
		Waiting: clean(t.GetWaitingFor(), maxText), Contained: t.GetContained() && t.GetState() != "quarantined", Ended: t.GetEnded(),
	}
}

func (c *Console) threatRows(threats []*wirev1.Threat) []threatRow {
	var rows []threatRow
	for _, t := range threats {
		rows = append(rows, c.threatRow(t))
	}
	return rows
}

// stepView is one transition of a threat.
type stepView struct {
	From, To badge
	// Note is a step that leads nowhere: something worth knowing.
	Note bool
	At   moment
	// After is how long after the first step it came.
	After        string
	Cause, Actor string
}

func (c *Console) stepViews(timeline []*wirev1.Transition) []stepView {
	var steps []stepView
	for i, t := range timeline {
		s := stepView{
			From: stateBadge(t.GetFrom()), To: stateBadge(t.GetTo()), Note: t.GetFrom() == t.GetTo() && i > 0,
			At: c.moment(t.GetAt()), Cause: clean(t.GetCause(), maxText), Actor: actorWords(t.GetActor()),
		}
		if i == 0 || t.GetFrom() == "" || t.GetFrom() == t.GetTo() {
			s.From = badge{}
		}
		if i > 0 {
			s.After = between(timeline[0].GetAt(), t.GetAt())
		}
		steps = append(steps, s)
	}
	return steps
}

// eventView is one event, with its record as it came.
type eventView struct {
	ID                          int64
	Source, Signature, Category string
	Severity, Disposition       badge
	Protocol, Src, Dst          string
	At, Received                moment
	ThreatID                    int64
	Record                      record
}

func (c *Console) eventViews(events []*wirev1.Event) []eventView {
	budget := maxRecords
	var views []eventView
	for _, e := range events {
		views = append(views, eventView{
			ID: e.GetId(), Source: clean(e.GetSource(), maxName), Signature: named(e.GetSignature(), maxText, "unnamed event"),
			Category: clean(e.GetCategory(), maxText), Severity: severityBadge(e.GetSeverity()),
			Disposition: dispositionBadge(e.GetDisposition()), Protocol: strings.ToUpper(clean(e.GetProtocol(), 16)),
			Src: clean(e.GetSrc(), maxName), Dst: clean(e.GetDst(), maxName),
			At: c.moment(e.GetAt()), Received: c.moment(e.GetReceivedAt()), ThreatID: e.GetThreatId(),
			Record: layout(e.GetRaw(), &budget),
		})
	}
	return views
}

// endpointRow is one endpoint in a table.
type endpointRow struct {
	ID              int64
	Name            string
	MACs, Addresses []string
	Agent           badge
	First, Last     moment
	Quarantine      string
}

func (c *Console) endpointRow(e *wirev1.Endpoint) endpointRow {
	r := endpointRow{
		ID: e.GetId(), Name: endpointName(e.GetHostname(), e.GetId()), MACs: list(e.GetMacs()), Addresses: list(e.GetAddresses()),
		First: c.moment(e.GetFirstSeen()), Last: c.moment(e.GetLastSeen()), Quarantine: clean(e.GetQuarantineId(), maxName),
	}
	if e.GetHostname() == "" && len(e.GetAddresses()) > 0 {
		r.Name = endpointName(e.GetAddresses()[0], e.GetId())
	}
	switch {
	case e.GetAgentId() == "":
		r.Agent = badge{"no agent", calm}
	case e.GetAgentConnected():
		r.Agent = badge{"agent connected", good}
	default:
		r.Agent = badge{"agent away", warning}
	}
	return r
}

// quarantineView is one quarantine.
type quarantineView struct {
	ID, Endpoint                     string
	ThreatID                         int64
	MACs                             []string
	Access, Reason, Actor            string
	Created, Expires, InForce, Ended moment
	// Took is how long it was from the order to being read back.
	Took                  string
	EndedBy, Confirmation string
	State                 badge
	Words, Detail         string
}

func (c *Console) quarantineView(q *wirev1.QuarantineInfo) *quarantineView {
	if q == nil {
		return nil
	}
	return &quarantineView{
		ID: clean(q.GetId(), maxName), Endpoint: endpointName(q.GetEndpointName(), q.GetEndpointId()), ThreatID: q.GetThreatId(),
		MACs: list(q.GetMacs()), Access: accessWords(q.GetAccess()), Reason: clean(q.GetReason(), maxText), Actor: actorWords(q.GetActor()),
		Created: c.moment(q.GetCreatedAt()), Expires: c.moment(q.GetExpiresAt()), InForce: c.moment(q.GetInForceAt()),
		Ended: c.moment(q.GetEndedAt()), Took: between(q.GetCreatedAt(), q.GetInForceAt()),
		EndedBy: actorWords(q.GetEndedBy()), Confirmation: clean(q.GetConfirmation(), maxText),
		State: quarantineBadge(q.GetState()), Words: quarantineWords(q.GetState()), Detail: clean(q.GetDetail(), maxText),
	}
}

func endpointName(name string, id int64) string {
	return named(name, maxName, "endpoint "+strconv.FormatInt(id, 10))
}

// named is clean text, or other when there is nothing to read in it.
func named(text string, limit int, other string) string {
	if text = clean(text, limit); strings.TrimSpace(text) != "" {
		return text
	}
	return other
}

// list cleans texts and bounds their number.
func list(texts []string) []string {
	var out []string
	for _, t := range texts[:min(len(texts), maxAddresses)] {
		out = append(out, clean(t, maxName))
	}
	if n := len(texts) - len(out); n > 0 {
		out = append(out, "and "+strconv.Itoa(n)+" more")
	}
	return out
}
