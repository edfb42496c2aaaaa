package main

import "testing"

func TestSalvage(t *testing.T) {
	d := defaults()
	for name, c := range map[string]struct{ file, stateDir, socket string }{
		"empty":            {"", d.StateDir, d.Socket},
		"no YAML":          {"\t{{{\nstate_dir: /a\n\x00\nsocket: /b/s\n", "/a", "/b/s"},
		"quotes":           {"state_dir: \"/a b\" # it\nsocket: '/b/s'\n", "/a b", "/b/s"},
		"comments":         {"#state_dir: /a\nsocket: /b/s # here\r\n", d.StateDir, "/b/s"},
		"without end":      {"state_dir: /a", "/a", d.Socket},
		"relative":         {"state_dir: a\nsocket: \"b\"\n", d.StateDir, d.Socket},
		"an open quote":    {"state_dir: \"/a\n", d.StateDir, d.Socket},
		"of another block": {"other:\n  state_dir: /a\n", d.StateDir, d.Socket},
		"another key":      {"state_directory: /a\n", d.StateDir, d.Socket},
		"the last counts":  {"socket: /a\nsocket: /b\n", d.StateDir, "/b"},
	} {
		if got := salvage([]byte(c.file)); got.StateDir != c.stateDir || got.Socket != c.socket {
			t.Errorf("%s: %q, %q", name, got.StateDir, got.Socket)
		}
	}
}
