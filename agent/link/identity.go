package link

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/cordon-security/cordon/internal/durablefile"
	"github.com/cordon-security/cordon/internal/pki"
)

const identityFile = "identity.json"

// Errors that a person must act on; the messages say how.
var (
	ErrNotEnrolled = errors.New("this endpoint is not enrolled; make a token with `cordon agent token` on the appliance and enrol with it")
	ErrExpired     = errors.New("this agent's certificate has expired, so it cannot renew it; check the clock, then enrol anew with a token from `cordon agent token`")
)

// identity is who the agent is: its key and certificate, the CA that it trusts,
// and where its mitigator is.
type identity struct {
	agentID string
	server  string
	key     crypto.Signer
	chain   []*x509.Certificate // the agent's, then the CA's
}

// storedIdentity is the file's form.
type storedIdentity struct {
	AgentID string `json:"agent_id"`
	Server  string `json:"server"`
	// PEM is the private key, the agent's certificate, the CA's.
	PEM string `json:"pem"`
}

func loadIdentity(stateDir string) (*identity, error) {
	path := filepath.Join(stateDir, identityFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotEnrolled
	}
	if err != nil {
		return nil, fmt.Errorf("read the agent's identity: %w", err)
	}
	var stored storedIdentity
	if err := json.Unmarshal(data, &stored); err != nil {
		return nil, fmt.Errorf("%s is damaged; enrol anew with a token from `cordon agent token`", path)
	}
	id := &identity{agentID: stored.AgentID, server: stored.Server}
	id.key, id.chain, err = pki.DecodePair([]byte(stored.PEM))
	if err == nil {
		err = id.check()
	}
	if err != nil {
		return nil, fmt.Errorf("%s is damaged (%w); enrol anew with a token from `cordon agent token`", path, err)
	}
	return id, nil
}

func (id *identity) check() error {
	if len(id.chain) != 2 || !id.chain[1].IsCA {
		return errors.New("it does not hold the agent's certificate and its CA's")
	}
	if err := id.chain[0].CheckSignatureFrom(id.chain[1]); err != nil {
		return fmt.Errorf("the agent's certificate: %w", err)
	}
	who, err := pki.IdentityOf(id.chain[0])
	if err != nil {
		return err
	}
	if who != (pki.Identity{Role: pki.RoleAgent, ID: id.agentID}) {
		return fmt.Errorf("the certificate is for %s, not for agent %s", who, id.agentID)
	}
	return nil
}

func (id *identity) store(stateDir string) error {
	pair, err := pki.EncodePair(id.key, id.chain)
	if err != nil {
		return err
	}
	data, err := json.MarshalIndent(storedIdentity{AgentID: id.agentID, Server: id.server, PEM: string(pair)}, "", "  ")
	if err != nil {
		return err
	}
	if err := durablefile.Write(filepath.Join(stateDir, identityFile), append(data, '\n')); err != nil {
		return fmt.Errorf("keep the agent's identity: %w", err)
	}
	return nil
}

func (id *identity) leaf() *x509.Certificate { return id.chain[0] }

func (id *identity) expired(now time.Time) bool { return now.After(id.leaf().NotAfter) }

// clientTLS dials the mitigator as this agent, and only the mitigator of the CA
// of the enrolment.
func (id *identity) clientTLS(now func() time.Time) *tls.Config {
	c := pinnedTLS(pki.FingerprintOf(id.chain[1]), now)
	c.Certificates = []tls.Certificate{{
		Certificate: [][]byte{id.leaf().Raw},
		PrivateKey:  id.key,
		Leaf:        id.leaf(),
	}}
	return c
}

// pinnedTLS trusts one CA. The standard check is replaced, not left out:
// VerifyConnection checks chain, time, usage and role.
func pinnedTLS(ca pki.Fingerprint, now func() time.Time) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true,
		VerifyConnection:   ca.VerifyMitigator(now),
		Time:               now,
	}
}
