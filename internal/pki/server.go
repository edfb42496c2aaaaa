package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/cordon-security/cordon/internal/durablefile"
)

const (
	serverFile     = "server.pem"
	serverLifetime = 90 * 24 * time.Hour
	serverID       = "server"
)

// Server is the mitigator's server certificate: kept in the CA's directory,
// re-issued when a third of its life is left or when the names change. It is
// safe for concurrent use.
type Server struct {
	ca        *CA
	names     []string
	addresses []netip.Addr

	mu      sync.Mutex
	current *tls.Certificate
	renewAt time.Time
}

// NewServer returns the server certificate for the given DNS names and IP
// addresses, as texts. At least one is wanted, for browsers and for people;
// agents go by the CA (see Fingerprint.VerifyMitigator).
func (ca *CA) NewServer(names []string) (*Server, error) {
	s := &Server{ca: ca}
	for _, name := range names {
		if addr, err := netip.ParseAddr(name); err == nil {
			s.addresses = append(s.addresses, addr.Unmap().WithZone(""))
			continue
		}
		if !isHostName(name) {
			return nil, fmt.Errorf("server certificate: %q is neither a host name nor an IP address", name)
		}
		s.names = append(s.names, name)
	}
	if len(names) == 0 {
		return nil, errors.New("server certificate: no name and no address given")
	}
	slices.Sort(s.names)
	s.names = slices.Compact(s.names)
	slices.SortFunc(s.addresses, netip.Addr.Compare)
	s.addresses = slices.Compact(s.addresses)
	if _, err := s.certificate(); err != nil {
		return nil, err
	}
	return s, nil
}

// GetCertificate is for tls.Config.GetCertificate. When re-issuing fails while
// the present certificate is still valid, it serves the present one.
func (s *Server) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return s.certificate()
}

func (s *Server) certificate() (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.ca.now()
	if s.current == nil {
		s.load()
	}
	if s.current != nil && now.Before(s.renewAt) {
		return s.current, nil
	}
	if err := s.issue(now); err != nil {
		if s.current != nil && now.Before(s.current.Leaf.NotAfter) {
			return s.current, nil
		}
		return nil, err
	}
	return s.current, nil
}

// load takes the stored certificate, if it is readable, of this CA and has
// these names. If not, a new one takes its place: nothing hangs on the old.
func (s *Server) load() {
	key, chain, err := readPair(filepath.Join(s.ca.dir, serverFile))
	if err != nil {
		return
	}
	leaf := chain[0]
	if leaf.CheckSignatureFrom(s.ca.cert) != nil || !s.covers(leaf) {
		return
	}
	s.use(&tls.Certificate{Certificate: [][]byte{leaf.Raw, s.ca.cert.Raw}, PrivateKey: key, Leaf: leaf})
}

func (s *Server) covers(leaf *x509.Certificate) bool {
	addresses := make([]netip.Addr, 0, len(leaf.IPAddresses))
	for _, ip := range leaf.IPAddresses {
		addr, _ := netip.AddrFromSlice(ip)
		addresses = append(addresses, addr.Unmap())
	}
	return slices.Equal(leaf.DNSNames, s.names) && slices.Equal(addresses, s.addresses)
}

func (s *Server) issue(now time.Time) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make the server's key: %w", err)
	}
	template := &x509.Certificate{
		NotBefore:   now.Add(-skew),
		NotAfter:    now.Add(serverLifetime),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    s.names,
	}
	for _, addr := range s.addresses {
		template.IPAddresses = append(template.IPAddresses, net.IP(addr.AsSlice()))
	}
	leaf, err := s.ca.sign(Identity{Role: RoleMitigator, ID: serverID}, key.Public(), template)
	if err != nil {
		return err
	}
	data, err := encodePair(key, leaf.Raw, s.ca.cert.Raw)
	if err != nil {
		return err
	}
	if err := durablefile.Write(filepath.Join(s.ca.dir, serverFile), data); err != nil {
		return fmt.Errorf("keep the server certificate: %w", err)
	}
	s.use(&tls.Certificate{Certificate: [][]byte{leaf.Raw, s.ca.cert.Raw}, PrivateKey: key, Leaf: leaf})
	return nil
}

func (s *Server) use(cert *tls.Certificate) {
	s.current = cert
	s.renewAt = cert.Leaf.NotAfter.Add(-serverLifetime / 3)
}
