package fleet

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"connectrpc.com/connect"

	"github.com/cordon-security/cordon/internal/pki"
	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

const (
	maxHostname = 253
	maxVersion  = 64
	maxObserver = 64
)

// errToken says the same for an unknown, a used and an expired token: who
// guesses learns nothing. The mitigator's log says which it was.
var errToken = errors.New("the enrolment token is not valid: it is wrong, was used already, or has expired; make a new one with `cordon agent token`")

var errTooMany = errors.New("too many failed enrolments from this address; wait a minute, then try again with a new token from `cordon agent token`")

// AgentID derives an agent's id from its first public key: 26 characters of
// a-z and 2-7. So an enrolment that is repeated with the same key is the same
// agent.
func AgentID(key crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", fmt.Errorf("derive an agent's id: %w", err)
	}
	sum := sha256.Sum256(der)
	text := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:16])
	return strings.ToLower(text), nil
}

// service is AgentService over a Fleet.
type service struct{ fleet *Fleet }

// Enroll implements AgentService.
func (s *service) Enroll(ctx context.Context, req *connect.Request[wirev1.EnrollRequest]) (*connect.Response[wirev1.EnrollResponse], error) {
	f := s.fleet
	source := peerOf(ctx).source
	if !f.limiter.allowed(source) {
		return nil, connect.NewError(connect.CodeResourceExhausted, errTooMany)
	}
	response, err := f.enroll(ctx, req.Msg)
	if err == nil {
		f.log.Info("agent enrolled", "agent", response.GetAgentId(), "hostname", cleanText(req.Msg.GetHostname(), maxHostname), "source", source)
		return connect.NewResponse(response), nil
	}
	if !errors.Is(err, errStore) {
		f.limiter.failed(source)
	}
	return nil, err
}

func (f *Fleet) enroll(ctx context.Context, m *wirev1.EnrollRequest) (*wirev1.EnrollResponse, error) {
	secret, err := pki.ParseSecret(m.GetToken())
	if err != nil {
		return nil, f.refuseToken(ctx, err)
	}
	key, err := pki.RequestKey(m.GetCsr())
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	id, err := AgentID(key)
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	cert, err := f.ca.SignClient(pki.Identity{Role: pki.RoleAgent, ID: id}, m.GetCsr(), f.options.CertLifetime)
	if err != nil {
		return nil, f.internal("sign an agent's certificate", id, err)
	}
	now := f.now()
	agent := Agent{
		ID: id, Hostname: cleanText(m.GetHostname(), maxHostname), Version: cleanText(m.GetVersion(), maxVersion),
		EnrolledAt: now, LastSeen: now, CertExpires: cert.NotAfter, Serial: pki.SerialText(cert),
	}
	// The certificate leaves only after the token is consumed.
	err = f.store.EnrollAgent(ctx, secret.Hash(), now, agent)
	if errors.Is(err, ErrTokenUnknown) || errors.Is(err, ErrTokenUsed) || errors.Is(err, ErrTokenExpired) {
		return nil, f.refuseToken(ctx, err)
	}
	if err != nil {
		return nil, f.internal("enrol an agent", id, err)
	}
	return &wirev1.EnrollResponse{AgentId: id, Chain: f.chain(cert)}, nil
}

func (f *Fleet) refuseToken(ctx context.Context, why error) error {
	f.log.Warn("enrolment refused", "source", peerOf(ctx).source, "error", why)
	return connect.NewError(connect.CodeUnauthenticated, errToken)
}

// Renew implements AgentService. The present certificate stays valid until it
// expires: an agent may crash before it has kept the new one.
func (s *service) Renew(ctx context.Context, req *connect.Request[wirev1.RenewRequest]) (*connect.Response[wirev1.RenewResponse], error) {
	f := s.fleet
	id, err := f.authorize(ctx)
	if err != nil {
		return nil, err
	}
	cert, err := f.ca.SignClient(pki.Identity{Role: pki.RoleAgent, ID: id}, req.Msg.GetCsr(), f.options.CertLifetime)
	if errors.Is(err, pki.ErrBadRequest) {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	if err != nil {
		return nil, f.internal("sign an agent's certificate", id, err)
	}
	if err := f.store.SetCertificate(ctx, id, pki.SerialText(cert), cert.NotAfter); err != nil {
		return nil, f.internal("record an agent's certificate", id, err)
	}
	f.log.Info("agent certificate renewed", "agent", id, "expires", cert.NotAfter)
	return connect.NewResponse(&wirev1.RenewResponse{Chain: f.chain(cert)}), nil
}

func (f *Fleet) chain(cert *x509.Certificate) [][]byte {
	return [][]byte{cert.Raw, f.ca.Certificate().Raw}
}

// internal logs what the agent need not know and returns what it may.
func (f *Fleet) internal(what, id string, err error) error {
	f.log.Error("agent call failed", "agent", id, "step", what, "error", err)
	return connect.NewError(connect.CodeUnavailable, errStore)
}

// cleanText makes text from outside fit to be stored and shown: valid UTF-8,
// printable, of at most limit bytes.
func cleanText(text string, limit int) string {
	var b strings.Builder
	for _, r := range text {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			continue
		}
		if b.Len()+utf8.RuneLen(r) > limit {
			break
		}
		b.WriteRune(r)
	}
	return b.String()
}
