package main

import (
	"os"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// Every command, argument and flag is on the page.
func TestDocsNameEveryCommand(t *testing.T) {
	data, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	root := model(t).Node
	named := 0
	for _, leaf := range root.Leaves(true) {
		named++
		path := commandPath(leaf)
		if leaf.Parent.DefaultCmd == leaf {
			path = commandPath(leaf.Parent)
		}
		if !strings.Contains(page, "`"+path) {
			t.Errorf("docs/cli.md does not name `%s`", path)
		}
		if !strings.Contains(page, "$ "+path) {
			t.Errorf("docs/cli.md has no example of %s", path)
		}
		checkFlags(t, page, leaf)
	}
	checkFlags(t, page, root)
	if named < 15 {
		t.Errorf("only %d commands", named)
	}
}

func checkFlags(t *testing.T, page string, n *kong.Node) {
	t.Helper()
	for _, f := range n.Flags {
		if !f.Hidden && !strings.Contains(page, "--"+f.Name) {
			t.Errorf("docs/cli.md does not name --%s of %s", f.Name, commandPath(n))
		}
	}
	for _, arg := range n.Positional {
		if !strings.Contains(page, strings.ToUpper(arg.Name)) {
			t.Errorf("docs/cli.md does not name %s of %s", strings.ToUpper(arg.Name), commandPath(n))
		}
	}
}
