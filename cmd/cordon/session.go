package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/alecthomas/kong"
	"google.golang.org/protobuf/proto"

	"github.com/cordon-security/cordon/internal/wire/v1/wirev1connect"
)

// options are the flags that every command takes.
type options struct {
	Server    string        `help:"The appliance. Default: $$CORDON_SERVER, else what the token carries, else localhost:8443." placeholder:"HOST:PORT"`
	TokenFile string        `help:"File with the administrator's token, - for standard input. Default: $$CORDON_TOKEN_FILE, else what \"cordon login\" keeps, else /etc/cordon/admin.token." placeholder:"FILE" completion:"file"`
	Timeout   time.Duration `help:"How long to wait for an answer." default:"10s"`
	Output    string        `help:"table for people, json for programs." enum:"table,json" default:"table" short:"o"`
	UTC       bool          `help:"Show times in UTC, not in local time." name:"utc"`
}

// session is one run of one command.
type session struct {
	process
	options
	// ctx ends when the person interrupts.
	ctx   context.Context
	model *kong.Application
	// command is what is run, as it is typed: "cordon threat show".
	command string

	open *connection
}

// print writes to standard output. What comes from outside must have passed
// printable.
func (s *session) print(text string) error {
	if _, err := io.WriteString(s.stdout, text); err != nil {
		return fmt.Errorf("write the output: %w", err)
	}
	return nil
}

// say writes a line for the person to standard error, where it is in no
// program's way.
func (s *session) say(format string, args ...any) {
	fmt.Fprintln(s.stderr, printable(fmt.Sprintf(format, args...)))
}

// show prints an answer: as JSON, or as the person's text that lay makes.
func (s *session) show(m proto.Message, lay func(p *page)) error {
	if s.Output == "json" {
		text, err := jsonText(m)
		if err != nil {
			return err
		}
		return s.print(text)
	}
	p := s.page()
	lay(p)
	return s.print(p.String())
}

func (s *session) page() *page {
	zone := time.Local
	if s.UTC {
		zone = time.UTC
	}
	colour := s.env("NO_COLOR") == "" && s.env("TERM") != "dumb" && isTerminal(s.stdout)
	return &page{Builder: &strings.Builder{}, now: s.now(), zone: zone, colour: colour}
}

func (s *session) close() {
	if s.open != nil {
		s.open.close()
	}
}

// method is a call of the API, as the generated client has it.
type method[Req, Res any] func(wirev1connect.AdminServiceClient, context.Context, *connect.Request[Req]) (*connect.Response[Res], error)

// call carries one call out within the time-out. what says what it is for, as
// in "list threats"; hints says what to do about certain refusals.
func call[Req, Res any](s *session, what string, m method[Req, Res], request *Req, hints hints) (*Res, error) {
	if s.open == nil {
		c, err := connectTo(s)
		if err != nil {
			return nil, err
		}
		s.open = c
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.Timeout)
	defer cancel()
	response, err := m(s.open.client, ctx, connect.NewRequest(request))
	if err != nil {
		return nil, s.explain(what, err, hints)
	}
	return response.Msg, nil
}
