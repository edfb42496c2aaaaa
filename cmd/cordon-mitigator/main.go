// Command cordon-mitigator takes alerts in, carries threats to their end, and
// serves agents, enforcement devices, administrators and the console.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"

	"github.com/alecthomas/kong"

	"github.com/cordon-security/cordon/internal/config"
	"github.com/cordon-security/cordon/internal/service"
	"github.com/cordon-security/cordon/mitigator"
)

const defaultConfig = "/etc/cordon/mitigator.yaml"

type commands struct {
	Config string `help:"Configuration file." default:"/etc/cordon/mitigator.yaml" placeholder:"FILE"`

	Run         runCommand     `cmd:"" help:"Run the mitigator (what the service does)."`
	Admin       adminCommands  `cmd:"" help:"Administrators, on the appliance itself."`
	CheckConfig checkCommand   `cmd:"" help:"Check the configuration file."`
	Version     versionCommand `cmd:"" help:"Print the version."`
}

func main() {
	var c commands
	k := kong.Parse(&c, kong.Name("cordon-mitigator"), kong.UsageOnError(),
		kong.Description("Cordon's mitigator: from an alert to a clean or an isolated endpoint."))
	os.Exit(exit(k.Run(&c)))
}

// exit prints an error once and returns the code that it asks for.
func exit(err error) int {
	var done exitCode
	if errors.As(err, &done) {
		return int(done)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cordon-mitigator:", err)
	}
	return service.ExitCode(err)
}

// exitCode ends the program without a further message.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// load reads the configuration. The default file may be missing.
func (c *commands) load() (mitigator.Config, error) {
	cfg := mitigator.DefaultConfig()
	err := config.Load(c.Config, &cfg)
	if c.Config == defaultConfig && errors.Is(err, fs.ErrNotExist) {
		return cfg, nil
	}
	return cfg, err
}

type runCommand struct{}

// Run implements the command.
func (*runCommand) Run(c *commands) error {
	code := service.Main("cordon-mitigator", func(ctx context.Context, ready func()) (err error) {
		cfg, err := c.load()
		if err != nil {
			return err
		}
		m, err := mitigator.New(ctx, mitigator.Options{Config: cfg, Version: service.Version(), Log: slog.Default()})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, m.Close()) }()
		unit := service.From(ctx)
		unit.Watch(m.Healthy)
		unit.Status("%s", m.Summary())
		return m.Run(ctx, func() {
			ready()
			go unit.KeepStatus(ctx, m.Summary)
		})
	})
	return exitCode(code)
}

type checkCommand struct {
	Explain bool `help:"List every key with its default."`
}

// Run implements the command.
func (k *checkCommand) Run(c *commands) error {
	if k.Explain {
		return config.WriteReference(os.Stdout, mitigator.DefaultConfig())
	}
	if _, err := c.load(); err != nil {
		return err
	}
	fmt.Println(c.Config + ": valid")
	return nil
}

type versionCommand struct{}

// Run implements the command.
func (*versionCommand) Run() error {
	fmt.Println("cordon-mitigator", service.Version())
	return nil
}
