package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/cordon-security/cordon/internal/durablefile"
)

const (
	caFile     = "ca.pem"
	caLifetime = 30 * 365 * 24 * time.Hour
	// skew backdates certificates, for clocks that lag behind ours.
	skew = time.Hour

	maxCSRSize = 8 << 10
)

// ErrBadRequest is returned for a certificate request that is not acceptable;
// the message says why.
var ErrBadRequest = errors.New("certificate request refused")

// CA is the appliance's certificate authority. It is safe for concurrent use.
type CA struct {
	key  crypto.Signer
	cert *x509.Certificate
	dir  string
	now  func() time.Time
}

// Options says where a CA lives.
type Options struct {
	// Dir is the CA's directory, made with mode 0700 if it is not there.
	Dir string
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Open loads the CA of the directory, or makes it when there is none. The key
// is made once: a second Open of the same directory, also at the same time in
// another process, gets the same CA.
func Open(o Options) (*CA, error) {
	if o.Dir == "" {
		return nil, errors.New("open the CA: no directory given")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the CA: %w", err)
	}
	path := filepath.Join(o.Dir, caFile)
	ca, err := loadCA(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeCA(path, o.Now()); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("make the CA: %w", err)
		}
		ca, err = loadCA(path)
	}
	if err != nil {
		return nil, fmt.Errorf("open the CA: %w", err)
	}
	ca.dir, ca.now = o.Dir, o.Now
	return ca, nil
}

func loadCA(path string) (*CA, error) {
	key, chain, err := readPair(path)
	if err != nil {
		return nil, err
	}
	if !chain[0].IsCA {
		return nil, fmt.Errorf("%s: its certificate is not a CA's; restore the file from a backup", path)
	}
	return &CA{key: key, cert: chain[0]}, nil
}

func makeCA(path string, now time.Time) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	serial, err := newSerial()
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		// The serial makes two appliances' CAs differ for people who look.
		Subject:               pkix.Name{Organization: []string{"Cordon"}, CommonName: fmt.Sprintf("Cordon CA %.8x", serial)},
		NotBefore:             now.Add(-24 * skew),
		NotAfter:              now.Add(caLifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	data, err := encodePair(key, der)
	if err != nil {
		return err
	}
	return durablefile.Create(path, data)
}

// Certificate returns the CA's own certificate; do not change it.
func (ca *CA) Certificate() *x509.Certificate { return ca.cert }

// Fingerprint names the CA; see Fingerprint.
func (ca *CA) Fingerprint() Fingerprint { return FingerprintOf(ca.cert) }

// Pool returns a new pool that holds this CA alone.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	return pool
}

// SignClient makes a client certificate (ClientAuth) for an agent or a device.
// Of the PKCS #10 request (DER) only the public key is used, after its
// signature has been checked; accepted are ECDSA P-256, P-384 and Ed25519
// keys. The error wraps ErrBadRequest where the request is at fault.
func (ca *CA) SignClient(who Identity, csr []byte, lifetime time.Duration) (*x509.Certificate, error) {
	if who.Role != RoleAgent && who.Role != RoleDevice {
		return nil, fmt.Errorf("sign for %s: role gets no client certificate", who)
	}
	key, err := RequestKey(csr)
	if err != nil {
		return nil, err
	}
	if lifetime <= 0 {
		return nil, fmt.Errorf("sign for %s: lifetime %s is not above zero", who, lifetime)
	}
	now := ca.now()
	return ca.sign(who, key, &x509.Certificate{
		NotBefore:   now.Add(-skew),
		NotAfter:    now.Add(lifetime),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

// RequestKey returns the public key of a PKCS #10 request (DER), under the same
// checks as SignClient.
func RequestKey(csr []byte) (crypto.PublicKey, error) {
	if len(csr) > maxCSRSize {
		return nil, fmt.Errorf("%w: it has %d bytes, more than %d", ErrBadRequest, len(csr), maxCSRSize)
	}
	request, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadRequest, err)
	}
	if err := request.CheckSignature(); err != nil {
		return nil, fmt.Errorf("%w: its signature: %w", ErrBadRequest, err)
	}
	switch key := request.PublicKey.(type) {
	case ed25519.PublicKey:
		return key, nil
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P256() || key.Curve == elliptic.P384() {
			return key, nil
		}
	}
	return nil, fmt.Errorf("%w: its key is none of ECDSA P-256, ECDSA P-384, Ed25519", ErrBadRequest)
}

// sign completes the template and signs it.
func (ca *CA) sign(who Identity, key crypto.PublicKey, template *x509.Certificate) (*x509.Certificate, error) {
	if err := who.validate(); err != nil {
		return nil, fmt.Errorf("sign for %s: %w", who, err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	template.Subject = pkix.Name{Organization: []string{"Cordon"}, CommonName: who.ID}
	template.URIs = append(template.URIs, who.uri())
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.BasicConstraintsValid = true
	if template.NotAfter.After(ca.cert.NotAfter) {
		template.NotAfter = ca.cert.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key, ca.key)
	if err != nil {
		return nil, fmt.Errorf("sign for %s: %w", who, err)
	}
	return x509.ParseCertificate(der)
}

// SerialText is the form in which Cordon stores and shows serial numbers.
func SerialText(cert *x509.Certificate) string { return fmt.Sprintf("%032x", cert.SerialNumber) }

// newSerial returns a positive serial number of 127 random bits (RFC 5280,
// section 4.1.2.2).
func newSerial() (*big.Int, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("make a serial number: %w", err)
	}
	return serial.Add(serial, big.NewInt(1)), nil
}

// encodePair writes a private key and certificates as PEM.
func encodePair(key crypto.Signer, chain ...[]byte) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode the private key: %w", err)
	}
	data := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	for _, cert := range chain {
		data = append(data, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})...)
	}
	return data, nil
}

// readPair reads what encodePair wrote, and checks that the key belongs to the
// first certificate. The error never holds the file's contents.
func readPair(path string) (crypto.Signer, []*x509.Certificate, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	key, chain, err := DecodePair(data)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w; restore the file from a backup", path, err)
	}
	return key, chain, nil
}

// EncodePair writes a private key (PKCS #8) and its certificate chain as PEM.
// The result is a secret.
func EncodePair(key crypto.Signer, chain []*x509.Certificate) ([]byte, error) {
	ders := make([][]byte, 0, len(chain))
	for _, cert := range chain {
		ders = append(ders, cert.Raw)
	}
	return encodePair(key, ders...)
}

// DecodePair reads what EncodePair wrote. It wants one key, at least one
// certificate, and that the key belongs to the first of them.
func DecodePair(data []byte) (crypto.Signer, []*x509.Certificate, error) {
	var key crypto.Signer
	var chain []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case "PRIVATE KEY":
			parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			signer, ok := parsed.(crypto.Signer)
			if err != nil || !ok || key != nil {
				return nil, nil, errors.New("its private key is not usable")
			}
			key = signer
		case "CERTIFICATE":
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, nil, fmt.Errorf("its certificate: %w", err)
			}
			chain = append(chain, cert)
		}
	}
	if key == nil || len(chain) == 0 {
		return nil, nil, errors.New("it does not hold a private key and a certificate")
	}
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(chain[0].PublicKey) {
		return nil, nil, errors.New("its private key and its certificate do not belong together")
	}
	return key, chain, nil
}
