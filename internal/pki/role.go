package pki

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// Role is what a certificate's holder is to Cordon.
type Role string

// The roles. A certificate has exactly one.
const (
	RoleMitigator Role = "mitigator"
	RoleAgent     Role = "agent"
	RoleDevice    Role = "device"
)

// ErrNoIdentity is returned for a certificate that does not carry exactly one
// Cordon name.
var ErrNoIdentity = errors.New("certificate carries no Cordon identity")

const (
	uriScheme   = "cordon"
	maxIDLength = 64
)

// Identity is who a certificate says its holder is.
type Identity struct {
	Role Role
	// ID is unique within the role: 1 to 64 of a-z, 0-9 and "-".
	ID string
}

// String is the identity's URI form, "cordon:ROLE:ID".
func (i Identity) String() string {
	return uriScheme + ":" + string(i.Role) + ":" + i.ID
}

func (i Identity) uri() *url.URL {
	return &url.URL{Scheme: uriScheme, Opaque: string(i.Role) + ":" + i.ID}
}

func (i Identity) validate() error {
	switch i.Role {
	case RoleMitigator, RoleAgent, RoleDevice:
	default:
		return fmt.Errorf("role %q is none of mitigator, agent, device", i.Role)
	}
	if len(i.ID) == 0 || len(i.ID) > maxIDLength {
		return fmt.Errorf("id has %d characters, want 1 to %d", len(i.ID), maxIDLength)
	}
	for _, r := range i.ID {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' {
			return fmt.Errorf("id %q: want a-z, 0-9 and - only", i.ID)
		}
	}
	return nil
}

// IdentityOf reads the identity out of a certificate. It does not verify the
// certificate: the caller has its chain verified (crypto/tls does). The error
// wraps ErrNoIdentity.
func IdentityOf(cert *x509.Certificate) (Identity, error) {
	if len(cert.URIs) != 1 || cert.URIs[0].Scheme != uriScheme {
		return Identity{}, ErrNoIdentity
	}
	role, id, ok := strings.Cut(cert.URIs[0].Opaque, ":")
	if !ok {
		return Identity{}, ErrNoIdentity
	}
	identity := Identity{Role: Role(role), ID: id}
	if err := identity.validate(); err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrNoIdentity, err)
	}
	return identity, nil
}
