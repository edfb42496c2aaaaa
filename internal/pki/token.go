package pki

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

const (
	tokenPrefix    = "cordon1"
	adminPrefix    = "cordonadmin1"
	secretSize     = 20
	maxTokenLength = 512
)

// encoding is RFC 4648 base32 in lower case, without padding: it survives being
// read out, and a double click selects all of it.
var encoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// ErrTokenFormat is returned for text that is not a token of the kind that was
// asked for. The error never repeats the text, which may hold a secret.
var ErrTokenFormat = errors.New("not such a token")

// Secret is a token's secret part: 160 random bits. Its String, its log value
// and its text marshalling never show it; Reveal does.
type Secret struct{ bytes [secretSize]byte }

// Reveal returns the secret's text, to be sent to the mitigator and nowhere
// else.
func (s Secret) Reveal() string { return encoding.EncodeToString(s.bytes[:]) }

// Hash is what the mitigator stores of the secret. It needs no salt and no
// slow hash: the secret is random and 160 bits long.
func (s Secret) Hash() [sha256.Size]byte { return sha256.Sum256(s.bytes[:]) }

// String hides the secret.
func (s Secret) String() string { return "[redacted]" }

// GoString hides the secret from %#v.
func (s Secret) GoString() string { return "[redacted]" }

// LogValue hides the secret from logs.
func (s Secret) LogValue() slog.Value { return slog.StringValue("[redacted]") }

// MarshalText hides the secret from encoders.
func (s Secret) MarshalText() ([]byte, error) { return []byte("[redacted]"), nil }

// ParseSecret reads a secret's text, strictly. The error wraps ErrTokenFormat.
func ParseSecret(text string) (Secret, error) {
	var s Secret
	if err := decodeExactly(s.bytes[:], text); err != nil {
		return Secret{}, fmt.Errorf("%w: its secret part: %w", ErrTokenFormat, err)
	}
	return s, nil
}

// Token is a one-time enrolment token of an agent, or an administrator's
// token. The text forms are
//
//	cordon1-SECRET-FINGERPRINT[@HOST:PORT]
//	cordonadmin1-SECRET-FINGERPRINT[@HOST:PORT]
//
// with the secret (20 bytes) and the fingerprint of the appliance's CA (32
// bytes) in lower-case base32 without padding, and the mitigator's address for
// agents or administrators where the mitigator knows it.
type Token struct {
	Secret      Secret
	Fingerprint Fingerprint
	// Server is "HOST:PORT" or empty.
	Server string
	// Admin says that it is an administrator's: the one is never taken for the
	// other.
	Admin bool
}

// NewAdminToken makes an administrator's token with a fresh secret. A server
// that is not empty must be "HOST:PORT".
func NewAdminToken(ca Fingerprint, server string) (Token, error) {
	t, err := NewToken(ca, server)
	t.Admin = true
	return t, err
}

// ParseAdminToken reads an administrator's token, as strictly as ParseToken.
// The error wraps ErrTokenFormat and never repeats the text.
func ParseAdminToken(text string) (Token, error) {
	t, err := parseToken(strings.TrimSpace(text), adminPrefix)
	if err != nil {
		return Token{}, fmt.Errorf("%w: %w; copy the whole line that `cordon-mitigator admin add` printed", ErrTokenFormat, err)
	}
	t.Admin = true
	return t, nil
}

func (t Token) prefix() string {
	if t.Admin {
		return adminPrefix
	}
	return tokenPrefix
}

// NewToken makes a token with a fresh secret. A server that is not empty must
// be "HOST:PORT".
func NewToken(ca Fingerprint, server string) (Token, error) {
	if server != "" {
		if err := CheckServer(server); err != nil {
			return Token{}, err
		}
	}
	t := Token{Fingerprint: ca, Server: server}
	if _, err := rand.Read(t.Secret.bytes[:]); err != nil {
		return Token{}, fmt.Errorf("make a token's secret: %w", err)
	}
	return t, nil
}

// Reveal returns the token's text with its secret: to show once to the person
// who asked for it.
func (t Token) Reveal() string {
	text := t.prefix() + "-" + t.Secret.Reveal() + "-" + t.Fingerprint.String()
	if t.Server != "" {
		text += "@" + t.Server
	}
	return text
}

// String hides the secret and shows the rest.
func (t Token) String() string {
	text := t.prefix() + "-[redacted]-" + t.Fingerprint.String()
	if t.Server != "" {
		text += "@" + t.Server
	}
	return text
}

// GoString hides the secret from %#v.
func (t Token) GoString() string { return t.String() }

// LogValue hides the secret from logs.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.String()) }

// MarshalText hides the secret from encoders.
func (t Token) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// ParseToken reads a token's text. Blanks around it are ignored, everything
// else must be exactly as Reveal writes it. The error wraps ErrTokenFormat,
// says what to do and never repeats the text.
func ParseToken(text string) (Token, error) {
	t, err := parseToken(strings.TrimSpace(text), tokenPrefix)
	if err != nil {
		return Token{}, fmt.Errorf("%w: %w; copy the whole line that `cordon agent token` printed", ErrTokenFormat, err)
	}
	return t, nil
}

func parseToken(text, prefix string) (Token, error) {
	if len(text) > maxTokenLength {
		return Token{}, fmt.Errorf("it has %d characters, more than %d", len(text), maxTokenLength)
	}
	body, server, hasServer := strings.Cut(text, "@")
	parts := strings.Split(body, "-")
	if parts[0] != prefix {
		return Token{}, errors.New("it does not start with " + prefix + "-")
	}
	if len(parts) != 3 {
		return Token{}, fmt.Errorf("it has %d parts, want 3", len(parts))
	}
	var t Token
	if err := decodeExactly(t.Secret.bytes[:], parts[1]); err != nil {
		return Token{}, fmt.Errorf("its secret part: %w", err)
	}
	if err := decodeExactly(t.Fingerprint[:], parts[2]); err != nil {
		return Token{}, fmt.Errorf("its fingerprint part: %w", err)
	}
	if !hasServer {
		return t, nil
	}
	if err := CheckServer(server); err != nil {
		return Token{}, err
	}
	t.Server = server
	return t, nil
}

// decodeExactly fills into from text. It wants the one canonical form: the
// right length, lower case, and no stray bits in the last character.
func decodeExactly(into []byte, text string) error {
	if want := encoding.EncodedLen(len(into)); len(text) != want {
		return fmt.Errorf("it has %d characters, want %d", len(text), want)
	}
	decoded, err := encoding.DecodeString(text)
	if err != nil || encoding.EncodeToString(decoded) != text {
		return errors.New("it has characters that do not belong there")
	}
	copy(into, decoded)
	return nil
}

// CheckServer says whether text is a "HOST:PORT" that an agent can dial.
func CheckServer(text string) error {
	host, port, err := net.SplitHostPort(text)
	if err != nil || host == "" {
		return errors.New("the server address is not HOST:PORT")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || port != strconv.FormatUint(n, 10) {
		return errors.New("the server address has no port between 1 and 65535")
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return nil
	}
	if !isHostName(host) {
		return errors.New("the server address has neither an IP address nor a host name")
	}
	return nil
}

// isHostName wants an RFC 1123 host name, the last dot optional.
func isHostName(host string) bool {
	host = strings.TrimSuffix(host, ".")
	if len(host) == 0 || len(host) > 253 {
		return false
	}
	for label := range strings.SplitSeq(host, ".") {
		if len(label) == 0 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, r := range label {
			if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' {
				return false
			}
		}
	}
	return true
}
