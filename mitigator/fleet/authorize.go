package fleet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"connectrpc.com/connect"

	"github.com/cordon-security/cordon/internal/pki"
)

var (
	errRevoked  = errors.New("this agent was revoked; to bring the endpoint back, enrol it anew with a token from `cordon agent token`")
	errReplaced = errors.New("a newer connection of this agent took over")
	errStopping = errors.New("the mitigator is stopping; connect again")
	errExpired  = errors.New("the certificate of this connection expired; connect again with a renewed one, or enrol anew with a token from `cordon agent token`")
	errNoCert   = errors.New("this call needs the agent's client certificate; enrol with a token from `cordon agent token`")
	errStore    = errors.New("the mitigator cannot reach its store now; try again later")
	errForeign  = errors.New("this mitigator does not know this agent; enrol it anew with a token from `cordon agent token`")
)

// storeTimeout bounds one question to the store inside a handshake.
const storeTimeout = 5 * time.Second

// peer is what the channel knows of who makes a call.
type peer struct {
	cert     *x509.Certificate // verified by TLS; nil without one
	source   netip.Addr
	response *http.ResponseController
}

type peerKey struct{}

// withPeer hands the connection's TLS state to the handlers, and bounds the
// time in which a request must have come in.
func (f *Fleet) withPeer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil {
			http.Error(w, "TLS only", http.StatusForbidden)
			return
		}
		p := &peer{response: http.NewResponseController(w)}
		if len(r.TLS.VerifiedChains) > 0 {
			p.cert = r.TLS.PeerCertificates[0]
		}
		if addr, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
			p.source = addr.Addr().Unmap()
		}
		if err := p.response.SetReadDeadline(time.Now().Add(receiveTimeout)); err != nil {
			f.log.Warn("cannot bound a request's time", "error", err)
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), peerKey{}, p)))
	})
}

func peerOf(ctx context.Context) *peer {
	p, ok := ctx.Value(peerKey{}).(*peer)
	if !ok {
		return &peer{}
	}
	return p
}

// agentOf returns the agent's id from a chain whose first certificate TLS has
// verified.
func agentOf(chain []*x509.Certificate) (string, error) {
	if len(chain) == 0 {
		return "", errNoCert
	}
	identity, err := pki.IdentityOf(chain[0])
	if err != nil {
		return "", err
	}
	if identity.Role != pki.RoleAgent {
		return "", fmt.Errorf("%w: the certificate's role is %s", errNoCert, identity.Role)
	}
	return identity.ID, nil
}

// verifyConnection refuses the handshakes of revoked and unknown agents. When
// the store cannot tell, the handshake passes, and each call asks again.
func (f *Fleet) verifyConnection(state tls.ConnectionState) error {
	if len(state.PeerCertificates) == 0 {
		return nil
	}
	id, err := agentOf(state.PeerCertificates)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	err = f.checkAgent(ctx, id)
	if err == nil || errors.Is(err, errStore) {
		return nil
	}
	f.log.Warn("agent refused", "agent", id, "error", err)
	return err
}

// checkAgent returns errRevoked, errForeign or errStore.
func (f *Fleet) checkAgent(ctx context.Context, id string) error {
	agent, err := f.store.Agent(ctx, id)
	switch {
	case errors.Is(err, ErrAgentUnknown):
		return errForeign
	case err != nil:
		if ctx.Err() == nil {
			f.log.Error("cannot read an agent from the store", "agent", id, "error", err)
		}
		return errStore
	case !agent.RevokedAt.IsZero():
		return errRevoked
	}
	return nil
}

// authorize returns the id of the agent that makes the call, or a connect
// error.
func (f *Fleet) authorize(ctx context.Context) (string, error) {
	cert := peerOf(ctx).cert
	if cert == nil {
		return "", connect.NewError(connect.CodeUnauthenticated, errNoCert)
	}
	id, err := agentOf([]*x509.Certificate{cert})
	if err != nil {
		return "", connect.NewError(connect.CodeUnauthenticated, err)
	}
	if f.now().After(cert.NotAfter) {
		return "", connect.NewError(connect.CodeUnauthenticated, errExpired)
	}
	if err := f.checkAgent(ctx, id); err != nil {
		return "", connect.NewError(codeOf(err), err)
	}
	return id, nil
}

func codeOf(err error) connect.Code {
	switch {
	case errors.Is(err, errStore), errors.Is(err, errStopping):
		return connect.CodeUnavailable
	case errors.Is(err, errReplaced):
		return connect.CodeAborted
	default:
		return connect.CodeUnauthenticated
	}
}
