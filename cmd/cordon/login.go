package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cordon-security/cordon/internal/durablefile"
	"github.com/cordon-security/cordon/internal/pki"
)

type loginCommand struct{}

// Run implements the command. The token is kept only when the appliance takes it.
func (*loginCommand) Run(s *session) error {
	file, err := s.keptToken()
	if err != nil {
		return err
	}
	token, err := s.newToken()
	if err != nil {
		return err
	}
	if s.open, err = s.connectAs(token); err != nil {
		return err
	}
	st, err := s.status()
	if err != nil {
		return err
	}
	// The address that worked is kept with the token.
	token.Server = s.open.server
	if err := keep(file, token); err != nil {
		return err
	}
	if err := s.show(st, func(p *page) {
		p.line(text("logged in at " + s.open.server + "; the token is in " + file))
		p.line(text("mode: "), modeWords(st.GetMode()))
	}); err != nil {
		return err
	}
	for _, name := range []string{"CORDON_TOKEN_FILE", "CORDON_TOKEN"} {
		if s.env(name) != "" {
			s.say("hint: %s is set, and the other commands use that instead", name)
		}
	}
	return nil
}

// newToken reads the token from the file that the flag names, or asks for it.
func (s *session) newToken() (pki.Token, error) {
	if s.TokenFile != "" {
		return s.tokenOf(s.TokenFile)
	}
	if !isTerminal(s.stdin) {
		return pki.Token{}, usage("log in: no terminal to ask for the token", "give it with --token-file FILE, or --token-file - for standard input")
	}
	answer, err := s.askHidden("Administrator's token (it is not shown):")
	if err != nil {
		return pki.Token{}, err
	}
	return parseToken("the prompt", answer)
}

// keep writes the token, whole or not at all, so that its owner alone can read it.
func keep(file string, token pki.Token) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("keep the token: %w", err)
	}
	if err := durablefile.Write(file, []byte(token.Reveal()+"\n")); err != nil {
		return fmt.Errorf("keep the token: %w", err)
	}
	return nil
}

type logoutCommand struct{}

// Run implements the command. It succeeds when there is nothing to forget.
func (*logoutCommand) Run(s *session) error {
	file, err := s.keptToken()
	if err != nil {
		return err
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget the token: %w", err)
	}
	return s.print("logged out: this machine has forgotten the token\n" +
		"To make it useless everywhere, remove the administrator on the appliance.\n")
}
