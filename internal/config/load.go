package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// MaxSize is the largest configuration file that is read, in bytes.
const MaxSize = 1 << 20

// maxDepth bounds how deeply flow collections and indentation may nest, so
// that no file can exhaust the parser's stack.
const maxDepth = 64

// maxItems bounds lines and commas together, because the parser's time grows
// with the square of the entries of one block: this many take a few seconds.
const maxItems = 20_000

// maxMessage bounds what a fault says, in characters, since it quotes the file.
const maxMessage = 400

// maxFaults bounds how many faults one error tells.
const maxFaults = 50

// Load reads the file at path into the struct that into points to, and then
// calls its Validate method when it has one (func() error). Fields that the
// file does not name keep their values, which are the defaults; a list in the
// file replaces the default list. On an error into is unchanged.
//
// The error is an [*Error] for anything wrong inside the file and wraps the
// [os.PathError] when it cannot be read.
func Load(path string, into any) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open configuration (is --config right?): %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	return Parse(path, data, into)
}

// LoadUsual is [Load] for a program whose file has a usual path: that one may be
// missing, and the defaults hold. A path that somebody named must be there.
func LoadUsual(path, usual string, into any) error {
	err := Load(path, into)
	if path == usual && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Parse is [Load] for a file that is already in memory; name stands for the
// path in errors.
func Parse(name string, data []byte, into any) error {
	target := reflect.ValueOf(into)
	if target.Kind() != reflect.Pointer || target.IsNil() || target.Elem().Kind() != reflect.Struct {
		return fmt.Errorf("load configuration %s: the target is %T, not a pointer to a struct", name, into)
	}
	d := &decoder{file: name, places: map[string]place{}}
	body := d.parse(data)
	fresh := reflect.New(target.Elem().Type())
	fresh.Elem().Set(target.Elem())
	if body != nil && len(d.faults) == 0 {
		d.value(body, fresh.Elem(), "")
	}
	if len(d.faults) == 0 {
		d.validate(fresh.Interface())
	}
	if len(d.faults) > 0 {
		return d.err()
	}
	target.Elem().Set(fresh.Elem())
	return nil
}

// place is a position in the file, counted from 1.
type place struct{ line, column int }

// decoder walks one document beside the Go type it is for.
type decoder struct {
	file   string
	lines  []string
	faults []Fault
	// places holds where each key path was set, for errors from Validate.
	places map[string]place
}

// parse returns the document's body, or nil when it is empty or faulty.
func (d *decoder) parse(data []byte) ast.Node {
	switch {
	case len(data) > MaxSize:
		d.fault(place{}, "the file is larger than %d KiB", MaxSize>>10)
		return nil
	case !utf8.Valid(data):
		d.fault(place{}, "the file is not UTF-8 text")
		return nil
	case bytes.IndexByte(data, 0) >= 0:
		d.fault(place{}, "the file holds a NUL byte: it is not a text file")
		return nil
	}
	if bytes.Count(data, []byte("\n"))+bytes.Count(data, []byte(",")) > maxItems {
		d.fault(place{}, "the file has more than %d lines and list elements", maxItems)
		return nil
	}
	d.lines = strings.Split(strings.ReplaceAll(string(data), "\r\n", "\n"), "\n")
	if p, deep := tooDeep(d.lines); deep {
		d.fault(p, "nested deeper than %d levels", maxDepth)
		return nil
	}
	file, err := parseYAML(data)
	if err != nil {
		d.syntax(err)
		return nil
	}
	return d.body(file)
}

// body returns the only document's body.
func (d *decoder) body(file *ast.File) ast.Node {
	var found ast.Node
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		switch doc.Body.(type) {
		case *ast.CommentGroupNode, *ast.NullNode:
			continue
		case *ast.DirectiveNode:
			d.fault(at(doc.Body), "directives are not allowed")
			return nil
		}
		if found != nil {
			d.fault(at(doc.Body), "a second document: a configuration file holds one")
			return nil
		}
		found = doc.Body
	}
	return found
}

// parseYAML parses data; a panic of the parser on odd input becomes an error.
func parseYAML(data []byte) (file *ast.File, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("not valid YAML: %v", r)
		}
	}()
	return parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey())
}

// tooDeep reports where brackets or list marks nest deeper than maxDepth. It
// counts brackets in comments and quoted text too; no sensible file has so
// many that are never closed.
func tooDeep(lines []string) (place, bool) {
	depth := 0
	for n, line := range lines {
		marks := 0
		for i, r := range line {
			switch r {
			case '[', '{':
				depth++
			case ']', '}':
				depth = max(depth-1, 0)
			}
			if strings.HasPrefix(line[i:], "- ") || strings.HasPrefix(line[i:], ": ") || strings.HasPrefix(line[i:], "? ") {
				marks++
			}
			if depth > maxDepth || marks > maxDepth && strings.Trim(line[:i], " -:?") == "" {
				return place{n + 1, 1}, true
			}
		}
		if len(line)-len(strings.TrimLeft(line, " \t")) > 8*maxDepth {
			return place{n + 1, 1}, true
		}
	}
	return place{}, false
}

// syntax records a fault that the parser found.
func (d *decoder) syntax(err error) {
	var syntax *yaml.SyntaxError
	if errors.As(err, &syntax) && syntax.Token != nil && syntax.Token.Position != nil {
		p := syntax.Token.Position
		d.fault(place{p.Line, p.Column}, "%s", syntax.Message)
		return
	}
	d.fault(place{}, "%s", strings.TrimSpace(err.Error()))
}

// validate calls the Validate method that v may have.
func (d *decoder) validate(v any) {
	checked, ok := v.(interface{ Validate() error })
	if !ok {
		return
	}
	err := checked.Validate()
	if err == nil {
		return
	}
	for _, e := range flatten(err) {
		var key *KeyError
		if errors.As(e, &key) {
			d.fault(d.nearest(key.Key), "%s", e.Error())
			continue
		}
		d.fault(place{}, "%s", e.Error())
	}
}

// nearest returns where key, or else the closest key above it, was set.
func (d *decoder) nearest(key string) place {
	for key != "" {
		if p, ok := d.places[key]; ok {
			return p
		}
		key = key[:max(strings.LastIndexAny(key, ".["), 0)]
	}
	return place{}
}

func (d *decoder) fault(p place, format string, args ...any) {
	f := Fault{File: d.file, Line: p.line, Column: p.column, Message: clip(fmt.Sprintf(format, args...), maxMessage)}
	if p.line > 0 && p.line <= len(d.lines) {
		f.Text = d.lines[p.line-1]
	}
	d.faults = append(d.faults, f)
}

// err returns the faults in the order of the file's lines.
func (d *decoder) err() error {
	slices.SortStableFunc(d.faults, func(a, b Fault) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	if more := len(d.faults) - maxFaults; more > 0 {
		d.faults = d.faults[:maxFaults]
		d.fault(place{}, "%d more faults are not shown", more)
	}
	return &Error{Faults: d.faults}
}

// at returns where node starts.
func at(node ast.Node) place {
	tok := node.GetToken()
	if m, ok := node.(*ast.MappingNode); ok && len(m.Values) > 0 && !m.IsFlowStyle {
		tok = m.Values[0].Key.GetToken()
	}
	if tok == nil || tok.Position == nil {
		return place{}
	}
	return place{tok.Position.Line, tok.Position.Column}
}
