package main

import (
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/cordon-security/cordon/agent"
)

type vaultCommands struct {
	List listCommand `cmd:"" help:"List the items of the vault."`
}

type listCommand struct {
	JSON bool `help:"Print as JSON." name:"json"`
}

// Run implements the command.
func (l *listCommand) Run(c *commands) error {
	cfg, err := c.load()
	if err != nil {
		return err
	}
	v, err := agent.OpenVault(cfg, "/")
	if err != nil {
		return err
	}
	items, err := v.List()
	if err != nil {
		return err
	}
	if l.JSON {
		return printJSON(items)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tKIND\tSTATE\tTAKEN\tPATH")
	for _, i := range items {
		// Names on the host may hold anything, so they are quoted.
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%q\n", i.ID, i.Kind, i.State, i.Taken.Format(time.RFC3339), i.Name())
	}
	return w.Flush()
}

type restoreCommand struct {
	ID    string `arg:"" help:"Item, as \"cordon-agent vault list\" names it."`
	Force bool   `help:"Replace what is there now."`
}

// Run implements the command.
func (r *restoreCommand) Run(c *commands) error {
	cfg, err := c.load()
	if err != nil {
		return err
	}
	v, err := agent.OpenVault(cfg, "/")
	if err != nil {
		return err
	}
	i, err := v.Restore(r.ID, r.Force)
	if err != nil {
		return err
	}
	fmt.Printf("restored %q\n", i.Name())
	return nil
}
