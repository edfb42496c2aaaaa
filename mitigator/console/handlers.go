package console

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"connectrpc.com/connect"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

const (
	// perPage is how many rows a table has.
	perPage = 50
	// maxSteps is how many transitions of a threat a page shows.
	maxSteps = 500
	// maxQuarantines is how many quarantines a page shows: the API has no pages.
	maxQuarantines = 500
)

// call asks the API in this process.
func call[Q, A any](r *http.Request, rpc func(context.Context, *connect.Request[Q]) (*connect.Response[A], error), q *Q) (*A, error) {
	ctx, cancel := context.WithTimeout(r.Context(), apiTimeout)
	defer cancel()
	answer, err := rpc(ctx, connect.NewRequest(q))
	if err != nil {
		return nil, err
	}
	return answer.Msg, nil
}

// failed shows that the API did not answer. What it said goes to the log.
func (c *Console) failed(w http.ResponseWriter, r *http.Request, admin string, err error) {
	switch {
	case connect.CodeOf(err) == connect.CodeNotFound:
		c.notFound(w, r, admin)
		return
	case errors.Is(r.Context().Err(), context.Canceled):
		return // the browser has gone
	}
	c.log.Error("console request failed", "path", r.URL.Path, "err", err)
	c.render(w, http.StatusServiceUnavailable, "error", page{Title: "No answer", Admin: admin,
		Data: "The mitigator could not read this from its store. Try again; its log says what is wrong."})
}

func (c *Console) notFound(w http.ResponseWriter, _ *http.Request, admin string) {
	c.render(w, http.StatusNotFound, "error", page{Title: "Not found", Admin: admin, Data: "There is nothing at this address."})
}

// number reads a whole number of a request that must not be negative.
func number(text string) (int64, bool) {
	if text == "" {
		return 0, true
	}
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil && n >= 0
}

// homeView is the first page.
type homeView struct {
	Status   statusView
	Open     []threatRow
	MoreOpen bool
	// First is the log's newest page of all threats.
	First    bool
	OpenOnly bool
	Log      []threatRow
	Older    string
}

func (c *Console) home(w http.ResponseWriter, r *http.Request, admin string) {
	before, ok := number(r.URL.Query().Get("before"))
	if !ok {
		c.notFound(w, r, admin)
		return
	}
	v := homeView{OpenOnly: r.URL.Query().Get("show") == "open"}
	v.First = before == 0 && !v.OpenOnly
	v.Status = c.status(r)
	if v.First {
		open, err := call(r, c.api.ListThreats, &wirev1.ListThreatsRequest{OpenOnly: true, Limit: perPage + 1})
		if err != nil {
			c.failed(w, r, admin, err)
			return
		}
		rows, older := cut(open.GetThreats())
		v.Open, v.MoreOpen = c.threatRows(rows), older
	}
	log, err := call(r, c.api.ListThreats, &wirev1.ListThreatsRequest{OpenOnly: v.OpenOnly, Limit: perPage + 1, BeforeId: before})
	if err != nil {
		c.failed(w, r, admin, err)
		return
	}
	rows, older := cut(log.GetThreats())
	v.Log = c.threatRows(rows)
	if older {
		q := url.Values{"before": {strconv.FormatInt(rows[len(rows)-1].GetId(), 10)}}
		if v.OpenOnly {
			q.Set("show", "open")
		}
		v.Older = "/?" + q.Encode()
	}
	c.render(w, http.StatusOK, "home", page{Title: "Threats", Nav: "/", Admin: admin, Live: before == 0, Data: v})
}

// status is the state of the product; when it cannot be had, that is an alarm.
func (c *Console) status(r *http.Request) statusView {
	s, err := call(r, c.api.GetStatus, &wirev1.GetStatusRequest{})
	if err != nil {
		c.log.Error("console request failed", "path", r.URL.Path, "err", err)
		return statusView{Mode: badge{"Mode unknown", alarm}, Alarms: []string{"The mitigator's status could not be read; its log says why."}}
	}
	return c.statusView(s)
}

// cut returns one page of what was asked for with one row more, and whether
// there is more.
func cut[T any](rows []T) ([]T, bool) {
	if len(rows) <= perPage {
		return rows, false
	}
	return rows[:perPage], true
}

// threatView is one threat's own page.
type threatView struct {
	Threat     threatRow
	Timeline   []stepView
	MoreSteps  string
	Tasks      []taskView
	Quarantine *quarantineView
	Events     []eventView
	MoreEvents string
}

func (c *Console) threat(w http.ResponseWriter, r *http.Request, admin string) {
	id, ok := number(r.PathValue("id"))
	if !ok {
		c.notFound(w, r, admin)
		return
	}
	t, err := call(r, c.api.GetThreat, &wirev1.GetThreatRequest{Id: id})
	if err != nil {
		c.failed(w, r, admin, err)
		return
	}
	steps, events := t.GetTimeline(), t.GetEvents()
	v := threatView{
		Threat: c.threatRow(t.GetThreat()), Timeline: c.stepViews(steps[:min(len(steps), maxSteps)]),
		Quarantine: c.quarantineView(t.GetQuarantine()), Events: c.eventViews(events[:min(len(events), perPage)]),
	}
	for _, task := range first(t.GetTasks()) {
		v.Tasks = append(v.Tasks, c.taskView(task))
	}
	if n := len(steps) - len(v.Timeline); n > 0 {
		v.MoreSteps = plural(n, "later step is", "later steps are") + " not shown here"
	}
	if n := int(v.Threat.Events) - len(v.Events); n > 0 && len(v.Events) > 0 {
		v.MoreEvents = plural(n, "more event is", "more events are") + " not shown here"
	}
	c.render(w, http.StatusOK, "threat", page{Title: fmt.Sprintf("Threat %d", id), Nav: "/", Admin: admin, Live: !v.Threat.Ended, Data: v})
}

// listView is a table with more behind it.
type listView[T any] struct {
	Rows  []T
	Older string
	All   bool
}

func (c *Console) events(w http.ResponseWriter, r *http.Request, admin string) {
	before, ok := number(r.URL.Query().Get("before"))
	if !ok {
		c.notFound(w, r, admin)
		return
	}
	list, err := call(r, c.api.ListEvents, &wirev1.ListEventsRequest{Limit: perPage + 1, BeforeId: before})
	if err != nil {
		c.failed(w, r, admin, err)
		return
	}
	rows, older := cut(list.GetEvents())
	v := listView[eventView]{Rows: c.eventViews(rows)}
	if older {
		v.Older = "/events?before=" + strconv.FormatInt(rows[len(rows)-1].GetId(), 10)
	}
	c.render(w, http.StatusOK, "events", page{Title: "Events", Nav: "/events", Admin: admin, Live: before == 0, Data: v})
}

func (c *Console) endpoints(w http.ResponseWriter, r *http.Request, admin string) {
	after, ok := number(r.URL.Query().Get("after"))
	if !ok {
		c.notFound(w, r, admin)
		return
	}
	list, err := call(r, c.api.ListEndpoints, &wirev1.ListEndpointsRequest{Limit: perPage + 1, AfterId: after})
	if err != nil {
		c.failed(w, r, admin, err)
		return
	}
	rows, more := cut(list.GetEndpoints())
	var v listView[endpointRow]
	for _, e := range rows {
		v.Rows = append(v.Rows, c.endpointRow(e))
	}
	if more {
		v.Older = "/endpoints?after=" + strconv.FormatInt(rows[len(rows)-1].GetId(), 10)
	}
	c.render(w, http.StatusOK, "endpoints", page{Title: "Endpoints", Nav: "/endpoints", Admin: admin, Live: true, Data: v})
}

func (c *Console) quarantines(w http.ResponseWriter, r *http.Request, admin string) {
	all := r.URL.Query().Get("show") == "all"
	list, err := call(r, c.api.ListQuarantines, &wirev1.ListQuarantinesRequest{ActiveOnly: !all, Limit: maxQuarantines})
	if err != nil {
		c.failed(w, r, admin, err)
		return
	}
	v := listView[*quarantineView]{All: all}
	quarantines := list.GetQuarantines()
	for _, q := range quarantines[:min(len(quarantines), maxQuarantines)] {
		v.Rows = append(v.Rows, c.quarantineView(q))
	}
	c.render(w, http.StatusOK, "quarantines", page{Title: "Quarantines", Nav: "/quarantines", Admin: admin, Live: true, Data: v})
}
