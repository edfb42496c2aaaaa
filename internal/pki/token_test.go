package pki

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func newToken(t testing.TB, server string) Token {
	t.Helper()
	token, err := NewToken(Fingerprint{1, 2, 3}, server)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestTokenRoundTrip(t *testing.T) {
	for _, server := range []string{"", "appliance.example:7443", "10.0.0.1:7443", "[fd00::1]:7443"} {
		token := newToken(t, server)
		got, err := ParseToken(" " + token.Reveal() + "\n")
		if err != nil || got != token {
			t.Errorf("server %q: got %v, %v", server, got, err)
		}
		secret, err := ParseSecret(token.Secret.Reveal())
		if err != nil || secret.Hash() != token.Secret.Hash() {
			t.Errorf("secret does not come back: %v", err)
		}
	}
}

func TestParseTokenRefuses(t *testing.T) {
	token := newToken(t, "")
	good := token.Reveal()
	for name, text := range map[string]string{
		"empty":            "",
		"other prefix":     strings.Replace(good, "cordon1", "cordon2", 1),
		"upper case":       strings.ToUpper(good),
		"short":            good[:len(good)-1],
		"long":             good + "a",
		"stray bits":       good[:len(good)-1] + "7",
		"fourth part":      good + "-a",
		"empty server":     good + "@",
		"no port":          good + "@appliance",
		"port zero":        good + "@appliance:0",
		"port with zeroes": good + "@appliance:07443",
		"two servers":      good + "@a:1@b:2",
		"blank inside":     strings.Replace(good, "-", "- ", 1),
		"endless":          good + "@" + strings.Repeat("a.", 1000) + "a:1",
	} {
		_, err := ParseToken(text)
		if !errors.Is(err, ErrTokenFormat) {
			t.Errorf("%s: error %v, want ErrTokenFormat", name, err)
			continue
		}
		if strings.Contains(err.Error(), token.Secret.Reveal()) {
			t.Errorf("%s: the error shows the secret", name)
		}
	}
}

func TestTokenIsNotShown(t *testing.T) {
	token := newToken(t, "a:1")
	var out bytes.Buffer
	for _, handler := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(handler).Info("x", "token", token, "secret", token.Secret, "pointer", &token)
	}
	fmt.Fprintf(&out, "%v %+v %#v %s %v %#v", token, token, token, token, token.Secret, token.Secret)
	fmt.Fprintf(&out, "%v %+v %#v", struct{ T Token }{token}, &token, struct{ S Secret }{token.Secret})
	if err := json.NewEncoder(&out).Encode(map[string]any{"token": token, "secret": token.Secret}); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), token.Secret.Reveal()) {
		t.Fatalf("the secret is shown: %s", out.String())
	}
	if !strings.Contains(out.String(), token.Fingerprint.String()) {
		t.Fatal("the fingerprint, which may be shown, is not")
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(newToken(f, "").Reveal())
	f.Add(newToken(f, "[fd00::1]:7443").Reveal())
	f.Add("cordon1--@")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := ParseToken(text)
		if err != nil {
			if !errors.Is(err, ErrTokenFormat) {
				t.Fatalf("error %v is not ErrTokenFormat", err)
			}
			return
		}
		if token.Reveal() != strings.TrimSpace(text) {
			t.Fatalf("%q was taken, but is written %q", text, token.Reveal())
		}
	})
}

// TestAdminTokenIsNoEnrolmentToken holds that neither kind is taken for the
// other, and that the administrator's hides its secret as well.
func TestAdminTokenIsNoEnrolmentToken(t *testing.T) {
	admin, err := NewAdminToken(Fingerprint{1}, "cordon.example:8443")
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseAdminToken(admin.Reveal())
	if err != nil || got != admin {
		t.Fatalf("read back as %v, %v", got, err)
	}
	if _, err := ParseToken(admin.Reveal()); !errors.Is(err, ErrTokenFormat) {
		t.Errorf("an administrator's token as an enrolment token: %v", err)
	}
	enrol, err := NewToken(Fingerprint{1}, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseAdminToken(enrol.Reveal()); !errors.Is(err, ErrTokenFormat) {
		t.Errorf("an enrolment token as an administrator's: %v", err)
	}
	if strings.Contains(admin.String(), admin.Secret.Reveal()) {
		t.Error("String shows the secret")
	}
}
