package config

import (
	"encoding"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Key describes one key that a configuration file may hold.
type Key struct {
	// Path is the key with those above it: intake.home_networks. An element of
	// a list of blocks is written sources[].path, one of a map users.NAME.role.
	Path string
	// Type is what a person writes: text, whole number, duration, list of ...
	Type string
	// Default is the value without the key, as text; empty when there is none.
	Default string
	// Doc is the field's doc tag: one sentence.
	Doc string
}

// Describe returns the keys of the struct defaults, or the struct it points
// to, in the order of the fields. The values in defaults are the defaults.
func Describe(defaults any) []Key {
	v := reflect.ValueOf(defaults)
	for v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
	}
	if v.Kind() != reflect.Struct {
		return nil
	}
	return describe(v, "", nil)
}

func describe(v reflect.Value, path string, above []reflect.Type) []Key {
	if slices.Contains(above, v.Type()) {
		return nil
	}
	above = append(above, v.Type())
	var keys []Key
	for _, f := range fieldsOf(v.Type()).list {
		fv := v.FieldByIndex(f.index)
		p := join(path, f.name)
		block, sub := blockOf(fv)
		if !block.IsValid() || sub != "" {
			keys = append(keys, Key{Path: p, Type: typeName(fv.Type()), Default: defaultText(fv), Doc: f.doc})
		}
		if block.IsValid() {
			keys = append(keys, describe(block, p+sub, above)...)
		}
	}
	return keys
}

// blockOf returns the struct whose keys stand below v, when there is one, and
// how a path goes from v to it.
func blockOf(v reflect.Value) (reflect.Value, string) {
	t, sub := v.Type(), ""
	for {
		switch {
		case reflect.PointerTo(t).Implements(textType), reflect.PointerTo(t).Implements(yamlType), reflect.PointerTo(t).Implements(bytesYAMLType):
			return reflect.Value{}, ""
		case t.Kind() == reflect.Struct && sub == "" && v.Kind() == reflect.Struct:
			return v, ""
		case t.Kind() == reflect.Struct:
			return reflect.New(t).Elem(), sub
		case t.Kind() == reflect.Pointer:
			if v.IsValid() && v.Kind() == reflect.Pointer && !v.IsNil() {
				v = v.Elem()
			}
		case t.Kind() == reflect.Slice:
			sub += "[]"
		case t.Kind() == reflect.Map:
			sub += ".NAME"
		default:
			return reflect.Value{}, ""
		}
		t = t.Elem()
	}
}

// typeName says what a person writes for t.
func typeName(t reflect.Type) string {
	switch t {
	case durationType:
		return "duration"
	case reflect.TypeFor[netip.Addr]():
		return "IP address"
	case reflect.TypeFor[netip.AddrPort]():
		return "address:port"
	case reflect.TypeFor[netip.Prefix]():
		return "network prefix"
	case reflect.TypeFor[MAC]():
		return "MAC address"
	}
	if reflect.PointerTo(t).Implements(textType) {
		return "text"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return typeName(t.Elem())
	case reflect.Slice:
		return "list of " + typeName(t.Elem())
	case reflect.Map:
		return "block of NAME: " + typeName(t.Elem())
	case reflect.Struct:
		return "block"
	case reflect.Bool:
		return "true or false"
	case reflect.Float32, reflect.Float64:
		return "number"
	case reflect.String:
		return "text"
	}
	return "whole number"
}

// defaultText writes a default as a person would write it in the file.
func defaultText(v reflect.Value) string {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return ""
		}
		return defaultText(v.Elem())
	}
	if v.IsZero() && v.Kind() != reflect.Bool && !v.CanInt() && !v.CanUint() {
		return ""
	}
	if d, ok := v.Interface().(time.Duration); ok {
		return shortDuration(d)
	}
	if m, ok := v.Interface().(encoding.TextMarshaler); ok {
		text, err := m.MarshalText()
		if err != nil {
			return ""
		}
		return string(text)
	}
	switch v.Kind() {
	case reflect.Slice:
		return listText(v)
	case reflect.Map, reflect.Struct:
		return ""
	}
	return fmt.Sprint(v.Interface())
}

func listText(v reflect.Value) string {
	if block, _ := blockOf(v); block.IsValid() {
		return ""
	}
	parts := make([]string, v.Len())
	for i := range parts {
		parts[i] = defaultText(v.Index(i))
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

// shortDuration drops the zero units that time.Duration writes: 1h, not 1h0m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// WriteReference writes the keys of defaults as a table for
// `check-config --explain`.
func WriteReference(w io.Writer, defaults any) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, "KEY\tTYPE\tDEFAULT\tMEANING")
	for _, k := range Describe(defaults) {
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", k.Path, k.Type, k.Default, k.Doc)
	}
	return tw.Flush()
}

// MissingInDocs returns what a docs test must find empty: each key of defaults
// that has no doc tag, and each whose path does not stand in page between
// backticks.
func MissingInDocs(page string, defaults any) []string {
	var missing []string
	for _, k := range Describe(defaults) {
		if k.Doc == "" {
			missing = append(missing, k.Path+": no doc tag")
		}
		if !strings.Contains(page, "`"+k.Path+"`") {
			missing = append(missing, k.Path+": not in the docs page")
		}
	}
	return missing
}
