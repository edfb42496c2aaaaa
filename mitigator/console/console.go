// Package console serves the mitigator's pages to administrators: the threat
// event log, one threat's timeline, and what stands around them. The pages are
// read-only, need a log-in with an administrator's token, load nothing from
// elsewhere and work without scripts. What alerts bring is hostile: it is
// escaped, cut and freed of characters that deceive a reader.
package console

import (
	"context"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"time"

	"connectrpc.com/connect"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
	"github.com/cordon-security/cordon/internal/wire/v1/wirev1connect"
)

const (
	defaultLifetime = 12 * time.Hour
	idleLifetime    = time.Hour
	defaultRefresh  = 15 * time.Second
	// apiTimeout bounds one call of the API: a page never hangs on a busy store.
	apiTimeout = 10 * time.Second
)

// Authenticator knows administrators' tokens. It is asked at each log-in, and
// again at each request of a session, so that a token that was removed ends its
// sessions. It must be safe for concurrent use.
type Authenticator interface {
	Authenticate(token string) (name string, ok bool)
}

// Options is what a Console works with.
type Options struct {
	// API is called in the process, without a token; only what reads is called.
	API wirev1connect.AdminServiceHandler
	// Admins says whose token it is.
	Admins Authenticator
	Log    *slog.Logger
	// Now is the clock; time.Now when nil.
	Now func() time.Time
	// SessionLifetime ends a session whatever happens; 12 hours when zero. An
	// idle session ends after an hour, or after this if it is shorter.
	SessionLifetime time.Duration
}

// reader is the part of the API that the console has: it cannot change a thing.
type reader interface {
	GetStatus(context.Context, *connect.Request[wirev1.GetStatusRequest]) (*connect.Response[wirev1.GetStatusResponse], error)
	ListThreats(context.Context, *connect.Request[wirev1.ListThreatsRequest]) (*connect.Response[wirev1.ListThreatsResponse], error)
	GetThreat(context.Context, *connect.Request[wirev1.GetThreatRequest]) (*connect.Response[wirev1.GetThreatResponse], error)
	ListEvents(context.Context, *connect.Request[wirev1.ListEventsRequest]) (*connect.Response[wirev1.ListEventsResponse], error)
	ListEndpoints(context.Context, *connect.Request[wirev1.ListEndpointsRequest]) (*connect.Response[wirev1.ListEndpointsResponse], error)
	ListQuarantines(context.Context, *connect.Request[wirev1.ListQuarantinesRequest]) (*connect.Response[wirev1.ListQuarantinesResponse], error)
}

// Console serves the pages. It is safe for concurrent use.
type Console struct {
	api      reader
	admins   Authenticator
	log      *slog.Logger
	now      func() time.Time
	pages    map[string]*template.Template
	assets   map[string]asset
	sessions *sessions
	attempts *attempts
	handler  http.Handler
	// refresh is how often a page that changes loads itself again.
	refresh time.Duration
}

// New returns a console. It starts nothing.
func New(o Options) (*Console, error) {
	var missing error
	if o.API == nil {
		missing = errors.Join(missing, errors.New("no API given"))
	}
	if o.Admins == nil {
		missing = errors.Join(missing, errors.New("no Admins given"))
	}
	if o.Log == nil {
		missing = errors.Join(missing, errors.New("no Log given"))
	}
	if o.SessionLifetime < 0 {
		missing = errors.Join(missing, fmt.Errorf("session lifetime %s is negative", o.SessionLifetime))
	}
	if missing != nil {
		return nil, fmt.Errorf("console: %w", missing)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.SessionLifetime == 0 {
		o.SessionLifetime = defaultLifetime
	}
	assets, err := loadAssets()
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	pages, err := loadPages(assets)
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	c := &Console{
		api: o.API, admins: o.Admins, log: o.Log, now: o.Now, pages: pages, assets: assets,
		sessions: newSessions(o.SessionLifetime, min(o.SessionLifetime, idleLifetime)),
		attempts: newAttempts(),
		refresh:  defaultRefresh,
	}
	c.handler = c.routes()
	return c, nil
}

// Handler serves every page and what they load; mount it at "/". It must be
// served over TLS alone: browsers give its cookie to nothing else.
func (c *Console) Handler() http.Handler { return c.handler }

func (c *Console) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /static/{name}", c.static)
	mux.HandleFunc("GET /login", c.showLogin)
	mux.HandleFunc("POST /login", c.login)
	mux.HandleFunc("POST /logout", c.logout)
	mux.HandleFunc("GET /{$}", c.loggedIn(c.home))
	mux.HandleFunc("GET /threats/{id}", c.loggedIn(c.threat))
	mux.HandleFunc("GET /events", c.loggedIn(c.events))
	mux.HandleFunc("GET /endpoints", c.loggedIn(c.endpoints))
	mux.HandleFunc("GET /quarantines", c.loggedIn(c.quarantines))
	mux.HandleFunc("GET /", c.loggedIn(c.notFound))
	return secured(mux)
}
