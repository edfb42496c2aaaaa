package assess

import (
	"path"
	"slices"
	"strings"

	"github.com/cordon-security/cordon/agent/procfs"
)

// input is what an interpreter works on.
type input struct {
	// path is the script, "" when there is none.
	path string
	// inline is the program text of -c and its like.
	inline string
	// stdin is true when the script comes in on descriptor 0.
	stdin bool
}

// interpreters maps the program names to the options whose next word is
// program text.
var interpreters = map[string][]string{
	"sh": {"-c"}, "bash": {"-c"}, "dash": {"-c"}, "zsh": {"-c"}, "ksh": {"-c"}, "ash": {"-c"},
	"python": {"-c"}, "perl": {"-e", "-E"}, "ruby": {"-e"}, "node": {"-e", "--eval"}, "php": {"-r"}, "lua": {"-e"}, "tclsh": nil,
	"awk": nil, "expect": {"-c"},
}

// interpreter returns the family of an executable, "" for any other program.
func interpreter(exe string) string {
	name := strings.TrimRight(path.Base(exe), "0123456789.")
	if name == "busybox" || name == "mawk" || name == "gawk" {
		name = map[string]string{"busybox": "sh", "mawk": "awk", "gawk": "awk"}[name]
	}
	if _, ok := interpreters[name]; ok {
		return name
	}
	return ""
}

// inputOf reads what an interpreter runs from its command line and
// descriptors; false for a program that is no interpreter.
func inputOf(p procfs.Process) (input, bool) {
	family := interpreter(p.Exe)
	if family == "" {
		return input{}, false
	}
	if in, ok := fromArgs(p, family); ok {
		// Bash keeps its script open, which a changed command line cannot hide.
		if in.path != "" && path.IsAbs(p.ScriptFD) && path.Base(p.ScriptFD) == path.Base(in.path) {
			in.path = p.ScriptFD
		}
		return in, true
	}
	if path.IsAbs(p.ScriptFD) && !strings.HasPrefix(p.ScriptFD, "/dev/") {
		return input{path: p.ScriptFD}, true
	}
	if path.IsAbs(p.Stdin) && !strings.HasPrefix(p.Stdin, "/dev/") {
		return input{path: p.Stdin, stdin: true}, true
	}
	return input{}, true
}

func fromArgs(p procfs.Process, family string) (input, bool) {
	for i := 1; i < len(p.Args); i++ {
		a := p.Args[i]
		switch {
		case slices.Contains(interpreters[family], a) || family != "awk" && isCluster(a, interpreters[family]):
			if i+1 < len(p.Args) {
				return input{inline: p.Args[i+1]}, true
			}
			return input{}, false
		case a == "--" && i+1 < len(p.Args):
			return input{path: absolute(p.Cwd, p.Args[i+1])}, true
		case a == "-m", a == "-W", a == "-X", a == "-I", a == "-o", a == "-O", a == "--rcfile", a == "--init-file":
			i++ // The next word belongs to the option.
		case strings.HasPrefix(a, "-"):
		case a != "":
			return input{path: absolute(p.Cwd, a)}, true
		}
	}
	return input{}, false
}

// isCluster is true for short options in one word that end in one for text,
// as -lc.
func isCluster(word string, options []string) bool {
	if len(word) < 3 || word[0] != '-' || word[1] == '-' {
		return false
	}
	return slices.Contains(options, "-"+word[len(word)-1:])
}

func absolute(cwd, name string) string {
	if path.IsAbs(name) {
		return path.Clean(name)
	}
	if cwd == "" {
		return ""
	}
	return path.Join(cwd, name)
}
