package console

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"strings"
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
	// Live pages refresh by themselves where scripts run, every Refresh seconds.
	Live    bool
	Refresh int
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
	p.Refresh = int(c.refresh.Seconds())
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
