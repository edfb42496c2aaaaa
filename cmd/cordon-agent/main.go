// Command cordon-agent is Cordon on an endpoint: it finds the process behind an
// alert, takes the threat off the host, and undoes what it did when asked.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"

	"github.com/alecthomas/kong"

	"github.com/cordon-security/cordon/agent"
	"github.com/cordon-security/cordon/internal/config"
	"github.com/cordon-security/cordon/internal/service"
)

// memoryLimit is what the garbage collector aims to stay under, in bytes.
const memoryLimit = 20 << 20

const defaultConfig = "/etc/cordon/agent.yaml"

type commands struct {
	Config string `help:"Configuration file." default:"/etc/cordon/agent.yaml" placeholder:"FILE"`

	Run         runCommand     `cmd:"" help:"Observe this endpoint and carry out the mitigator's tasks."`
	Enroll      enrollCommand  `cmd:"" help:"Enrol this endpoint with a token from \"cordon agent token\"."`
	Doctor      doctorCommand  `cmd:"" help:"Tell which sources of events work here, and why others do not."`
	Assess      assessCommand  `cmd:"" help:"Show what is behind a connection; changes nothing."`
	Vault       vaultCommands  `cmd:"" help:"Look at what was taken."`
	Restore     restoreCommand `cmd:"" help:"Bring an item of the vault back."`
	CheckConfig checkCommand   `cmd:"" help:"Check the configuration file."`
	Version     versionCommand `cmd:"" help:"Print the version."`
}

func main() {
	var c commands
	k := kong.Parse(&c, kong.Name("cordon-agent"), kong.Description("Cordon's agent for Linux endpoints."), kong.UsageOnError())
	os.Exit(service.Exit("cordon-agent", k.Run(&c)))
}

// load reads the configuration. The default file may be missing.
func (c *commands) load() (agent.Config, error) {
	cfg := agent.DefaultConfig()
	err := config.LoadUsual(c.Config, defaultConfig, &cfg)
	return cfg, err
}

type runCommand struct{}

// Run implements the command.
func (*runCommand) Run(c *commands) error {
	debug.SetMemoryLimit(memoryLimit)
	debug.SetGCPercent(50)
	code := service.Main("cordon-agent", func(ctx context.Context, ready func()) error {
		cfg, err := c.load()
		if err != nil {
			return err
		}
		a, err := agent.New(agent.Options{Config: cfg, Log: slog.Default(), Version: service.Version()})
		if err != nil {
			return err
		}
		unit := service.From(ctx)
		unit.Watch(a.Healthy)
		unit.Status("%s", a.Summary())
		return a.Run(ctx, func() {
			ready()
			go unit.KeepStatus(ctx, a.Summary)
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
		return config.WriteReference(os.Stdout, agent.DefaultConfig())
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
	fmt.Println("cordon-agent", service.Version())
	return nil
}
