package config

import (
	"fmt"
	"reflect"
	"strings"
)

// field is one key of a struct.
type field struct {
	name  string
	doc   string
	index []int
}

type fields struct{ list []field }

// fieldsOf returns the keys of the struct t; fields of a struct embedded with
// `yaml:",inline"` count as its own.
func fieldsOf(t reflect.Type) fields {
	var fs fields
	for i := range t.NumField() {
		sf := t.Field(i)
		name, options, _ := strings.Cut(sf.Tag.Get("yaml"), ",")
		switch {
		case !sf.IsExported() || name == "-":
			continue
		case options == "inline" && sf.Type.Kind() == reflect.Struct:
			for _, f := range fieldsOf(sf.Type).list {
				f.index = append([]int{i}, f.index...)
				fs.list = append(fs.list, f)
			}
			continue
		case name == "":
			name = strings.ToLower(sf.Name)
		}
		fs.list = append(fs.list, field{name: name, doc: sf.Tag.Get("doc"), index: []int{i}})
	}
	return fs
}

func (fs fields) find(name string) (field, bool) {
	for _, f := range fs.list {
		if f.name == name {
			return f, true
		}
	}
	return field{}, false
}

// suggest returns the nearest key as a question, or the keys there are when
// they are few, or nothing.
func (fs fields) suggest(name string) string {
	best, least := "", max(len(name)/2, 2)+1
	for _, f := range fs.list {
		if n := distance(strings.ToLower(name), f.name, least); n < least {
			best, least = f.name, n
		}
	}
	if best != "" {
		return fmt.Sprintf(" (did you mean %q?)", best)
	}
	if len(fs.list) == 0 || len(fs.list) > 8 {
		return ""
	}
	names := make([]string, len(fs.list))
	for i, f := range fs.list {
		names[i] = f.name
	}
	return " (known: " + strings.Join(names, ", ") + ")"
}

// distance is the Levenshtein distance of a and b in bytes, or limit when the
// lengths alone are that far apart.
func distance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
