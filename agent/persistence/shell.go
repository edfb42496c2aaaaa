package persistence

import (
	"path"
	"slices"
	"strings"
)

const (
	// maxWords bounds what a line or script names, maxDepth text within text,
	// maxSteps the programs that are looked at.
	maxWords = 4096
	maxDepth = 4
	maxSteps = 1 << 16
)

// prefix is a program that starts the command in its own words: how many words
// come first, and which of its options have a value (a letter each).
type prefix struct {
	skip   int
	valued string
	// text is the option whose value is a command line.
	text byte
}

var prefixes = map[string]prefix{
	"env": {valued: "uC", text: 'S'}, "nice": {valued: "n"}, "nohup": {}, "setsid": {}, "timeout": {skip: 1, valued: "ks"},
	"ionice": {valued: "cnpPu"}, "chrt": {skip: 1, valued: "TPD"}, "taskset": {skip: 1}, "stdbuf": {valued: "ioe"},
	"sudo": {valued: "ugCpRTrtDhU"}, "doas": {valued: "uC"}, "su": {valued: "sgGwT", text: 'c', skip: 1}, "runuser": {valued: "sgGwTu", text: 'c'},
	"flock": {skip: 1, valued: "wEW", text: 'c'}, "xargs": {valued: "IinLlPsadE"}, "chroot": {skip: 1}, "unshare": {valued: "SGRw"},
	"nsenter": {valued: "tSG"}, "setpriv": {}, "systemd-run": {valued: "uptHMGE"}, "systemd-inhibit": {}, "watch": {valued: "n"},
	"screen": {valued: "SchepstT"}, "daemonize": {valued: "acelopuE"}, "exec": {valued: "a"}, "eval": {}, "command": {}, "builtin": {},
	"time": {valued: "fo"}, ".": {}, "source": {}, "trap": {}, "if": {}, "then": {}, "else": {}, "elif": {}, "while": {}, "until": {},
	"do": {}, "!": {}, "chronic": {}, "busybox": {}, "catchsegv": {}, "cgexec": {valued: "g"},
}

// interpreters are programs whose first operand is a script, with the options
// that have a value and the option of program text.
var interpreters = map[string]prefix{
	"sh": {valued: "oO", text: 'c'}, "bash": {valued: "oO", text: 'c'}, "dash": {valued: "oO", text: 'c'}, "zsh": {valued: "oO", text: 'c'},
	"ksh": {valued: "oO", text: 'c'}, "ash": {valued: "oO", text: 'c'}, "python": {valued: "WX", text: 'c'}, "perl": {valued: "I", text: 'e'},
	"ruby": {valued: "rICE", text: 'e'}, "node": {valued: "rC", text: 'e'}, "php": {valued: "cdgtzS", text: 'r'}, "lua": {valued: "l", text: 'e'},
}

// shell follows a script line by line, as far as what it starts can be known
// without running it. In out are the paths that stand where the shell, or a
// program that starts others, takes them for programs and scripts; the argument
// of any other program, as of rm or chmod, is none.
type shell struct {
	home, cwd string
	vars      map[string][]string
	out       []string
	steps     int
	// full is true when there was more than the bounds allow.
	full bool
}

func newShell(home, cwd string) *shell {
	return &shell{home: home, cwd: cwd, vars: map[string][]string{"HOME": {home}}}
}

func (s *shell) emit(word string) {
	switch {
	case word == "":
		return
	case path.IsAbs(word):
		word = path.Clean(word)
	case s.cwd != "":
		word = path.Join(s.cwd, word)
	}
	switch {
	case slices.Contains(s.out, word):
	case len(s.out) < maxWords:
		s.out = append(s.out, word)
	default:
		s.full = true
	}
}

// run takes a script apart into simple commands.
func (s *shell) run(text string, depth int) {
	if depth > maxDepth {
		s.full = true
		return
	}
	var words []string
	var word strings.Builder
	begun, into := false, false // a word was begun; it is the target of a redirection
	end := func() {
		if begun && into {
			into = false
			if len(words) > 0 && isShell(words[0]) {
				words = append(words, word.String())
			}
		} else if begun {
			words = append(words, word.String())
		}
		begun = false
		word.Reset()
	}
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case '\\':
			if i++; i < len(text) && text[i] != '\n' {
				begun = true
				word.WriteByte(text[i])
			}
		case '\'', '"':
			j := closing(text, i)
			inner := text[i+1 : j]
			if c == '"' {
				s.substitutions(inner, depth)
				inner = strings.NewReplacer(`\"`, `"`, `\\`, `\`, `\$`, `$`).Replace(inner)
			}
			begun = true
			word.WriteString(inner)
			i = j
		case ' ', '\t', '\r':
			end()
		case '<', '>':
			if isNumber(word.String()) {
				word.Reset()
				begun = false
			}
			end()
			into = c == '<'
			if c == '>' {
				i = skipTarget(text, i)
			}
		case '#':
			if begun {
				word.WriteByte(c)
				continue
			}
			for i+1 < len(text) && text[i+1] != '\n' {
				i++
			}
		case '{', '}':
			if begun || strings.HasPrefix(text[i:], "{}") {
				begun = true
				word.WriteByte(c)
				continue
			}
			s.simple(words, depth)
			words = nil
		case '\n', ';', '|', '&', '(', ')', '`':
			end()
			into = false
			s.simple(words, depth)
			words = nil
		default:
			begun = true
			word.WriteByte(c)
		}
	}
	end()
	s.simple(words, depth)
}

// closing returns the index of the quote that ends the one at i.
func closing(text string, i int) int {
	for j := i + 1; j < len(text); j++ {
		switch {
		case text[j] == '\\' && text[i] == '"':
			j++
		case text[j] == text[i]:
			return j
		}
	}
	return len(text)
}

// skipTarget returns the index of the last byte of a redirection's target.
func skipTarget(text string, i int) int {
	for i+1 < len(text) && strings.IndexByte(">&| \t", text[i+1]) >= 0 {
		i++
	}
	for i+1 < len(text) && strings.IndexByte(" \t\r\n;|&()<>", text[i+1]) < 0 {
		i++
	}
	return i
}

func isNumber(word string) bool { return word != "" && strings.Trim(word, "0123456789") == "" }

// substitutions runs what double quotes let through.
func (s *shell) substitutions(text string, depth int) {
	if _, inner, ok := strings.Cut(text, "$("); ok {
		s.run(inner, depth+1)
	}
	if _, inner, ok := strings.Cut(text, "`"); ok {
		s.run(inner, depth+1)
	}
}

// simple takes one command.
func (s *shell) simple(words []string, depth int) {
	for len(words) > 0 {
		name, value, ok := strings.Cut(words[0], "=")
		if words[0] == "export" || words[0] == "readonly" || words[0] == "local" {
			words = words[1:]
			continue
		}
		if !ok || !isName(name) {
			break
		}
		s.vars[name] = s.expand(value)
		words = words[1:]
	}
	if len(words) == 0 {
		return
	}
	if words[0] == "for" && len(words) > 3 {
		var values []string
		for _, w := range words[3:] {
			values = append(values, s.expand(w)...)
		}
		s.vars[words[1]] = values
		return
	}
	for _, name := range s.expand(words[0]) {
		s.program(name, words[1:], depth)
	}
}

// program takes the command that name starts with these words.
func (s *shell) program(name string, args []string, depth int) {
	if s.steps++; s.steps > maxSteps {
		s.full = true
		return
	}
	if name == "cd" && len(args) > 0 {
		if dir := s.expand(args[len(args)-1])[0]; path.IsAbs(dir) {
			s.cwd = path.Clean(dir)
		} else if s.cwd != "" {
			s.cwd = path.Join(s.cwd, dir)
		}
		return
	}
	if strings.Contains(name, "/") {
		s.emit(name)
	}
	base := path.Base(name)
	if p, ok := interpreters[family(base)]; ok {
		s.interpret(p, isShell(base), args, depth)
		return
	}
	p, ok := prefixes[base]
	if !ok && strings.HasPrefix(base, "ld-") {
		p, ok = prefix{}, true // The loader, ld.so(8).
	}
	switch {
	case base == "start-stop-daemon":
		s.daemon(args)
	case ok:
		s.prefixed(p, base, args, depth)
	}
}

// prefixed takes what a program that starts others starts.
func (s *shell) prefixed(p prefix, base string, args []string, depth int) {
	rest, text, found := options(p, args)
	if found {
		s.run(text, depth+1)
	}
	for len(rest) > 0 && strings.Contains(rest[0], "=") && base == "env" {
		s.simple(rest[:1], depth)
		rest = rest[1:]
	}
	if base == "eval" || base == "trap" || base == "watch" {
		s.run(strings.Join(rest, " "), depth+1)
		return
	}
	if len(rest) <= p.skip {
		return
	}
	rest = rest[p.skip:]
	if base == "." || base == "source" {
		s.script(rest[0])
		return
	}
	s.simple(rest, depth)
}

// interpret takes the script or program text of an interpreter.
func (s *shell) interpret(p prefix, isShell bool, args []string, depth int) {
	rest, text, found := options(p, args)
	switch {
	case found && isShell:
		s.run(text, depth+1)
	case found:
		s.mentioned(text)
	case len(rest) > 0:
		s.script(rest[0])
	}
}

func (s *shell) script(word string) {
	for _, w := range s.expand(word) {
		if strings.Contains(w, "/") || s.cwd != "" {
			s.emit(w)
		}
	}
}

// mentioned takes every path in text of a language that is not read here.
func (s *shell) mentioned(text string) {
	for _, w := range strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" \t\r\n'\"`;|&<>(){}=,[]", r) }) {
		if strings.HasPrefix(w, "/") {
			s.emit(w)
		}
	}
}

// daemon takes the options of start-stop-daemon(8) that name a program.
func (s *shell) daemon(args []string) {
	for i, a := range args {
		name, value, whole := strings.Cut(a, "=")
		if name != "--exec" && name != "--startas" && name != "-x" && name != "-a" {
			continue
		}
		if !whole && i+1 < len(args) {
			value = args[i+1]
		}
		s.script(value)
	}
}

// options passes over the options of a program, and returns the words behind
// them and the command line that an option holds.
func options(p prefix, args []string) (rest []string, text string, found bool) {
	asText := false
	for len(args) > 0 {
		a := args[0]
		if a == "-" {
			args = args[1:]
			continue
		}
		if a == "--" {
			args = args[1:]
			break
		}
		if len(a) < 2 || a[0] != '-' && a[0] != '+' {
			break
		}
		args = args[1:]
		if a == "--rcfile" || a == "--init-file" {
			args = args[min(1, len(args)):]
			continue
		}
		if strings.HasPrefix(a, "--") {
			continue
		}
		last := a[len(a)-1]
		switch {
		case a == "-m" && p.text == 'c' && strings.Contains(p.valued, "X"):
			return nil, "", false // A module of Python.
		case p.text != 0 && strings.IndexByte(a, p.text) > 0:
			asText = true
		case strings.IndexByte(p.valued, last) >= 0:
			args = args[min(1, len(args)):]
		}
		if asText && len(args) > 0 && !strings.HasPrefix(args[0], "-") {
			return args[1:], args[0], true
		}
	}
	// su(1) takes its -c behind the user's name too.
	if i := slices.Index(args, "-c"); p.text == 'c' && p.skip > 0 && i >= 0 && i+1 < len(args) {
		return nil, args[i+1], true
	}
	return args, "", false
}

// expand writes out the home directory and the variables whose values are
// known.
func (s *shell) expand(word string) []string {
	if rest, ok := strings.CutPrefix(word, "~/"); ok && s.home != "" {
		word = s.home + "/" + rest
	}
	if rest, ok := strings.CutPrefix(word, "%h/"); ok && s.home != "" {
		word = s.home + "/" + rest
	}
	before, after, ok := strings.Cut(word, "$")
	if !ok {
		return []string{word}
	}
	name, rest := after, ""
	if inner, ok := strings.CutPrefix(after, "{"); ok {
		name, rest, _ = strings.Cut(inner, "}")
	} else if i := strings.IndexFunc(after, func(r rune) bool { return !nameRune(r) }); i >= 0 {
		name, rest = after[:i], after[i:]
	}
	values, known := s.vars[name]
	if !known || len(values) == 0 {
		return []string{word}
	}
	var all []string
	for _, v := range values {
		if len(all) == maxWords {
			s.full = true
			break
		}
		all = append(all, before+v+rest)
	}
	if strings.Contains(rest, "$") && len(all) == 1 && !strings.Contains(values[0], "$") {
		return s.expand(all[0])
	}
	return all
}

func nameRune(r rune) bool {
	return r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
}

func isName(word string) bool {
	return word != "" && strings.IndexFunc(word, func(r rune) bool { return !nameRune(r) }) < 0
}

// family drops the version from the name of an interpreter.
func family(base string) string { return strings.TrimRight(base, "0123456789.") }

func isShell(name string) bool {
	switch path.Base(name) {
	case "sh", "bash", "dash", "zsh", "ksh", "ash":
		return true
	}
	return false
}
