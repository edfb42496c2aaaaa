package pki

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

func openCA(t *testing.T, dir string, now func() time.Time) *CA {
	t.Helper()
	ca, err := Open(Options{Dir: dir, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func request(t *testing.T, key any) []byte {
	t.Helper()
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"ignored.example"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

func ecdsaKey(t *testing.T, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestCAIsMadeOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	fingerprints := make([]Fingerprint, 8)
	var wg sync.WaitGroup
	for i := range fingerprints {
		wg.Go(func() {
			ca, err := Open(Options{Dir: dir})
			if err != nil {
				t.Error(err)
				return
			}
			fingerprints[i] = ca.Fingerprint()
		})
	}
	wg.Wait()
	for _, f := range fingerprints {
		if f != fingerprints[0] {
			t.Fatal("two CAs were made in one directory")
		}
	}
	info, err := os.Stat(filepath.Join(dir, caFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, error %v; want 0600", info.Mode(), err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("%d files are in the directory, want the CA alone (%v)", len(entries), err)
	}
}

func TestDamagedCAIsNotReplaced(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, caFile)
	if err := os.WriteFile(path, []byte("half a fi"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{Dir: dir}); err == nil {
		t.Fatal("a damaged CA was opened")
	}
	if data, _ := os.ReadFile(path); string(data) != "half a fi" {
		t.Fatal("a damaged CA was overwritten")
	}
}

func TestSignClientUsesTheKeyAlone(t *testing.T) {
	ca := openCA(t, t.TempDir(), nil)
	who := Identity{Role: RoleAgent, ID: "abc"}
	key := ecdsaKey(t, elliptic.P256())
	cert, err := ca.SignClient(who, request(t, key), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	got, err := IdentityOf(cert)
	if err != nil || got != who {
		t.Fatalf("identity %v, %v; want %v", got, err, who)
	}
	if len(cert.DNSNames) != 0 || cert.IsCA || len(cert.ExtKeyUsage) != 1 || cert.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth {
		t.Fatalf("the certificate says more than ClientAuth for %v: %+v", who, cert)
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		t.Fatal("the certificate is for another key")
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: ca.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Fatal(err)
	}
}

func TestRequestKeyRefuses(t *testing.T) {
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	good := request(t, ecdsaKey(t, elliptic.P256()))
	forged := append([]byte(nil), good...)
	forged[len(forged)-1] ^= 1
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		csr []byte
		ok  bool
	}{
		"P-256":    {good, true},
		"P-384":    {request(t, ecdsaKey(t, elliptic.P384())), true},
		"Ed25519":  {request(t, ed), true},
		"P-521":    {request(t, ecdsaKey(t, elliptic.P521())), false},
		"RSA":      {request(t, weak), false},
		"forged":   {forged, false},
		"trailing": {append(append([]byte(nil), good...), 0), false},
		"empty":    {nil, false},
		"huge":     {make([]byte, maxCSRSize+1), false},
	} {
		_, err := RequestKey(c.csr)
		if c.ok && err != nil || !c.ok && !errors.Is(err, ErrBadRequest) {
			t.Errorf("%s: error %v, want accepted: %v", name, err, c.ok)
		}
	}
}

func TestSignClientRefusesRolesAndIDs(t *testing.T) {
	ca := openCA(t, t.TempDir(), nil)
	csr := request(t, ecdsaKey(t, elliptic.P256()))
	for _, who := range []Identity{{RoleMitigator, "a"}, {"root", "a"}, {RoleAgent, ""}, {RoleAgent, "a:b"}, {RoleAgent, "A"}} {
		if _, err := ca.SignClient(who, csr, time.Hour); err == nil {
			t.Errorf("%v got a certificate", who)
		}
	}
}

func TestServerCertificateIsKeptRenewedAndFollowsNames(t *testing.T) {
	now := time.Now()
	dir := t.TempDir()
	ca := openCA(t, dir, func() time.Time { return now })
	serial := func(names ...string) string {
		t.Helper()
		s, err := ca.NewServer(names)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := s.GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		return SerialText(cert.Leaf)
	}
	first := serial("appliance", "10.0.0.1", "fd00::1")
	if serial("fd00::1", "10.0.0.1", "appliance") != first {
		t.Fatal("re-issued without a reason")
	}
	second := serial("appliance", "10.0.0.2")
	if second == first {
		t.Fatal("not re-issued for new names")
	}
	now = now.Add(serverLifetime * 2 / 3)
	if serial("appliance", "10.0.0.2") == second {
		t.Fatal("not re-issued before its expiry")
	}
	if err := os.WriteFile(filepath.Join(dir, serverFile), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if serial("appliance") == "" {
		t.Fatal("a damaged file was not replaced")
	}
	for _, bad := range [][]string{nil, {"a b"}, {"-"}} {
		if _, err := ca.NewServer(bad); err == nil {
			t.Errorf("names %q were taken", bad)
		}
	}
}

func TestVerifyMitigator(t *testing.T) {
	ca := openCA(t, t.TempDir(), nil)
	server, err := ca.NewServer([]string{"appliance"})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := server.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	client, err := ca.SignClient(Identity{RoleAgent, "a"}, request(t, ecdsaKey(t, elliptic.P256())), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	other := openCA(t, t.TempDir(), nil)
	rogue, err := other.NewServer([]string{"appliance"})
	if err != nil {
		t.Fatal(err)
	}
	rogueCert, err := rogue.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		chain []*x509.Certificate
		now   time.Time
		ok    bool
	}{
		"the mitigator":         {[]*x509.Certificate{cert.Leaf, ca.Certificate()}, time.Now(), true},
		"nothing":               {nil, time.Now(), false},
		"without its CA":        {[]*x509.Certificate{cert.Leaf}, time.Now(), false},
		"expired":               {[]*x509.Certificate{cert.Leaf, ca.Certificate()}, time.Now().Add(serverLifetime + time.Hour), false},
		"an agent":              {[]*x509.Certificate{client, ca.Certificate()}, time.Now(), false},
		"another CA":            {[]*x509.Certificate{rogueCert.Leaf, other.Certificate()}, time.Now(), false},
		"our CA beside a rogue": {[]*x509.Certificate{rogueCert.Leaf, other.Certificate(), ca.Certificate()}, time.Now(), false},
	} {
		verify := ca.Fingerprint().VerifyMitigator(func() time.Time { return c.now })
		err := verify(tls.ConnectionState{PeerCertificates: c.chain})
		if c.ok && err != nil || !c.ok && !errors.Is(err, ErrWrongCA) {
			t.Errorf("%s: error %v, want accepted: %v", name, err, c.ok)
		}
	}
}
