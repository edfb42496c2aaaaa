package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/cordon-security/cordon/agent/link"
	"github.com/cordon-security/cordon/internal/pki"
	"github.com/cordon-security/cordon/internal/service"
)

const (
	enrollTime = 2 * time.Minute
	maxToken   = 4096
)

type enrollCommand struct {
	TokenFile string `help:"File with the token; - reads standard input. The token is never taken as an argument, since everybody could read it in the process list." required:"" placeholder:"FILE"`
	Server    string `help:"HOST:PORT of the mitigator, when not the token's." placeholder:"HOST:PORT"`
	Replace   bool   `help:"Give up an identity that is still valid."`
}

// Run implements the command.
func (e *enrollCommand) Run(c *commands) error {
	cfg, err := c.load()
	if err != nil {
		return err
	}
	token, err := e.token()
	if err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("learn the host's name: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), enrollTime)
	defer cancel()
	id, err := link.Enroll(ctx, link.EnrollOptions{
		StateDir: cfg.StateDir, Token: token, Server: e.Server, Hostname: host, Version: service.Version(), Replace: e.Replace,
	})
	if err != nil {
		return err
	}
	fmt.Println("enrolled as", id)
	return nil
}

func (e *enrollCommand) token() (pki.Token, error) {
	in := os.Stdin
	if e.TokenFile != "-" {
		f, err := os.Open(e.TokenFile)
		if err != nil {
			return pki.Token{}, fmt.Errorf("read the token: %w", err)
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxToken))
	if err != nil {
		return pki.Token{}, fmt.Errorf("read the token: %w", err)
	}
	return pki.ParseToken(strings.TrimSpace(string(data)))
}
