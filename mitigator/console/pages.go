package console

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"

	"connectrpc.com/connect"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

const (
	// perPage is how many rows a table has.
	perPage = 50
	// maxSteps is how many transitions of a threat a page shows.
	maxSteps = 500
)

//go:embed templates/*.html static/*
var files embed.FS

// page is what every template is given.
type page struct {
	Title string
	// Nav is the path of the menu's entry that is current.
	Nav string
	// Admin is who is logged in; empty for nobody.
	Admin string
	// Live pages refresh by themselves where scripts run.
	Live bool
	// Shown is when the page was made.
	Shown moment
	Data  any
}

// asset is a file that pages load.
type asset struct {
	body []byte
	kind string
	tag  string
}

func loadAssets() (map[string]asset, error) {
	kinds := map[string]string{".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
	assets := make(map[string]asset)
	names, err := fs.Glob(files, "static/*")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		body, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}
		kind, ok := kinds[path.Ext(name)]
		if !ok {
			return nil, fmt.Errorf("static file %s has no known type", name)
		}
		sum := sha256.Sum256(body)
		assets[path.Base(name)] = asset{body: body, kind: kind, tag: hex.EncodeToString(sum[:6])}
	}
	return assets, nil
}

// loadPages parses each page with the layout around it.
func loadPages(assets map[string]asset) (map[string]*template.Template, error) {
	funcs := template.FuncMap{
		"asset": func(name string) (string, error) {
			a, ok := assets[name]
			if !ok {
				return "", fmt.Errorf("no static file %s", name)
			}
			return "/static/" + name + "?v=" + a.tag, nil
		},
		"join": func(texts []string) string { return strings.Join(texts, ", ") },
	}
	pages := make(map[string]*template.Template)
	names, err := fs.Glob(files, "templates/*.html")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		key := strings.TrimSuffix(path.Base(name), ".html")
		if key == "layout" || key == "parts" {
			continue
		}
		t, err := template.New("layout.html").Funcs(funcs).ParseFS(files, "templates/layout.html", "templates/parts.html", name)
		if err != nil {
			return nil, err
		}
		pages[key] = t
	}
	return pages, nil
}

// static serves a file of the console's own. Its address holds its hash, so a
// browser may keep it.
func (c *Console) static(w http.ResponseWriter, r *http.Request) {
	a, ok := c.assets[r.PathValue("name")]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", a.kind)
	if r.URL.Query().Get("v") == a.tag {
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	if _, err := w.Write(a.body); err != nil {
		c.log.Debug("console file not sent", "err", err)
	}
}

// render writes a page as a whole, or an error and nothing of it.
func (c *Console) render(w http.ResponseWriter, status int, name string, p page) {
	now := c.now().UTC()
	p.Shown = moment{ISO: now.Format("2006-01-02T15:04:05Z07:00"), Text: now.Format("2006-01-02 15:04:05")}
	var b bytes.Buffer
	if err := c.pages[name].Execute(&b, p); err != nil {
		c.log.Error("console page not made", "page", name, "err", err)
		http.Error(w, "This page could not be made. The mitigator's log says why.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	if _, err := w.Write(b.Bytes()); err != nil {
		c.log.Debug("console page not sent", "page", name, "err", err)
	}
}

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
	if n := int(v.Threat.Events) - len(v.Events); n > 0 {
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

// maxQuarantines is how many quarantines a page shows: the API has no pages.
const maxQuarantines = 500

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
