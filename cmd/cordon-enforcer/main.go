// Command cordon-enforcer holds quarantines in force on a Linux router or
// bridge. It takes orders over a Unix socket, keeps them on disk, and makes
// nftables agree with them.
package main

import (
	"fmt"
	"os"

	"github.com/alecthomas/kong"

	"github.com/cordon-security/cordon/internal/config"
	"github.com/cordon-security/cordon/internal/service"
)

const defaultConfig = "/etc/cordon/enforcer.yaml"

type cli struct {
	Config string `help:"Configuration file." default:"/etc/cordon/enforcer.yaml" type:"path"`

	Run         runCommand     `cmd:"" default:"1" help:"Run the device (what the service does)."`
	CheckConfig checkCommand   `cmd:"" help:"Read the configuration file and say what is wrong with it."`
	Status      statusCommand  `cmd:"" help:"Show what is quarantined and whether it is in force."`
	ReleaseAll  releaseCommand `cmd:"" help:"Break glass: lift every quarantine at once, and hold orders back until resume."`
	Resume      resumeCommand  `cmd:"" help:"End break glass: put what is ordered in force again."`
	Version     versionCommand `cmd:"" help:"Print the version."`
}

func main() {
	var c cli
	ctx := kong.Parse(&c, kong.Name("cordon-enforcer"), kong.UsageOnError(),
		kong.Description("Holds Cordon's quarantines in force on this router or bridge."))
	os.Exit(service.Exit("cordon-enforcer", ctx.Run(&c)))
}

// load reads the file; only the default path may be missing.
func (c *cli) load() (Config, error) {
	out := defaults()
	err := config.LoadUsual(c.Config, defaultConfig, &out)
	return out, err
}

type checkCommand struct {
	Explain bool `help:"List every key with its type, default and meaning."`
}

// Run checks the file, or explains the keys.
func (k *checkCommand) Run(c *cli) error {
	if k.Explain {
		return config.WriteReference(os.Stdout, defaults())
	}
	if _, err := c.load(); err != nil {
		return err
	}
	fmt.Println(c.Config + ": valid")
	return nil
}

type versionCommand struct{}

// Run prints the version.
func (versionCommand) Run() error {
	fmt.Println(service.Version())
	return nil
}
