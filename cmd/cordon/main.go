// Command cordon is the administrator's command line: it asks and orders the
// mitigator over its API, with an administrator's token.
package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/cordon-security/cordon/internal/service"
	"github.com/cordon-security/cordon/internal/testlan"
)

const description = `Find, clean and quarantine endpoints behind security alerts.

Log in once with "cordon login"; docs/cli.md describes every command, the exit codes and the JSON.`

// commands is the whole command line. A command is a struct with a method
// Run(*session) error.
type commands struct {
	options

	Status      statusCommand      `cmd:"" help:"How the appliance is, alarms first."`
	Threats     threatsCommand     `cmd:"" help:"List threats, the newest first."`
	Threat      threatCommands     `cmd:"" help:"Look at one threat, or close it."`
	Endpoints   endpointsCommand   `cmd:"" help:"List the endpoints of the LAN."`
	Quarantines quarantinesCommand `cmd:"" help:"List quarantines."`
	Quarantine  quarantineCommand  `cmd:"" help:"Cut an endpoint off the network."`
	Release     releaseCommand     `cmd:"" help:"End an endpoint's quarantine, when the threat on it is gone."`
	Agents      agentsCommand      `cmd:"" help:"List the enrolled agents."`
	Agent       agentCommands      `cmd:"" help:"Let an agent in, or shut it out."`
	Sources     sourcesCommand     `cmd:"" help:"List the data sources, with counts and faults."`
	Events      eventsCommand      `cmd:"" help:"List what the data sources delivered, the newest first."`
	Rejects     rejectsCommand     `cmd:"" help:"Show what a source delivered that could not be read."`
	Login       loginCommand       `cmd:"" help:"Check an administrator's token and keep it for the next commands."`
	Logout      logoutCommand      `cmd:"" help:"Forget the token that login keeps."`
	Demo        demoCommands       `cmd:"" help:"Play the whole story on a LAN of this machine's own making."`
	Completion  completionCommand  `cmd:"" help:"Print the completion script of a shell."`
	Version     versionCommand     `cmd:"" help:"Print the version."`
}

// process is what a run has of the process that it is in.
type process struct {
	args           []string
	stdin          io.Reader
	stdout, stderr io.Writer
	// env looks an environment variable up; "" when it is not set.
	env func(name string) string
	now func() time.Time
}

func main() {
	testlan.RunActor() // the demo's hosts are this program, started again
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, process{
		args: os.Args[1:], stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, env: os.Getenv, now: time.Now,
	}))
}

// run carries one command line out and returns the exit code.
func run(ctx context.Context, p process) int {
	var c commands
	helped := false
	parser, err := newParser(&c, p.stdout, p.stderr, func(int) { helped = true })
	if err != nil {
		return report(p, err)
	}
	parsed, err := parser.Parse(p.args)
	if helped {
		return exitOK
	}
	if err != nil {
		return report(p, usageError(err))
	}
	s := &session{process: p, options: c.options, ctx: ctx, model: parser.Model, command: commandPath(parsed.Selected())}
	defer s.close()
	return report(p, parsed.Run(s))
}

func newParser(c *commands, stdout, stderr io.Writer, exit func(int)) (*kong.Kong, error) {
	return kong.New(c, kong.Name("cordon"), kong.Description(description),
		kong.Writers(stdout, stderr), kong.Exit(exit), kong.ConfigureHelp(kong.HelpOptions{Compact: true}))
}

// usageError adds to a fault of the command line which help to read.
func usageError(err error) error {
	help := "cordon --help"
	var parse *kong.ParseError
	if errors.As(err, &parse) && parse.Context != nil {
		if node := parse.Context.Selected(); node != nil {
			help = commandPath(node) + " --help"
		}
	}
	return &failure{code: exitUsage, what: err.Error(), hint: "`" + help + "` explains the command"}
}

// commandPath is how a command is typed, such as "cordon threat show".
func commandPath(n *kong.Node) string {
	if n.Parent == nil {
		return n.Name
	}
	return commandPath(n.Parent) + " " + n.Name
}

type versionCommand struct{}

// Run implements the command.
func (*versionCommand) Run(s *session) error {
	return s.print("cordon " + service.Version() + "\n")
}
