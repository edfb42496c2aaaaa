package admin

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cordon-security/cordon/internal/pki"
)

func open(t *testing.T, dir string) *Admins {
	t.Helper()
	a, err := New(dir)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func add(t *testing.T, a *Admins, name string) pki.Token {
	t.Helper()
	token, err := a.Add(name, "", pki.Fingerprint{1}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func wantName(t *testing.T, a *Admins, token, want string) {
	t.Helper()
	if got, ok := a.Authenticate(token); got != want || ok != (want != "") {
		t.Errorf("authenticated as %q (%v), want %q", got, ok, want)
	}
}

// TestTokens holds that a token lets its administrator in, as a whole and by its
// secret, as long as there is the administrator, and nothing else does.
func TestTokens(t *testing.T) {
	dir := t.TempDir()
	running, tool := open(t, dir), open(t, dir)
	wantName(t, running, "", "")
	token := add(t, tool, "carol")
	wantName(t, running, token.Reveal(), "carol")
	wantName(t, running, " "+token.Reveal()+"\n", "carol")
	wantName(t, running, token.Secret.Reveal(), "carol")
	other, err := pki.NewAdminToken(pki.Fingerprint{1}, "")
	if err != nil {
		t.Fatal(err)
	}
	enrol, err := pki.NewToken(pki.Fingerprint{1}, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, wrong := range []string{other.Reveal(), enrol.Reveal(), token.Secret.Reveal() + "a", "carol", strings.Repeat("-", 1<<16)} {
		wantName(t, running, wrong, "")
	}
	if err := tool.Remove("carol"); err != nil {
		t.Fatal(err)
	}
	wantName(t, running, token.Reveal(), "")
}

// TestFile holds that the file has no token in it and is nobody else's to read,
// and that a damaged one lets nobody in and says what to do.
func TestFile(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir)
	token := add(t, a, "carol")
	path := filepath.Join(dir, "admins.json")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(data), token.Secret.Reveal()) {
		t.Error("the file has the secret in it")
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	wantName(t, a, token.Reveal(), "carol")
	if err := os.WriteFile(path, []byte(`[{"name":"carol"`), 0o600); err != nil {
		t.Fatal(err)
	}
	wantName(t, a, token.Reveal(), "")
	if _, err := New(dir); err == nil || !strings.Contains(err.Error(), "put a backup back") {
		t.Errorf("a damaged file: %v", err)
	}
}

// TestNames holds what Add and Remove refuse.
func TestNames(t *testing.T) {
	a := open(t, t.TempDir())
	add(t, a, "carol")
	if _, err := a.Add("carol", "", pki.Fingerprint{}, time.Now()); !errors.Is(err, ErrExists) {
		t.Errorf("twice: %v", err)
	}
	for _, bad := range []string{"", "Carol", "a b", "x\n", strings.Repeat("a", 33), "ä"} {
		if _, err := a.Add(bad, "", pki.Fingerprint{}, time.Now()); !errors.Is(err, ErrName) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if err := a.Remove("dave"); !errors.Is(err, ErrUnknown) {
		t.Errorf("removed nobody: %v", err)
	}
}

// TestManyAtOnce holds that of administrators who are added at the same time
// none is lost.
func TestManyAtOnce(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			if _, err := open(t, dir).Add("admin-"+string(rune('a'+i)), "", pki.Fingerprint{}, time.Now()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if all, err := open(t, dir).List(); err != nil || len(all) != 16 {
		t.Errorf("%d administrators, %v", len(all), err)
	}
}
