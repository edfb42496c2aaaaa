package mitigator

import (
	"os"
	"strings"
	"testing"

	"github.com/cordon-security/cordon/internal/config"
)

const page = "../docs/mitigator.md"

// TestDocsNameEveryKey holds that the pages explain every key; those of the
// intake stand on a page of their own.
func TestDocsNameEveryKey(t *testing.T) {
	var pages string
	for _, path := range []string{page, "../docs/data-sources.md", "../docs/store.md"} {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		pages += string(raw)
	}
	for _, missing := range config.MissingInDocs(pages, DefaultConfig()) {
		t.Errorf("%s: %s", page, missing)
	}
}

// TestDocsExample holds that the page's example is accepted as it stands, and so
// is an empty file.
func TestDocsExample(t *testing.T) {
	raw, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(raw), "<!-- tested: mitigator -->\n```yaml\n")
	if !ok {
		t.Fatalf("%s has no example", page)
	}
	example, _, _ := strings.Cut(rest, "```")
	for _, text := range []string{example, ""} {
		c := DefaultConfig()
		if err := config.Parse(page, []byte(text), &c); err != nil {
			t.Error(err)
		}
	}
}

// TestRefused holds that what cannot work is refused at its line.
func TestRefused(t *testing.T) {
	for text, want := range map[string]string{
		"state_dir: relative":                                             "m.yaml:1",
		"agents:\n  listen: nonsense":                                     "m.yaml:2",
		"admin:\n  address: not-an-address":                               "m.yaml:2",
		"policy:\n  mode: attack":                                         "attack",
		"protected:\n  macs: [nonsense]":                                  "m.yaml:2",
		"cap:\n  max_at_once: -1":                                         "cap",
		"devices:\n  - {name: a, socket: relative}":                       "m.yaml:2",
		"devices:\n  - {name: a, socket: /a}\n  - {name: a, socket: /b}":  "m.yaml:3",
		"sources:\n  - {name: eve, kind: suricata-file, path: /e}":        "home_networks.include",
		"protected:\n  addresses:\n    - 10.0.0.0/24\n    - 10.0.0.1/24":  "m.yaml:4",
		"protected:\n  addresses: [10.0.0.1/24]":                          "10.0.0.1/32",
		"cap:\n  window: 0s":                                              "m.yaml:2",
		"devices:\n  - {name: a, socket: /a}\n  - {name: b, socket: //a}": "m.yaml:3",
		"devices:\n  - {name: a, socket: /a}\n  - {name: b, socket: /b}":  "one enforcement device",
		"unknown: 1": "m.yaml:1",
	} {
		c := DefaultConfig()
		err := config.Parse("m.yaml", []byte(text), &c)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q in it", text, err, want)
		}
	}
}
