package assess

import (
	"path"
	"strings"

	"github.com/cordon-security/cordon/agent/procfs"
)

// input is what an interpreter works on.
type input struct {
	// path is the script, "" when there is none.
	path string
	// inline is the program text of -c and its like.
	inline string
	// gone is true when the interpreter still holds the script open and its
	// name was removed.
	gone bool
	// elsewhere is true when the path leads to another file in the process's
	// own root directory than on the host.
	elsewhere bool
}

// inputOf reads what an interpreter runs from its command line and
// descriptors; false for a program that is no interpreter.
func inputOf(p procfs.Process) (input, bool) {
	g, args, ok := grammarOf(p)
	if !ok {
		return input{}, false
	}
	// Bash keeps its script open, which a changed command line cannot hide.
	held, gone := strings.CutSuffix(p.ScriptFD, " (deleted)")
	if !isFile(held) {
		held, gone = "", false
	}
	if in, ok := g.read(args, p.Cwd); ok {
		if in.path != "" && path.Base(held) == path.Base(in.path) {
			in.path, in.gone = held, gone
		}
		return in, true
	}
	if held != "" {
		return input{path: held, gone: gone}, true
	}
	if in, gone := strings.CutSuffix(p.Stdin, " (deleted)"); isFile(in) {
		return input{path: in, gone: gone}, true
	}
	return input{}, true
}

func isFile(name string) bool { return path.IsAbs(name) && !strings.HasPrefix(name, "/dev/") }

// grammar is how the command line of an interpreter is read. The letters are
// those of short options, which may stand together in one word; an option's
// value is the rest of its word, or the next word when there is no rest.
type grammar struct {
	// text are options whose value is program text, script those whose value
	// is the script's path, module those after which no path is a script.
	text, script, module string
	// valued are options with a value, attached those whose value, if any, is
	// the rest of the word.
	valued, attached string
	// long are the long options whose value is the next word. One that is not
	// named here has none, or has it after a "=".
	long map[string]option
	// shell is true when -c is a flag and the text is the first operand.
	shell bool
	// operandIsText is true for awk: its first operand is the program, and
	// the others are data.
	operandIsText bool
}

// option is what the value of an option is.
type option int

const (
	other option = iota
	text
	script
)

var (
	shells = grammar{
		shell: true, valued: "oO", long: map[string]option{"--rcfile": other, "--init-file": other, "--emulate": other},
	}
	awks = grammar{
		script: "fE", text: "e", valued: "FvilW", operandIsText: true,
		long: map[string]option{"--file": script, "--exec": script, "--source": text, "--field-separator": other, "--assign": other, "--include": other, "--load": other},
	}
	grammars = map[string]grammar{
		"sh": shells, "bash": shells, "dash": shells, "zsh": shells, "ksh": shells, "ash": shells,
		"python": {text: "c", module: "m", valued: "WX", long: map[string]option{"--check-hash-based-pycs": other}},
		"perl":   {text: "eE", valued: "I", attached: "CDFMVdimx"},
		"ruby":   {text: "e", valued: "rICE", attached: "FKTWix"},
		"node": {text: "ep", valued: "rC", long: map[string]option{
			"--eval": text, "--print": text, "--require": other, "--import": other, "--loader": other,
			"--experimental-loader": other, "--conditions": other, "--env-file": other, "--title": other,
		}},
		"php":    {text: "rBRE", script: "fF", valued: "cdgtzS", long: map[string]option{"--run": text, "--file": script, "--define": other, "--php-ini": other, "--docroot": other, "--server": other}},
		"lua":    {text: "e", valued: "l"},
		"tclsh":  {long: map[string]option{"-encoding": other}},
		"awk":    awks,
		"expect": {text: "c", script: "fb", valued: "D"},
	}
	aliases = map[string]string{"mawk": "awk", "gawk": "awk", "nawk": "awk", "nodejs": "node", "luajit": "lua"}
)

// grammarOf returns how the command line of a process is read, and its words
// without the program's name; false for a program that is no interpreter.
func grammarOf(p procfs.Process) (g grammar, args []string, ok bool) {
	name, args := p.Exe, p.Args
	if len(args) > 0 {
		args = args[1:]
	}
	if path.Base(name) == "busybox" {
		// The program that it is stands in its own name or in its first word.
		name = "sh"
		if len(p.Args) > 0 {
			name = strings.TrimPrefix(p.Args[0], "-")
		}
		if path.Base(name) == "busybox" && len(args) > 0 {
			name, args = args[0], args[1:]
		}
	}
	g, ok = grammars[interpreter(name)]
	return g, args, ok
}

// interpreter returns the family of an executable, "" for any other program.
func interpreter(exe string) string {
	name := strings.TrimRight(path.Base(exe), "0123456789.")
	if alias, ok := aliases[name]; ok {
		name = alias
	}
	if _, ok := grammars[name]; ok || name == "busybox" {
		return name
	}
	return ""
}

// read finds program text and script in the words of a command line; false
// when neither is there, as for an interactive shell.
func (g grammar) read(args []string, cwd string) (input, bool) {
	r := reading{grammar: g, cwd: cwd}
	for len(args) > 0 && !r.done {
		args = r.word(args[0], args[1:])
	}
	in := r.in
	return in, in.path != "" || in.inline != "" || r.asModule
}

// reading is a command line that is being read.
type reading struct {
	grammar
	cwd string
	in  input
	// command is true after a shell's -c, asModule after python's -m.
	command, asModule bool
	// operands is true after "--".
	operands, done bool
}

// word takes one word, and returns what is left of the words behind it.
func (r *reading) word(a string, rest []string) []string {
	if r.operands || a == "" || a == "-" || a[0] != '-' && (!r.shell || a[0] != '+') {
		switch {
		case a == "-" && !r.shell:
			r.done = true // The script comes in on descriptor 0.
		case a == "-":
			r.operands = true
		case a != "":
			r.operand(a)
		}
		return rest
	}
	if a == "--" {
		r.operands = true
		return rest
	}
	name, value, whole := strings.Cut(a, "=")
	if kind, known := r.long[name]; known {
		if !whole && len(rest) > 0 {
			value, rest = rest[0], rest[1:]
		}
		r.take(kind, value)
		return rest
	}
	if strings.HasPrefix(a, "--") {
		return rest
	}
	return r.letters(a[1:], rest)
}

// letters reads short options that stand in one word.
func (r *reading) letters(word string, rest []string) []string {
	for i := 0; i < len(word); i++ {
		kind, valued := r.letter(word[i])
		switch {
		case r.shell && word[i] == 'c':
			r.command = true
		case strings.IndexByte(r.attached, word[i]) >= 0:
			return rest
		case valued:
			value := word[i+1:]
			// A shell's value is the next word whatever follows the letter.
			if (value == "" || r.shell) && len(rest) > 0 {
				value, rest = rest[0], rest[1:]
			}
			if strings.IndexByte(r.module, word[i]) >= 0 {
				r.asModule, r.done = true, true
				return rest
			}
			r.take(kind, value)
			if !r.shell {
				return rest
			}
		}
	}
	return rest
}

// letter tells what the value of a short option is, if it has one.
func (r *reading) letter(c byte) (kind option, valued bool) {
	switch {
	case strings.IndexByte(r.text, c) >= 0:
		return text, true
	case strings.IndexByte(r.script, c) >= 0:
		return script, true
	}
	return other, strings.IndexByte(r.valued, c) >= 0 || strings.IndexByte(r.module, c) >= 0
}

func (r *reading) take(kind option, value string) {
	switch kind {
	case text:
		r.in.inline += value + "\n"
	case script:
		r.in.path = absolute(r.cwd, value)
		r.done = true
	}
}

// operand takes the first word that is no option.
func (r *reading) operand(a string) {
	r.done = true
	switch {
	case r.command || r.operandIsText && r.in.inline == "":
		r.in.inline = a
	case r.in.inline == "":
		r.in.path = absolute(r.cwd, a)
	}
}

func absolute(cwd, name string) string {
	if path.IsAbs(name) {
		return path.Clean(name)
	}
	if cwd == "" || name == "" {
		return ""
	}
	return path.Join(cwd, name)
}
