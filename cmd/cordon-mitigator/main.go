// Command cordon-mitigator takes alerts in, carries threats to their end, and
// serves agents, enforcement devices, administrators and the console.
package main

import (
	"context"
	"errors"
	"fmt"
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
	os.Exit(service.Exit("cordon-mitigator", k.Run(&c)))
}

// load reads the configuration. The default file may be missing.
func (c *commands) load() (mitigator.Config, error) {
	cfg := mitigator.DefaultConfig()
	err := config.LoadUsual(c.Config, defaultConfig, &cfg)
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
	return service.Code(code)
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
