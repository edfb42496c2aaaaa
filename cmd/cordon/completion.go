package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

type completionCommand struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Run implements the command.
func (c *completionCommand) Run(s *session) error {
	g := grammarOf(s.model.Node)
	switch c.Shell {
	case "zsh":
		return s.print(g.zsh())
	case "fish":
		return s.print(g.fish())
	}
	return s.print(g.bash())
}

// grammar is what a shell must know of the command line.
type grammar struct {
	nodes []grammarNode
	// values are the flags that take a value, each name once. A name means the
	// same wherever it stands.
	values []grammarFlag
}

// grammarNode is one command, or the program itself with the path "".
type grammarNode struct {
	path  string
	words []grammarWord
	flags []grammarFlag
}

type grammarWord struct{ name, help string }

type grammarFlag struct {
	name  string
	short string
	help  string
	value bool
	// choices are the values that there are; empty when any is.
	choices []string
	// file says that the value is a file's name.
	file bool
}

// names are the flag as it is typed, with its dashes.
func (f grammarFlag) names() []string {
	if f.short == "" {
		return []string{"--" + f.name}
	}
	return []string{"-" + f.short, "--" + f.name}
}

func grammarOf(root *kong.Node) grammar {
	var g grammar
	g.add("", root)
	for _, n := range g.nodes {
		for _, f := range n.flags {
			if f.value && !slices.ContainsFunc(g.values, func(h grammarFlag) bool { return h.name == f.name }) {
				g.values = append(g.values, f)
			}
		}
	}
	return g
}

func (g *grammar) add(path string, node *kong.Node) {
	n := grammarNode{path: path}
	for _, child := range node.Children {
		if !child.Hidden {
			n.words = append(n.words, grammarWord{child.Name, oneLine(child.Help)})
		}
	}
	for _, arg := range node.Positional {
		for _, choice := range choices(arg) {
			n.words = append(n.words, grammarWord{name: choice})
		}
	}
	flags := node.AllFlags(true)
	if node.DefaultCmd != nil {
		// Its flags may stand without its name.
		flags = node.DefaultCmd.AllFlags(true)
	}
	for _, group := range flags {
		for _, f := range group {
			n.flags = append(n.flags, flagOf(f))
		}
	}
	g.nodes = append(g.nodes, n)
	for _, child := range node.Children {
		if !child.Hidden {
			g.add(strings.TrimSpace(path+" "+child.Name), child)
		}
	}
}

func flagOf(f *kong.Flag) grammarFlag {
	g := grammarFlag{
		name: f.Name, help: oneLine(f.Help), value: !f.IsBool(), choices: choices(f.Value),
		file: f.Tag.Get("completion") == "file",
	}
	if f.Short != 0 {
		g.short = string(f.Short)
	}
	return g
}

func choices(v *kong.Value) []string {
	if v.Enum == "" {
		return nil
	}
	return slices.DeleteFunc(v.EnumSlice(), func(choice string) bool { return choice == "" })
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// quoted is a word for any of the three shells, without expansions.
func quoted(text, escapedQuote string) string {
	return "'" + strings.ReplaceAll(text, "'", escapedQuote) + "'"
}

// allNames lists the names of flags as a shell pattern of a case.
func allNames(flags []grammarFlag) string {
	var names []string
	for _, f := range flags {
		names = append(names, f.names()...)
	}
	return strings.Join(names, "|")
}

// steps are the cases "path/word" that lead from a command to the one below.
func (g grammar) steps(each func(from, word, to string) string) string {
	var b strings.Builder
	for _, n := range g.nodes[1:] {
		from, word := "", n.path
		if i := strings.LastIndexByte(n.path, ' '); i >= 0 {
			from, word = n.path[:i], n.path[i+1:]
		}
		b.WriteString(each(from, word, n.path))
	}
	return b.String()
}

func (g grammar) bash() string {
	var b strings.Builder
	b.WriteString(`# bash completion of cordon: source <(cordon completion bash)
_cordon() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} path= words= flags= i
    COMPREPLY=()
    if [[ $cur == = ]]; then
        cur=
    elif [[ $prev == = ]]; then
        prev=${COMP_WORDS[COMP_CWORD-2]}
    fi
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
`)
	fmt.Fprintf(&b, "        %s)\n            [[ ${COMP_WORDS[i+1]} == = ]] && ((i++))\n            ((i++)) ;;\n        -*) ;;\n        *)\n            case $path/${COMP_WORDS[i]} in\n", allNames(g.values))
	b.WriteString(g.steps(func(from, word, to string) string {
		return fmt.Sprintf("            '%s/%s') path='%s' ;;\n", from, word, to)
	}))
	b.WriteString("            esac ;;\n        esac\n    done\n    case $prev in\n")
	for _, f := range g.values {
		fmt.Fprintf(&b, "    %s) %s return ;;\n", allNames([]grammarFlag{f}), bashValue(f))
	}
	b.WriteString("    esac\n    case $path in\n")
	for _, n := range g.nodes {
		fmt.Fprintf(&b, "    '%s') words='%s' flags='%s' ;;\n", n.path, strings.Join(n.wordNames(), " "), strings.Join(n.flagNames(), " "))
	}
	b.WriteString(`    esac
    [[ $cur == -* ]] && words=$flags
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -F _cordon cordon
`)
	return b.String()
}

func bashValue(f grammarFlag) string {
	switch {
	case f.file:
		return `compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- "$cur"));`
	case len(f.choices) > 0:
		return fmt.Sprintf(`COMPREPLY=($(compgen -W '%s' -- "$cur"));`, strings.Join(f.choices, " "))
	}
	return ""
}

func (n grammarNode) wordNames() []string {
	var names []string
	for _, w := range n.words {
		names = append(names, w.name)
	}
	return names
}

func (n grammarNode) flagNames() []string {
	var names []string
	for _, f := range n.flags {
		names = append(names, f.names()...)
	}
	return names
}

func (g grammar) zsh() string {
	var b strings.Builder
	b.WriteString(`#compdef cordon
# zsh completion of cordon: source <(cordon completion zsh)
_cordon() {
    local cur=${words[CURRENT]} prev=${words[CURRENT-1]} at= i
    local -a below flags
    if [[ $cur == --*=* ]]; then
        prev=${cur%%=*}
        compset -P '*='
    fi
    for ((i = 2; i < CURRENT; i++)); do
        case ${words[i]} in
`)
	fmt.Fprintf(&b, "        (%s) ((i++)) ;;\n        (-*) ;;\n        (*)\n            case $at/${words[i]} in\n", allNames(g.values))
	b.WriteString(g.steps(func(from, word, to string) string {
		return fmt.Sprintf("            ('%s/%s') at='%s' ;;\n", from, word, to)
	}))
	b.WriteString("            esac ;;\n        esac\n    done\n    case $prev in\n")
	for _, f := range g.values {
		fmt.Fprintf(&b, "    (%s) %s return ;;\n", allNames([]grammarFlag{f}), zshValue(f))
	}
	b.WriteString("    esac\n    case $at in\n")
	for _, n := range g.nodes {
		fmt.Fprintf(&b, "    ('%s')\n        below=(%s)\n        flags=(%s) ;;\n", n.path, zshWords(n.words), zshFlags(n.flags))
	}
	b.WriteString(`    esac
    if [[ $cur == -* ]]; then
        _describe -o option flags
    else
        _describe command below
    fi
}
if [[ $funcstack[1] == _cordon ]]; then
    _cordon "$@"
else
    compdef _cordon cordon
fi
`)
	return b.String()
}

func zshValue(f grammarFlag) string {
	switch {
	case f.file:
		return "_files;"
	case len(f.choices) > 0:
		return "compadd -- " + strings.Join(f.choices, " ") + ";"
	}
	return ""
}

func zshWords(words []grammarWord) string {
	var all []string
	for _, w := range words {
		all = append(all, zshDescribed(w.name, w.help))
	}
	return strings.Join(all, " ")
}

func zshFlags(flags []grammarFlag) string {
	var all []string
	for _, f := range flags {
		for _, name := range f.names() {
			all = append(all, zshDescribed(name, f.help))
		}
	}
	return strings.Join(all, " ")
}

// zshDescribed is a word with its help, as _describe takes it.
func zshDescribed(name, help string) string {
	if help == "" {
		return quoted(name, `'\''`)
	}
	return quoted(name+":"+help, `'\''`)
}

func (g grammar) fish() string {
	var b strings.Builder
	b.WriteString(`# fish completion of cordon: cordon completion fish | source
function __cordon_at
    set -l at ''
    set -l skip 0
    for word in (commandline -opc)[2..-1]
        if test $skip = 1
            set skip 0
            continue
        end
        switch $word
`)
	fmt.Fprintf(&b, "            case %s\n                set skip 1\n            case '-*'\n            case '*'\n                switch $at/$word\n",
		strings.ReplaceAll(allNames(g.values), "|", " "))
	b.WriteString(g.steps(func(from, word, to string) string {
		return fmt.Sprintf("                    case '%s/%s'\n                        set at '%s'\n", from, word, to)
	}))
	b.WriteString("                end\n        end\n    end\n    test \"$at\" = \"$argv[1]\"\nend\ncomplete -c cordon -f\n")
	global := g.nodes[0].flags
	for _, n := range g.nodes {
		at := fmt.Sprintf(`"__cordon_at '%s'"`, n.path)
		for _, w := range n.words {
			fmt.Fprintf(&b, "complete -c cordon -n %s -a %s%s\n", at, w.name, fishHelp(w.help))
		}
		for _, f := range n.flags[min(len(n.flags), len(global)):] {
			fmt.Fprintf(&b, "complete -c cordon -n %s%s\n", at, fishFlag(f))
		}
	}
	for _, f := range global {
		fmt.Fprintf(&b, "complete -c cordon%s\n", fishFlag(f))
	}
	return b.String()
}

func fishFlag(f grammarFlag) string {
	words := " -l " + f.name
	if f.short != "" {
		words = " -s " + f.short + words
	}
	switch {
	case f.file:
		words += " -r -F"
	case f.value:
		words += " -x"
	}
	if len(f.choices) > 0 {
		words += " -a " + quoted(strings.Join(f.choices, " "), `\'`)
	}
	return words + fishHelp(f.help)
}

func fishHelp(help string) string {
	if help == "" {
		return ""
	}
	return " -d " + quoted(strings.ReplaceAll(help, `\`, `\\`), `\'`)
}
