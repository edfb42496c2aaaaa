package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/cordon-security/cordon/agent"
	"github.com/cordon-security/cordon/agent/assess"
	"github.com/cordon-security/cordon/agent/observe"
	"github.com/cordon-security/cordon/internal/service"
)

type doctorCommand struct{}

// Run implements the command. It fails when only polling works.
func (*doctorCommand) Run() error {
	candidates := observe.Probe(observe.Options{Log: slog.New(slog.DiscardHandler)})
	used := ""
	for _, c := range candidates {
		switch {
		case c.Err != nil:
			fmt.Printf("%-15s not usable: %v\n", c.Name, c.Err)
		case used == "":
			used = c.Name
			fmt.Printf("%-15s in use\n", c.Name)
		default:
			fmt.Printf("%-15s works, %s is better\n", c.Name, used)
		}
	}
	if used == "poll" {
		fmt.Println("Connections and processes that live shorter than two seconds may be missed.")
		return service.Code(service.ExitFailed)
	}
	return nil
}

type assessCommand struct {
	Remote string `help:"Remote side of the connection." required:"" placeholder:"ADDRESS:PORT"`
	Facts  bool   `help:"Print the recorded facts as JSON too, as a test case."`
}

// Run implements the command. Without a running history it sees what is open
// now.
func (k *assessCommand) Run(c *commands) error {
	cfg, err := c.load()
	if err != nil {
		return err
	}
	flow, err := assess.ParseFlow(k.Remote, time.Now())
	if err != nil {
		return err
	}
	a, err := agent.New(agent.Options{Config: cfg, Log: slog.New(slog.DiscardHandler), Version: service.Version()})
	if err != nil {
		return err
	}
	defer a.Close()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Observe(ctx) }()
	defer func() { cancel(); <-done }()
	facts, evidence, err := a.Assess(flow)
	if err != nil {
		return err
	}
	if k.Facts {
		return printJSON(struct {
			Facts    assess.Facts    `json:"facts"`
			Evidence assess.Evidence `json:"evidence"`
		}{facts, evidence})
	}
	printEvidence(evidence)
	return nil
}

func printJSON(v any) error {
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func printEvidence(e assess.Evidence) {
	fmt.Println("verdict:", e.Verdict)
	for _, r := range e.Reasons {
		fmt.Printf("  %q\n", r)
	}
	for _, p := range e.Processes {
		fmt.Printf("process %d %q: %q\n", p.PID, p.Exe, p.Why)
	}
	for _, f := range e.Files {
		fmt.Printf("file %q: %q\n", f.Path, f.Why)
	}
	for _, s := range e.Entries {
		fmt.Printf("persistence %q: %q\n", s.Name(), s.Why)
	}
}
