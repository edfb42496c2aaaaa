package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/cordon-security/cordon/internal/pki"
)

const (
	systemToken = "/etc/cordon/admin.token"
	// maxToken bounds what is read of a token file, in bytes.
	maxToken = 4096
)

const loginHint = "make a token on the appliance with `cordon-mitigator admin add NAME`, then `cordon login`"

// token finds the administrator's token: --token-file, CORDON_TOKEN_FILE,
// CORDON_TOKEN, what login keeps, the system's.
func (s *session) token() (pki.Token, error) {
	if file := s.TokenFile; file != "" {
		return s.tokenOf(file)
	}
	if file := s.env("CORDON_TOKEN_FILE"); file != "" {
		return s.tokenOf(file)
	}
	if text := s.env("CORDON_TOKEN"); text != "" {
		return parseToken("CORDON_TOKEN", text)
	}
	kept, err := s.keptToken()
	if err != nil {
		kept = ""
	}
	for _, file := range []string{kept, systemToken} {
		if file == "" {
			continue
		}
		token, err := readToken(file)
		if !errors.Is(err, fs.ErrNotExist) {
			return token, err
		}
	}
	return pki.Token{}, &failure{code: exitRefused, what: "no administrator's token", hint: loginHint}
}

// tokenOf reads the file that the person named; - is standard input.
func (s *session) tokenOf(file string) (pki.Token, error) {
	if file != "-" {
		return readToken(file)
	}
	text, err := io.ReadAll(io.LimitReader(s.stdin, maxToken))
	if err != nil {
		return pki.Token{}, fmt.Errorf("read the token from standard input: %w", err)
	}
	return parseToken("standard input", string(text))
}

// keptToken is where login keeps the token.
func (s *session) keptToken() (string, error) {
	dir := s.env("XDG_CONFIG_HOME")
	if !filepath.IsAbs(dir) {
		home := s.env("HOME")
		if !filepath.IsAbs(home) {
			return "", &failure{code: exitFailed, what: "no place to keep the token: neither XDG_CONFIG_HOME nor HOME is set", hint: "set one of them, or use --token-file FILE"}
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "cordon", "token"), nil
}

// readToken reads a token file that nobody else can read or could have put there.
func readToken(file string) (pki.Token, error) {
	f, err := os.Open(file)
	if err != nil {
		return pki.Token{}, &failure{code: exitRefused, what: "read the token", err: err, hint: loginHint}
	}
	defer f.Close()
	if err := private(f); err != nil {
		return pki.Token{}, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxToken))
	if err != nil {
		return pki.Token{}, fmt.Errorf("read the token: %w", err)
	}
	return parseToken(file, string(text))
}

// private refuses an open token file that others can read or write, or that
// somebody else owns.
func private(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("read the token: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return &failure{
			code: exitRefused, what: fmt.Sprintf("the token file %s is open to others (mode %#o), so it is not used", f.Name(), mode),
			hint: "chmod 600 " + f.Name() + "; if others may have read it, take the token back on the appliance and make a new one",
		}
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid != 0 && int(stat.Uid) != os.Geteuid() {
		return &failure{
			code: exitRefused, what: fmt.Sprintf("the token file %s belongs to user %d, so it is not used", f.Name(), stat.Uid),
			hint: "use a token file of your own; " + loginHint,
		}
	}
	return nil
}

// parseToken reads the token's text. Its errors never repeat it.
func parseToken(from, text string) (pki.Token, error) {
	token, err := pki.ParseAdminToken(strings.TrimSpace(text))
	if err == nil {
		return token, nil
	}
	hint := "copy the whole line that `cordon-mitigator admin add` printed"
	if _, agents := pki.ParseToken(text); agents == nil {
		hint = "this is an agent's enrolment token, for `cordon-agent enroll` on the endpoint; " + loginHint
	}
	return pki.Token{}, &failure{code: exitRefused, what: "the token from " + from + " is not an administrator's", err: err, hint: hint}
}
