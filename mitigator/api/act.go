package api

import (
	"context"
	"errors"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
	"github.com/cordon-security/cordon/mitigator/endpoint"
	"github.com/cordon-security/cordon/mitigator/lifecycle"
	"github.com/cordon-security/cordon/mitigator/store"
	"github.com/cordon-security/cordon/mitigator/threat"
)

const (
	// maxText bounds reasons and notes, in bytes: they stand in timelines.
	maxText = 1000
	// maxDuration is the longest that a quarantine with an end may last.
	maxDuration = 5 * 365 * 24 * time.Hour
	// defaultTokenLifetime is an enrolment token's when none is asked for.
	defaultTokenLifetime = time.Hour
)

// text checks what a person wrote.
func text(what, s string) (string, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return "", invalid("%s is missing: say why, it stands in the timeline", what)
	}
	if len(s) > maxText {
		return "", invalid("%s has %d bytes, at most %d are taken", what, len(s), maxText)
	}
	return s, nil
}

// QuarantineEndpoint implements AdminService. An endpoint named by a MAC that
// was never seen is made known, so that a machine can be cut off before it
// comes.
func (a *API) QuarantineEndpoint(ctx context.Context, r *connect.Request[wirev1.QuarantineEndpointRequest]) (*connect.Response[wirev1.QuarantineEndpointResponse], error) {
	admin, err := adminOf(ctx)
	if err != nil {
		return nil, err
	}
	reason, err := text("reason", r.Msg.GetReason())
	if err != nil {
		return nil, err
	}
	access := a.Lifecycle.Policy().Access
	switch r.Msg.GetAccess() {
	case wirev1.Access_ACCESS_NONE:
		access = threat.AccessNone
	case wirev1.Access_ACCESS_LIMITED:
		access = threat.AccessLimited
	}
	duration := r.Msg.GetDuration().AsDuration()
	if duration < 0 || duration > maxDuration {
		return nil, invalid("a quarantine lasts up to %s, or until it is released: not %s", maxDuration, duration)
	}
	ep, err := a.quarantinable(ctx, r.Msg.GetEndpoint())
	if err != nil {
		return nil, wireError(err)
	}
	q, err := a.Lifecycle.QuarantineByPerson(ctx, ep.ID, access, reason, admin, duration)
	if err != nil {
		return nil, wireError(err)
	}
	return connect.NewResponse(&wirev1.QuarantineEndpointResponse{Quarantine: quarantine(a.settled(ctx, q), ep.Name())}), nil
}

func (a *API) quarantinable(ctx context.Context, name string) (endpoint.Endpoint, error) {
	ep, err := a.endpointNamed(ctx, name)
	m, notMAC := endpoint.ParseMAC(strings.TrimSpace(name))
	if connect.CodeOf(err) == connect.CodeNotFound && notMAC == nil {
		return a.Lifecycle.EndpointByPerson(ctx, m)
	}
	return ep, err
}

// ReleaseEndpoint implements AdminService.
func (a *API) ReleaseEndpoint(ctx context.Context, r *connect.Request[wirev1.ReleaseEndpointRequest]) (*connect.Response[wirev1.ReleaseEndpointResponse], error) {
	admin, err := adminOf(ctx)
	if err != nil {
		return nil, err
	}
	if r.Msg.GetPreview() {
		return a.previewRelease(ctx, r.Msg.GetEndpoint())
	}
	if !r.Msg.GetThreatIsGone() {
		return nil, connect.NewError(connect.CodeFailedPrecondition,
			errors.New("a release needs the confirmation that the threat is gone"))
	}
	note := strings.TrimSpace(r.Msg.GetNote())
	if len(note) > maxText {
		return nil, invalid("note has %d bytes, at most %d are taken", len(note), maxText)
	}
	if note == "" {
		note = "(no note)"
	}
	ep, err := a.endpointNamed(ctx, r.Msg.GetEndpoint())
	if err != nil {
		return nil, wireError(err)
	}
	q, err := a.Lifecycle.ReleaseByPerson(ctx, ep.ID, admin, note)
	if err != nil {
		return nil, wireError(err)
	}
	return connect.NewResponse(&wirev1.ReleaseEndpointResponse{Quarantines: []*wirev1.QuarantineInfo{quarantine(a.settled(ctx, q), ep.Name())}}), nil
}

// previewRelease says what a release of the endpoint would lift: who is asked for
// the confirmation sees by it which machine the name stands for.
func (a *API) previewRelease(ctx context.Context, name string) (*connect.Response[wirev1.ReleaseEndpointResponse], error) {
	ep, err := a.endpointNamed(ctx, name)
	if err != nil {
		return nil, wireError(err)
	}
	out := &wirev1.ReleaseEndpointResponse{}
	err = a.Store.View(ctx, func(v store.View) error {
		q, ok, err := v.ActiveQuarantine(ep.ID)
		if err == nil && !ok {
			err = lifecycle.ErrNotQuarantined
		}
		out.Quarantines = []*wirev1.QuarantineInfo{quarantine(q, ep.Name())}
		return err
	})
	if err != nil {
		return nil, wireError(err)
	}
	return connect.NewResponse(out), nil
}

// CloseThreat implements AdminService.
func (a *API) CloseThreat(ctx context.Context, r *connect.Request[wirev1.CloseThreatRequest]) (*connect.Response[wirev1.CloseThreatResponse], error) {
	admin, err := adminOf(ctx)
	if err != nil {
		return nil, err
	}
	note, err := text("note", r.Msg.GetNote())
	if err != nil {
		return nil, err
	}
	if err := a.Lifecycle.CloseByPerson(ctx, r.Msg.GetId(), admin, note); err != nil {
		return nil, wireError(err)
	}
	out := &wirev1.CloseThreatResponse{}
	err = a.Store.View(ctx, func(v store.View) error {
		t, err := v.Threat(r.Msg.GetId())
		if err != nil {
			return err
		}
		out.Threat, err = threatOf(v, t)
		return err
	})
	return connect.NewResponse(out), wireError(err)
}

// CreateAgentToken implements AdminService.
func (a *API) CreateAgentToken(ctx context.Context, r *connect.Request[wirev1.CreateAgentTokenRequest]) (*connect.Response[wirev1.CreateAgentTokenResponse], error) {
	admin, err := adminOf(ctx)
	if err != nil {
		return nil, err
	}
	if n := len(r.Msg.GetComment()); n > maxText {
		return nil, invalid("comment has %d bytes, at most %d are taken", n, maxText)
	}
	lifetime := defaultTokenLifetime
	if r.Msg.GetLifetime() != nil {
		lifetime = r.Msg.GetLifetime().AsDuration()
	}
	if lifetime < time.Minute || lifetime > 30*24*time.Hour {
		return nil, invalid("a token lives from 1m to 720h, not %s", lifetime)
	}
	token, expires, err := a.Fleet.NewToken(ctx, r.Msg.GetComment(), admin, lifetime)
	if err != nil {
		return nil, wireError(err)
	}
	a.Log.Info("enrolment token made", "admin", admin, "expires", expires)
	return connect.NewResponse(&wirev1.CreateAgentTokenResponse{Token: token.Reveal(), ExpiresAt: timestamppb.New(expires)}), nil
}

// RevokeAgent implements AdminService.
func (a *API) RevokeAgent(ctx context.Context, r *connect.Request[wirev1.RevokeAgentRequest]) (*connect.Response[wirev1.RevokeAgentResponse], error) {
	admin, err := adminOf(ctx)
	if err != nil {
		return nil, err
	}
	reason, err := text("reason", r.Msg.GetReason())
	if err != nil {
		return nil, err
	}
	if err := a.Fleet.Revoke(ctx, r.Msg.GetAgentId(), admin, reason); err != nil {
		return nil, wireError(err)
	}
	a.Log.Info("agent revoked", "agent", r.Msg.GetAgentId(), "admin", admin, "reason", reason)
	return connect.NewResponse(&wirev1.RevokeAgentResponse{}), nil
}
