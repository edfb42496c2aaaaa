// Package api serves AdminService, the mitigator's interface for administrators:
// the command line, the console and scripts. It shows what the store and the
// running parts know, and passes what an administrator decides to the life
// cycle, with that administrator's name.
package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/cordon-security/cordon/internal/pki"
	"github.com/cordon-security/cordon/internal/wire/v1/wirev1connect"
	"github.com/cordon-security/cordon/mitigator/device"
	"github.com/cordon-security/cordon/mitigator/endpoint"
	"github.com/cordon-security/cordon/mitigator/intake"
	"github.com/cordon-security/cordon/mitigator/store"
	"github.com/cordon-security/cordon/mitigator/threat"
)

// maxRequest bounds a request in bytes; none holds more than a few texts.
const maxRequest = 64 << 10

// Lifecycle is what the API needs of the life cycle.
type Lifecycle interface {
	Policy() threat.Policy
	// Alarms lists what a person should look at, the most urgent first.
	Alarms() []string
	// EndpointByPerson finds the endpoint of a MAC, or makes it.
	EndpointByPerson(ctx context.Context, m endpoint.MAC) (endpoint.Endpoint, error)
	QuarantineByPerson(ctx context.Context, endpointID int64, access threat.Access, reason, admin string, duration time.Duration) (threat.Quarantine, error)
	ReleaseByPerson(ctx context.Context, endpointID int64, admin, confirmation string) (threat.Quarantine, error)
	CloseByPerson(ctx context.Context, threatID int64, admin, note string) error
}

// Fleet is what the API needs of the agent channel.
type Fleet interface {
	Connected(agentID string) bool
	ConnectedCount() int
	NewToken(ctx context.Context, comment, createdBy string, lifetime time.Duration) (pki.Token, time.Time, error)
	Revoke(ctx context.Context, agentID, by, reason string) error
}

// Sources tells how the data sources do.
type Sources interface {
	Statuses() []intake.Status
}

// Device is one enforcement device.
type Device interface {
	State() device.State
}

// Authenticator knows administrators by their tokens.
type Authenticator interface {
	Authenticate(token string) (name string, ok bool)
}

// Options are what the API needs; all but Now are required, and Devices may be
// empty.
type Options struct {
	Store     store.Store
	Lifecycle Lifecycle
	Fleet     Fleet
	Sources   Sources
	Devices   []Device
	Admins    Authenticator
	Log       *slog.Logger
	// Version and Started are shown in the status.
	Version string
	Started time.Time
	// Now is the clock; time.Now when nil.
	Now func() time.Time
}

// API is AdminService. It is safe for concurrent use.
type API struct {
	Options
}

var _ wirev1connect.AdminServiceHandler = (*API)(nil)

// New checks the options.
func New(o Options) (*API, error) {
	if o.Store == nil || o.Lifecycle == nil || o.Fleet == nil || o.Sources == nil || o.Admins == nil || o.Log == nil {
		return nil, errors.New("api: Store, Lifecycle, Fleet, Sources, Admins and Log are required")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &API{o}, nil
}

// Handler serves AdminService below the path that it returns. Every call needs
// an administrator's token: "Authorization: Bearer TOKEN", whole or its secret
// part.
func (a *API) Handler() (path string, handler http.Handler) {
	path, handler = wirev1connect.NewAdminServiceHandler(a,
		connect.WithReadMaxBytes(maxRequest),
		connect.WithRecover(a.recovered),
	)
	return path, a.authenticated(handler)
}

func (a *API) recovered(_ context.Context, spec connect.Spec, _ http.Header, cause any) error {
	a.Log.Error("administrator's call failed inside", "procedure", spec.Procedure, "cause", cause)
	return connect.NewError(connect.CodeInternal, errors.New("the mitigator failed on this call; its log says why"))
}

// adminKey is where a context holds the administrator's name.
type adminKey struct{}

// WithAdmin returns a context in which the administrator of that name calls:
// for callers in this process that have authenticated one themselves.
func WithAdmin(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, adminKey{}, name)
}

// adminOf names the administrator who calls. What changes something asks it, so
// that no call without one gets that far.
func adminOf(ctx context.Context) (string, error) {
	name, ok := ctx.Value(adminKey{}).(string)
	if !ok || name == "" {
		return "", connect.NewError(connect.CodeUnauthenticated, errors.New("no administrator"))
	}
	return name, nil
}

// authenticated lets administrators through. A refusal is written by hand so
// that the request's body is not even read.
func (a *API) authenticated(next http.Handler) http.Handler {
	refusal := connect.NewErrorWriter()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		name, ok := "", false
		if strings.EqualFold(scheme, "Bearer") {
			name, ok = a.Admins.Authenticate(token)
		}
		if ok {
			next.ServeHTTP(w, r.WithContext(WithAdmin(r.Context(), name)))
			return
		}
		err := connect.NewError(connect.CodeUnauthenticated,
			errors.New("not an administrator's token; `cordon-mitigator admin add NAME` on the appliance makes one"))
		if !refusal.IsSupported(r) {
			http.Error(w, err.Message(), http.StatusUnauthorized)
			return
		}
		if err := refusal.Write(w, r, err); err != nil {
			a.Log.Debug("refuse a call", "error", err)
		}
	})
}
