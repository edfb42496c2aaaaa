package link

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"connectrpc.com/connect"

	"github.com/cordon-security/cordon/internal/durablefile"
	"github.com/cordon-security/cordon/internal/pki"
	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

const enrollingFile = "enrolling.pem"

// ErrAlreadyEnrolled is returned by Enroll where a live identity is there.
var ErrAlreadyEnrolled = errors.New("this endpoint is enrolled already: --replace gives that up and enrols it as a new agent")

// EnrollOptions is what an enrolment needs.
type EnrollOptions struct {
	// StateDir is the agent's state directory, made with mode 0700 if it is
	// not there.
	StateDir string
	Token    pki.Token
	// Server is the mitigator's "HOST:PORT"; empty takes the token's.
	Server   string
	Hostname string
	Version  string
	// Replace gives up an identity that is still valid.
	Replace bool
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Enroll makes the agent's key, which never leaves the endpoint, and exchanges
// the token and a request for a certificate. The mitigator must prove first
// that its CA is the one of the token; otherwise the secret is not sent, and
// the error wraps pki.ErrWrongCA. It returns the agent's id.
//
// A repeated call with the same token after a crash goes on with the same key
// and gets the same agent.
func Enroll(ctx context.Context, o EnrollOptions) (agentID string, err error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Server == "" {
		o.Server = o.Token.Server
	}
	if o.Server == "" {
		return "", errors.New("enrol: the token does not say where the mitigator is: give its address with --server HOST:PORT, such as appliance.example:7443")
	}
	if err := pki.CheckServer(o.Server); err != nil {
		return "", fmt.Errorf("enrol: %w", err)
	}
	if err := os.MkdirAll(o.StateDir, 0o700); err != nil {
		return "", fmt.Errorf("enrol: %w", err)
	}
	if old, err := loadIdentity(o.StateDir); err == nil && !old.expired(o.Now()) && !o.Replace {
		return "", ErrAlreadyEnrolled
	}
	key, err := enrollingKey(o.StateDir, o.Token)
	if err != nil {
		return "", fmt.Errorf("enrol: make the agent's key: %w", err)
	}
	id, err := requestIdentity(ctx, o, key)
	if err != nil {
		return "", fmt.Errorf("enrol at %s: %w", o.Server, err)
	}
	if err := id.store(o.StateDir); err != nil {
		return "", err
	}
	if err := os.Remove(filepath.Join(o.StateDir, enrollingFile)); err != nil {
		return "", fmt.Errorf("enrol: %w", err)
	}
	return id.agentID, nil
}

func requestIdentity(ctx context.Context, o EnrollOptions, key crypto.Signer) (*identity, error) {
	csr, err := newRequest(key)
	if err != nil {
		return nil, err
	}
	c := dial(o.Server, pinnedTLS(o.Token.Fingerprint, o.Now))
	defer c.close()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	response, err := c.Enroll(ctx, connect.NewRequest(&wirev1.EnrollRequest{
		Token: o.Token.Secret.Reveal(), Csr: csr, Hostname: o.Hostname, Version: o.Version,
	}))
	if err != nil {
		return nil, err
	}
	id := &identity{agentID: response.Msg.GetAgentId(), server: o.Server, key: key}
	id.chain, err = parseChain(response.Msg.GetChain(), key, o.Token.Fingerprint)
	if err != nil {
		return nil, err
	}
	return id, id.check()
}

// parseChain wants the certificate of our key, then the CA that we trust.
func parseChain(ders [][]byte, key crypto.Signer, ca pki.Fingerprint) ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	for _, der := range ders {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("the mitigator sent a damaged certificate: %w", err)
		}
		chain = append(chain, cert)
	}
	if len(chain) != 2 || !pki.FingerprintOf(chain[1]).Equal(ca) {
		return nil, fmt.Errorf("the mitigator sent no chain to its CA: %w", pki.ErrWrongCA)
	}
	public, ok := key.Public().(*ecdsa.PublicKey)
	if !ok || !public.Equal(chain[0].PublicKey) {
		return nil, errors.New("the mitigator sent a certificate for another key")
	}
	return chain, nil
}

func newKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

func newRequest(key crypto.Signer) ([]byte, error) {
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate request: %w", err)
	}
	return csr, nil
}

// enrollingKey returns the key of an enrolment with this token that did not
// come to its end, or makes and keeps a new one.
func enrollingKey(stateDir string, token pki.Token) (crypto.Signer, error) {
	path := filepath.Join(stateDir, enrollingFile)
	hash := token.Secret.Hash()
	// A hash of the hash: nothing on disk compares to what the mitigator keeps.
	mark := sha256.Sum256(hash[:])
	name := hex.EncodeToString(mark[:])
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if block, _ := pem.Decode(data); block != nil && block.Headers["Token"] == name {
		if parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
			if key, ok := parsed.(*ecdsa.PrivateKey); ok {
				return key, nil
			}
		}
	}
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	block := &pem.Block{Type: "PRIVATE KEY", Bytes: der, Headers: map[string]string{"Token": name}}
	return key, durablefile.Write(path, pem.EncodeToMemory(block))
}
