package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"regexp"
	"strings"

	"connectrpc.com/connect"

	"github.com/cordon-security/cordon/internal/pki"
)

// The exit codes, as docs/cli.md has them.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitUnreachable = 3
	exitRefused     = 4
	exitNotFound    = 5
)

// failure is an error for a person: what failed and why, what to do, and the
// exit code.
type failure struct {
	code int
	what string
	hint string
	err  error
}

func (f *failure) Error() string {
	if f.err == nil {
		return f.what
	}
	return f.what + ": " + f.err.Error()
}

func (f *failure) Unwrap() error { return f.err }

func usage(what, hint string) error { return &failure{code: exitUsage, what: what, hint: hint} }

// hints says what to do when the mitigator refuses with one of these codes.
type hints map[connect.Code]string

// tokenSecret finds tokens, so that one that was typed at the wrong place is
// not shown again.
var tokenSecret = regexp.MustCompile(`\b(cordon(?:admin)?1-)[A-Za-z0-9]+`)

// report prints an error once, with its hint, and returns the exit code.
func report(p process, err error) int {
	if err == nil {
		return exitOK
	}
	f := &failure{code: exitFailed}
	errors.As(err, &f)
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	leaked := tokenSecret.MatchString(text)
	text = tokenSecret.ReplaceAllString(text, "${1}[redacted]")
	fmt.Fprintln(p.stderr, "cordon:", printable(text))
	if leaked {
		f.hint = "a token is a secret and never an argument: everybody can read arguments in the process list. Take this one back on the appliance, and give the next to `cordon login` at its prompt or with --token-file -"
	}
	if f.hint != "" {
		fmt.Fprintln(p.stderr, "hint:", printable(f.hint))
	}
	return f.code
}

// explain turns the error of a call into one for a person.
func (s *session) explain(what string, err error, hints hints) error {
	f := &failure{code: exitFailed, what: what, err: err}
	switch server := s.open.server; {
	case s.ctx.Err() != nil:
		f.err, f.hint = errors.New("interrupted"), "it is not known whether the appliance carried it out; look with `cordon status`"
	case connect.IsWireError(err), connect.CodeOf(err) == connect.CodeUnauthenticated:
		f.answered(s.command, err, hints)
	case errors.Is(err, pki.ErrWrongCA):
		f.notTheAppliance(server, err)
	case connect.CodeOf(err) == connect.CodeResourceExhausted:
		f.err, f.hint = fmt.Errorf("the answer is larger than %d MB", maxAnswer>>20), "ask for less with --limit"
	default:
		f.unreachable(s, server, err)
	}
	return f
}

// answered explains what the mitigator itself said.
func (f *failure) answered(command string, err error, hints hints) {
	code := connect.CodeOf(err)
	f.err = errors.New(messageOf(err))
	switch code {
	case connect.CodeUnauthenticated:
		f.code = exitRefused
		f.hint = "the token is not, or no longer, an administrator's: make one on the appliance with `cordon-mitigator admin add NAME`, then `cordon login`"
	case connect.CodePermissionDenied:
		f.code = exitRefused
		f.hint = "a guard refused it, and nothing was changed; the rules are in the mitigator's configuration and in the enforcement device's"
	case connect.CodeResourceExhausted:
		f.code = exitRefused
		f.hint = "a limit is reached, and nothing was changed; `cordon status` and `cordon quarantines` show what counts towards it"
	case connect.CodeNotFound:
		f.code = exitNotFound
	case connect.CodeInvalidArgument:
		f.code = exitUsage
		f.hint = "`" + command + " --help` explains the command"
	case connect.CodeUnavailable:
		f.hint = "the appliance cannot do it now, and nothing was changed: `cordon status` shows its alarms; a full disk is the usual reason (`df -h` on the appliance)"
	case connect.CodeDeadlineExceeded:
		f.code = exitUnreachable
		f.hint = "the appliance is busy; try again, or wait longer with --timeout"
	case connect.CodeUnimplemented:
		f.hint = "the appliance has an older version than this command line (`cordon version`, `cordon status`)"
	case connect.CodeInternal, connect.CodeUnknown:
		f.hint = "the appliance's log says more: `journalctl -u cordon-mitigator`"
	}
	if hint := hints[code]; hint != "" {
		f.hint = hint
	}
}

// messageOf is what the server said, without the code's name before it.
func messageOf(err error) string {
	var e *connect.Error
	if errors.As(err, &e) && e.Message() != "" {
		return e.Message()
	}
	return err.Error()
}

func (f *failure) notTheAppliance(server string, err error) {
	f.code = exitRefused
	f.err = fmt.Errorf("%s is not the token's appliance: %w", server, causeOf(err))
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
		f.hint = "the appliance's certificate is not valid at this time: check this machine's clock and the appliance's; the token was not sent"
		return
	}
	f.hint = "somebody may be intercepting the connection; or the address is wrong, or the token is another appliance's. The token was not sent. Check --server, and do not log in anew before you know why the appliance changed"
}

func (f *failure) unreachable(s *session, server string, err error) {
	f.code = exitUnreachable
	cause := causeOf(err)
	var record tls.RecordHeaderError
	var dns *net.DNSError
	var op *net.OpError
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		cause = fmt.Errorf("no answer within %s", s.Timeout)
		f.hint = "is the address right, and does a firewall or a quarantine stand between? Wait longer with --timeout"
	case errors.As(err, &dns):
		f.hint = "check the name, or give the address with --server HOST:PORT or CORDON_SERVER"
	case errors.As(err, &record):
		cause = errors.New("it does not speak TLS")
		f.hint = "check the port: administrators use 8443"
	case errors.As(err, &op) && op.Op == "dial":
		cause = op.Err
		f.hint = "is cordon-mitigator running there (`systemctl status cordon-mitigator`), and is the address right? Give another with --server HOST:PORT or CORDON_SERVER"
	case errors.As(err, &op) && op.Op == "remote error":
		f.hint = "check the address and the port: administrators use 8443, and TLS 1.3"
	case errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &op):
		f.hint = "the connection broke, so it is not known whether it was carried out; look with `cordon status`"
	default:
		f.hint = "check the address and the port: what answers there is not the API for administrators, which is on 8443"
	}
	f.err = fmt.Errorf("%s: %w", server, cause)
}

// causeOf takes off what the layers above the cause only repeat.
func causeOf(err error) error {
	var e *connect.Error
	if errors.As(err, &e) {
		if inner := e.Unwrap(); inner != nil {
			err = inner
		}
	}
	// It says "Post URL:" before what the connection says.
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
