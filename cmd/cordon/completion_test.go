package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
)

// completed are lines as a person has typed them up to the tab, the words apart
// as bash splits them, with some of what must be offered and must not be.
var completed = []struct {
	words   []string
	want    string
	not     string
	andMore bool
}{
	{[]string{"thr"}, "threats threat", "", false},
	{[]string{"threat", ""}, "show close", "", false},
	{[]string{"--server", "threat", "quar"}, "quarantines quarantine", "", false},
	{[]string{"-o", ""}, "table json", "", false},
	{[]string{"threats", "--output", ""}, "table json", "", false},
	{[]string{"quarantine", "bob", "--access", "l"}, "limited", "", false},
	{[]string{"quarantine", "bob", "--re"}, "--reason", "", false},
	{[]string{"agent", "token", "--"}, "--lifetime --comment --server", "--reason", true},
	{[]string{"release", "--note", "agent", "--threat"}, "--threat-is-gone", "", false},
	{[]string{"completion", ""}, "bash zsh fish", "", false},
	{[]string{""}, "status login", "--output show", true},
	{[]string{"status", ""}, "", "", false},
	{[]string{"quarantine", "bob", "--reason", ""}, "", "", false},
}

// offered checks what a shell offered.
func offered(t *testing.T, line []string, got, want, not string, andMore bool) {
	t.Helper()
	have, wanted := strings.Fields(got), strings.Fields(want)
	for _, word := range wanted {
		if !slices.Contains(have, word) {
			t.Errorf("%q: %q is not offered, only %q", line, word, have)
		}
	}
	for _, word := range strings.Fields(not) {
		if slices.Contains(have, word) {
			t.Errorf("%q: %q is offered", line, word)
		}
	}
	if !andMore && len(have) != len(wanted) {
		t.Errorf("%q: %q is offered, want %q", line, have, wanted)
	}
}

// shell runs a script in a shell in which "cordon" is this program. It skips
// when the shell is not there, which bash always is.
func shell(t *testing.T, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if name == "bash" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(self, filepath.Join(dir, "cordon")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + dir + ":" + os.Getenv("PATH"), "HOME=" + dir, "LC_ALL=C.UTF-8", "CORDON_PLAYED_BY_TEST=1"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

func TestBashCompletion(t *testing.T) {
	const script = `set -u
source <(cordon completion bash)
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
[[ $(complete -p cordon) == "complete -F _cordon cordon" ]] || exit 9
_cordon cordon
printf '%s\n' "${COMPREPLY[@]}"`
	for _, c := range completed {
		got := shell(t, "bash", append([]string{"-c", script, "bash", "cordon"}, c.words...)...)
		offered(t, c.words, got, c.want, c.not, c.andMore)
	}
	// Bash splits at "=".
	for _, words := range [][]string{{"threats", "--output", "=", "j"}, {"--server", "=", "x:1", "-o", "j"}} {
		offered(t, words, shell(t, "bash", append([]string{"-c", script, "bash", "cordon"}, words...)...), "json", "", false)
	}
	offered(t, nil, shell(t, "bash", "-c", script, "bash", "cordon", "status", "--output", "="), "table json", "", false)
	offered(t, nil, shell(t, "bash", "-c", "touch a.token b.token\n"+script, "bash", "cordon", "--token-file", "a."), "a.token", "", false)
}

// zsh's own functions work in its line editor alone, so the script is run with
// others in their place.
func TestZshCompletion(t *testing.T) {
	const script = `
compdef() { }
compset() { }
compadd() { shift; print -l -- "$@" }
_describe() { local name=$@[-1]; print -l -- ${${(P)name}%%:*} }
source <(cordon completion zsh)
words=("$@") CURRENT=$#
_cordon | grep -e "^${@[-1]}"
true`
	for _, c := range completed {
		got := shell(t, "zsh", append([]string{"-f", "-c", script, "zsh", "cordon"}, c.words...)...)
		offered(t, c.words, got, c.want, c.not, c.andMore)
	}
}

func TestFishCompletion(t *testing.T) {
	for _, c := range completed {
		got := shell(t, "fish", "--no-config", "-c", "cordon completion fish | source; complete -C '"+strings.Join(append([]string{"cordon"}, c.words...), " ")+"'")
		var names []string
		for line := range strings.Lines(got) {
			name, _, _ := strings.Cut(strings.TrimSpace(line), "\t")
			names = append(names, name)
		}
		offered(t, c.words, strings.Join(names, " "), c.want, c.not, c.andMore)
	}
}

// The scripts take a flag to mean the same in every command.
func TestFlagsMeanTheSameEverywhere(t *testing.T) {
	seen := map[string]grammarFlag{}
	for _, n := range grammarOf(model(t).Node).nodes {
		for _, f := range n.flags {
			for _, name := range f.names() {
				if old, ok := seen[name]; ok && (old.value != f.value || old.file != f.file || !slices.Equal(old.choices, f.choices)) {
					t.Errorf("%s means something else in %q", name, n.path)
				}
				seen[name] = f
			}
		}
	}
}

func model(t *testing.T) *kong.Application {
	t.Helper()
	parser, err := newParser(&commands{}, nil, nil, func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	return parser.Model
}
