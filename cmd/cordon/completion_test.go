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

// completion is a line as a person has typed it up to the tab, with what must be
// offered and what must not be.
type completion struct {
	words     []string
	want, not string
	// andMore says that others may be offered, too.
	andMore bool
}

var completed = []completion{
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
	{[]string{"demo", "--k"}, "--keep", "", false},
	{[]string{"demo", "d"}, "down", "", false},
}

// check looks at what a shell offered.
func (c completion) check(t *testing.T, got string) {
	t.Helper()
	have, wanted := strings.Fields(got), strings.Fields(c.want)
	for _, word := range wanted {
		if !slices.Contains(have, word) {
			t.Errorf("%q: %q is not offered, only %q", c.words, word, have)
		}
	}
	for _, word := range strings.Fields(c.not) {
		if slices.Contains(have, word) {
			t.Errorf("%q: %q is offered", c.words, word)
		}
	}
	if !c.andMore && len(have) != len(wanted) {
		t.Errorf("%q: %q is offered, want %q", c.words, have, wanted)
	}
}

// shell runs a script in a shell in which "cordon" is this program. Where the
// shell is not there, it skips on a developer's machine alone.
func shell(t *testing.T, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if name == "bash" || os.Getenv("CI") == "true" {
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

// sections runs a script that prints a line "--" before what it offers for each
// line, and returns what was offered for each.
func sections(t *testing.T, out string, want int) []string {
	t.Helper()
	var parts []string
	for line := range strings.Lines(out) {
		switch {
		case line == "--\n":
			parts = append(parts, "")
		case len(parts) > 0:
			parts[len(parts)-1] += line
		}
	}
	if len(parts) != want {
		t.Fatalf("%d of %d lines were completed:\n%s", len(parts), want, out)
	}
	return parts
}

// quotedWords are the words as all three shells take them.
func quotedWords(words []string) string {
	return "'" + strings.Join(words, "' '") + "'"
}

func TestBashCompletion(t *testing.T) {
	// Bash splits at "=".
	cases := append(slices.Clone(completed), []completion{
		{[]string{"threats", "--output", "=", "j"}, "json", "", false},
		{[]string{"--server", "=", "x:1", "-o", "j"}, "json", "", false},
		{[]string{"status", "--output", "="}, "table json", "", false},
		{[]string{"--token-file", "a."}, "a.token", "", false},
	}...)
	script := `set -u
touch a.token b.token
source <(cordon completion bash)
[[ $(complete -p cordon) == "complete -F _cordon cordon" ]] || exit 9
try() {
    echo --
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
    _cordon cordon
    printf '%s\n' "${COMPREPLY[@]}"
}
`
	for _, c := range cases {
		script += "try cordon " + quotedWords(c.words) + "\n"
	}
	for i, got := range sections(t, shell(t, "bash", "-c", script), len(cases)) {
		cases[i].check(t, got)
	}
}

// zsh's own functions work in its line editor alone, so the script is run with
// others in their place.
func TestZshCompletion(t *testing.T) {
	script := `
compdef() { }
compset() { }
compadd() { shift; print -l -- "$@" }
_describe() { local name=$@[-1]; print -l -- ${${(P)name}%%:*} }
source <(cordon completion zsh)
try() {
    print -- --
    words=("$@") CURRENT=$#
    _cordon | grep -e "^${@[-1]}"
    true
}
`
	for _, c := range completed {
		script += "try cordon " + quotedWords(c.words) + "\n"
	}
	for i, got := range sections(t, shell(t, "zsh", "-f", "-c", script), len(completed)) {
		completed[i].check(t, got)
	}
}

func TestFishCompletion(t *testing.T) {
	script := "cordon completion fish | source\n"
	for _, c := range completed {
		script += "printf '%s\\n' --\ncomplete -C 'cordon " + strings.Join(c.words, " ") + "'\n"
	}
	for i, got := range sections(t, shell(t, "fish", "--no-config", "-c", script), len(completed)) {
		var names []string
		for line := range strings.Lines(got) {
			name, _, _ := strings.Cut(strings.TrimSpace(line), "\t")
			names = append(names, name)
		}
		completed[i].check(t, strings.Join(names, " "))
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
