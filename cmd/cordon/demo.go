package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/cordon-security/cordon/internal/demo"
)

// demoCommands play Cordon's story on a LAN of this machine's own making. They
// need no appliance and no token.
type demoCommands struct {
	Play demoCommand     `cmd:"" default:"withargs" help:"Play the whole story on a LAN of namespaces, as root; takes about a minute."`
	Down demoDownCommand `cmd:"" help:"Remove a LAN that was kept, or left behind."`
}

type demoCommand struct {
	Keep     bool     `help:"Leave the LAN up afterwards, and say how to reach its console."`
	Scenario []string `help:"Scenes to play: some of a,b,c,d,e,f. Default: all." placeholder:"a,b,..." sep:","`
	Bin      string   `help:"Folder of the built programs. Default: where this program is." placeholder:"DIR" completion:"file"`
	Alert    string   `help:"File whose first line is a Suricata EVE alert of TCP, to take the alerts' fields from." placeholder:"FILE" completion:"file"`
	Name     string   `help:"The LAN's name on this machine." default:"demo" hidden:""`
}

// Run implements the command. It fails when a step was not as it should be.
func (d *demoCommand) Run(s *session) error {
	if d.Bin == "" {
		exe, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find this program: %w", err)
		}
		d.Bin = filepath.Dir(exe)
	}
	out := s.stdout
	if s.Output == "json" {
		out = io.Discard
	}
	play, err := demo.New(demo.Options{Bin: d.Bin, Name: d.Name, Keep: d.Keep, Scenes: d.Scenario, Alert: d.Alert, Out: out})
	if err != nil {
		return err
	}
	// A reader that has gone, as in "cordon demo | head", and a terminal that was
	// closed end the story like Ctrl-C does, and everything is removed.
	ctx, stop := signal.NotifyContext(s.ctx, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	result, err := play.Run(ctx)
	if errors.Is(err, demo.ErrFailed) {
		err = &failure{code: exitFailed, what: err.Error(), hint: "the steps marked fail say what was found; the programs' logs are in " + result.Logs}
	}
	if s.Output != "json" {
		return err
	}
	text, e := json.MarshalIndent(result, "", "  ")
	if e != nil {
		return fmt.Errorf("write the report as JSON: %w", e)
	}
	if e := s.print(string(text) + "\n"); e != nil && err == nil {
		return e
	}
	return err
}

type demoDownCommand struct {
	Name string `help:"The LAN's name on this machine." default:"demo" hidden:""`
}

// Run implements the command. That nothing is there is no error.
func (d *demoDownCommand) Run(s *session) error {
	found, err := demo.Down(d.Name)
	switch {
	case err != nil:
		return err
	case found:
		s.say("the demo's LAN is removed")
	default:
		s.say("there is no LAN of the demo")
	}
	return nil
}
