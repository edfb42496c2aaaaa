package pki

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// ErrWrongCA is returned when a server's certificate does not lead to the CA
// that is expected.
var ErrWrongCA = errors.New("the server's certificate is not from the expected appliance")

// Fingerprint names a CA: the SHA-256 of its certificate's
// SubjectPublicKeyInfo (as in RFC 7469, section 2.4), so that it survives a
// new certificate for the same key.
type Fingerprint [sha256.Size]byte

// FingerprintOf returns the certificate's fingerprint.
func FingerprintOf(cert *x509.Certificate) Fingerprint {
	return sha256.Sum256(cert.RawSubjectPublicKeyInfo)
}

// String is the fingerprint's base32 form, as tokens carry it.
func (f Fingerprint) String() string { return encoding.EncodeToString(f[:]) }

// Equal compares in constant time.
func (f Fingerprint) Equal(g Fingerprint) bool {
	return subtle.ConstantTimeCompare(f[:], g[:]) == 1
}

// VerifyMitigator returns a check for tls.Config.VerifyConnection (with
// InsecureSkipVerify set, since it replaces the default check): the server's
// chain must end in a CA with exactly this fingerprint, and its certificate
// must be valid now, for ServerAuth, and of role "mitigator". Host names are
// not compared: the pinned CA gives that role to nobody but the mitigator, and
// so an appliance may change its address without losing its agents. The error
// wraps ErrWrongCA. A nil now means time.Now.
func (f Fingerprint) VerifyMitigator(now func() time.Time) func(tls.ConnectionState) error {
	if now == nil {
		now = time.Now
	}
	return func(state tls.ConnectionState) error {
		return f.verify(state.PeerCertificates, now())
	}
}

func (f Fingerprint) verify(chain []*x509.Certificate, now time.Time) error {
	if len(chain) == 0 {
		return fmt.Errorf("%w: it sent no certificate", ErrWrongCA)
	}
	roots := x509.NewCertPool()
	found := false
	for _, cert := range chain[1:] {
		if cert.IsCA && FingerprintOf(cert).Equal(f) {
			roots.AddCert(cert)
			found = true
		}
	}
	if !found {
		return fmt.Errorf("%w: no certificate in its chain has the fingerprint %s", ErrWrongCA, f)
	}
	leaf := chain[0]
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots:       roots,
		CurrentTime: now,
		KeyUsages:   []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrWrongCA, err)
	}
	identity, err := IdentityOf(leaf)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrWrongCA, err)
	}
	if identity.Role != RoleMitigator {
		return fmt.Errorf("%w: it is a certificate for the role %s", ErrWrongCA, identity.Role)
	}
	return nil
}
