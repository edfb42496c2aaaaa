package packaging

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/cordon-security/cordon/internal/config"
)

var (
	// explained begins a line of `check-config --explain` with its key.
	explained = regexp.MustCompile(`(?m)^([a-z_]+)[a-z_.\[\]]* `)
	// topKey is a key of an example that is commented out, at the top level.
	topKey = regexp.MustCompile(`(?m)^#([a-z_]+):`)
)

// mustName are the keys that an example may not leave out: an administrator
// has to decide about these.
var mustName = map[string][]string{
	"mitigator": {"names", "agents", "admin", "home_networks", "sources", "filters", "exceptions", "policy", "protected", "cap", "retention", "devices"},
	"enforcer":  {"allow", "protected", "cap"},
	"agent":     {"mitigator", "observer", "protected_services", "protected_paths"},
}

// uncommented is an example with every key in use: "#" before a key or a list
// goes, the sentences, which begin with "##" or "# ", stay.
func uncommented(example string) string {
	var out strings.Builder
	for line := range strings.Lines(example) {
		if !strings.HasPrefix(line, "##") && !strings.HasPrefix(line, "# ") || strings.HasPrefix(line, "#  ") {
			line = strings.TrimPrefix(line, "#")
		}
		out.WriteString(line)
	}
	return out.String()
}

// check runs a program's own check-config on a text.
func check(t *testing.T, service, text string) (said string, code int) {
	t.Helper()
	file := filepath.Join(t.TempDir(), service+".yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	path := program(t, "cordon-"+service) // which may have to be built first
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "check-config", "--config", file)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// Each example is valid as it is installed, and with all that it shows.
func TestExamples(t *testing.T) {
	for service, keys := range mustName {
		t.Run(service, func(t *testing.T) {
			example := read(t, "etc/cordon/"+service+".yaml")
			whole := uncommented(example)
			for what, text := range map[string]string{"as installed": example, "uncommented": whole} {
				if said, code := check(t, service, text); code != 0 {
					t.Errorf("%s: exit code %d: %s", what, code, said)
				}
			}
			// What was uncommented is read, else it could not be refused.
			if said, code := check(t, service, whole+"\nstate_dirr: /x\n"); code != config.ExitCode || !strings.Contains(said, "state_dirr") {
				t.Errorf("a misspelt key: exit code %d: %s", code, said)
			}
			shown := map[string]bool{}
			for _, m := range topKey.FindAllStringSubmatch(example, -1) {
				shown[m[1]] = true
			}
			for _, k := range keys {
				if !shown[k] {
					t.Errorf("%s is not shown", k)
				}
			}
			real := explain(t, service)
			for k := range shown {
				if !real[k] {
					t.Errorf("%s is no key of cordon-%s", k, service)
				}
			}
		})
	}
}

// explain lists the keys of the top level that the program has.
func explain(t *testing.T, service string) map[string]bool {
	t.Helper()
	out, err := exec.Command(program(t, "cordon-"+service), "check-config", "--explain").Output()
	if err != nil {
		t.Fatal(err)
	}
	_, rows, _ := bytes.Cut(out, []byte("\n")) // under the heading
	keys := map[string]bool{}
	for _, m := range explained.FindAllSubmatch(rows, -1) {
		keys[string(m[1])] = true
	}
	return keys
}

// Every key, commented out or not, has a sentence above it or above its block.
func TestExamplesExplain(t *testing.T) {
	for service := range mustName {
		above := ""
		for line := range strings.Lines(read(t, "etc/cordon/"+service+".yaml")) {
			if topKey.MatchString(line) && !strings.HasPrefix(above, "## ") {
				t.Errorf("%s.yaml: no sentence above %s", service, line)
			}
			above = line
		}
	}
}

// TestFaults holds that each program says every fault of its file at once, with
// file, line, key and the line itself, and ends with the code on which systemd
// does not start it again.
func TestFaults(t *testing.T) {
	for service, c := range map[string]struct {
		text string
		want []string
	}{
		"mitigator": {
			text: "# above\npolicy:\n  mode: attack\n  hold: 0s\nsources:\n  - {name: a, kind: snort, path: /x}\nhome_networks: {include: [10.0.0.7/8]}\nagents: {listen: nonsense}\n",
			want: []string{":3:3: policy.mode", ":4:3: policy.hold", ":6:15: sources[0].kind", ":7:27: home_networks.include[0]", ":8:10: agents.listen", "\n      mode: attack\n"},
		},
		"enforcer": {
			text: "# above\nallow:\n  - prefix: 10.0.0.1\n    port: 80\n  - protocol: tcp\nsocket: run/x\ncap: {window: 0s}\n",
			want: []string{":4:5: allow[0].port", ":5:5: allow[1].prefix", ":6:1: socket", ":7:1: cap", "\n    socket: run/x\n"},
		},
		"agent": {
			text: "# above\nobserver: magic\nhistory: 90s\nwatch: 1h\nprotected_paths: [srv]\n",
			want: []string{":2:1: observer", ":4:1: watch", ":5:1: protected_paths", "\n    observer: magic\n"},
		},
	} {
		said, code := check(t, service, c.text)
		if code != config.ExitCode {
			t.Errorf("cordon-%s: exit code %d", service, code)
		}
		for _, want := range c.want {
			if !strings.Contains(said, want) {
				t.Errorf("cordon-%s does not say %q:\n%s", service, want, said)
			}
		}
	}
}

// TestDocsFault holds that the fault on the configuration page is what the
// program says.
func TestDocsFault(t *testing.T) {
	page := read(t, "../docs/configuration.md")
	_, rest, ok := strings.Cut(page, "<!-- tested: fault -->\n```\n/etc/cordon/enforcer.yaml")
	fault, _, closed := strings.Cut(rest, "```")
	if !ok || !closed {
		t.Fatal("docs/configuration.md shows no fault")
	}
	said, _ := check(t, "enforcer", "# Configuration of cordon-enforcer.\nname: gate\n\nprotectd:\n  addresses: [10.20.0.1]\n")
	if !strings.HasSuffix(said, fault) {
		t.Errorf("the page says\n%s\nthe program\n%s", fault, said)
	}
}
