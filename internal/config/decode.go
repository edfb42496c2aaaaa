package config

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
)

var (
	durationType  = reflect.TypeFor[time.Duration]()
	textType      = reflect.TypeFor[encoding.TextUnmarshaler]()
	bytesYAMLType = reflect.TypeFor[yaml.BytesUnmarshaler]()
	yamlType      = reflect.TypeFor[yaml.InterfaceUnmarshaler]()
)

// value sets v from node; path is the key it stands at.
func (d *decoder) value(node ast.Node, v reflect.Value, path string) {
	switch n := node.(type) {
	case *ast.AnchorNode, *ast.AliasNode, *ast.MergeKeyNode:
		d.fault(at(node), "%s: anchors and aliases are not allowed: write the value out", named(path))
		return
	case *ast.TagNode:
		d.fault(at(node), "%s: tags are not allowed", named(path))
		return
	case *ast.NullNode:
		d.null(n, v, path)
		return
	}
	switch {
	case reflect.PointerTo(v.Type()).Implements(yamlType), reflect.PointerTo(v.Type()).Implements(bytesYAMLType):
		d.custom(node, v, path)
	case reflect.PointerTo(v.Type()).Implements(textType):
		d.text(node, v, path)
	case v.Type() == durationType:
		d.duration(node, v, path)
	default:
		d.kind(node, v, path)
	}
}

// kind sets v by its kind.
func (d *decoder) kind(node ast.Node, v reflect.Value, path string) {
	switch v.Kind() {
	case reflect.Struct:
		d.structure(node, v, path)
	case reflect.Map:
		d.mapping(node, v, path)
	case reflect.Slice:
		d.list(node, v, path)
	case reflect.Pointer:
		fresh := reflect.New(v.Type().Elem())
		if !v.IsNil() {
			fresh.Elem().Set(v.Elem())
		}
		d.value(node, fresh.Elem(), path)
		v.Set(fresh)
	default:
		d.scalar(node, v, path)
	}
}

// null handles a key without a value: a block whose keys are all commented
// out is as if it was not there, a list is empty, a scalar is a mistake.
func (d *decoder) null(node ast.Node, v reflect.Value, path string) {
	if isBlock(v.Type()) || v.Kind() == reflect.Pointer {
		return
	}
	if v.Kind() == reflect.Slice && !reflect.PointerTo(v.Type()).Implements(textType) {
		v.SetZero()
		return
	}
	p := d.nearest(path)
	if p == (place{}) {
		p = at(node)
	}
	d.fault(p, "%s has no value: expected %s (remove the key for its default)", named(path), typeName(v.Type()))
}

// isBlock reports whether t is written as keys and values.
func isBlock(t reflect.Type) bool {
	if reflect.PointerTo(t).Implements(textType) {
		return false
	}
	return t.Kind() == reflect.Struct || t.Kind() == reflect.Map
}

// entries returns the pairs of a block, or records a fault.
func (d *decoder) entries(node ast.Node, path string) ([]*ast.MappingValueNode, bool) {
	switch n := node.(type) {
	case *ast.MappingNode:
		return n.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, true
	}
	d.fault(at(node), "%s: expected keys and values, got %s", named(path), got(node))
	return nil, false
}

// structure sets the fields of the struct v.
func (d *decoder) structure(node ast.Node, v reflect.Value, path string) {
	pairs, ok := d.entries(node, path)
	if !ok {
		return
	}
	fields := fieldsOf(v.Type())
	seen := map[string]bool{}
	for _, pair := range pairs {
		key, ok := d.key(pair, path, seen)
		if !ok {
			continue
		}
		f, known := fields.find(key)
		if !known {
			d.fault(at(pair.Key), "unknown key %q%s%s", key, within(path), fields.suggest(key))
			continue
		}
		sub := join(path, key)
		d.places[sub] = at(pair.Key)
		d.value(pair.Value, v.FieldByIndex(f.index), sub)
	}
}

// mapping sets the map v.
func (d *decoder) mapping(node ast.Node, v reflect.Value, path string) {
	pairs, ok := d.entries(node, path)
	if !ok {
		return
	}
	fresh := reflect.MakeMapWithSize(v.Type(), len(pairs))
	seen := map[string]bool{}
	for _, pair := range pairs {
		name, ok := d.key(pair, path, seen)
		if !ok {
			continue
		}
		sub := join(path, name)
		d.places[sub] = at(pair.Key)
		k := reflect.New(v.Type().Key()).Elem()
		if !d.mapKey(pair, k, name, path) {
			continue
		}
		e := reflect.New(v.Type().Elem()).Elem()
		d.value(pair.Value, e, sub)
		fresh.SetMapIndex(k, e)
	}
	v.Set(fresh)
}

// mapKey sets the map key k from its name.
func (d *decoder) mapKey(pair *ast.MappingValueNode, k reflect.Value, name, path string) bool {
	if u, ok := k.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if err := u.UnmarshalText([]byte(name)); err != nil {
			d.fault(at(pair.Key), "%s: %v", named(path), err)
			return false
		}
		return true
	}
	if k.Kind() != reflect.String {
		d.fault(at(pair.Key), "%s: this key cannot be read into %s", named(path), k.Type())
		return false
	}
	k.SetString(name)
	return true
}

// key returns the name of a pair's key; one that is given twice is a fault.
func (d *decoder) key(pair *ast.MappingValueNode, path string, seen map[string]bool) (string, bool) {
	if pair.Key.IsMergeKey() {
		d.fault(at(pair.Key), "%s: anchors and aliases are not allowed: write the value out", named(path))
		return "", false
	}
	key, ok := keyText(pair.Key)
	if !ok {
		d.fault(at(pair.Key), "a key must be a plain word%s", within(path))
		return "", false
	}
	if seen[key] {
		d.fault(at(pair.Key), "key %q is given twice%s", key, within(path))
		return "", false
	}
	seen[key] = true
	return key, true
}

// keyText returns what a key says, without quotes.
func keyText(node ast.Node) (string, bool) {
	switch n := node.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return node.GetToken().Value, true
	}
	return "", false
}

// list sets the slice v.
func (d *decoder) list(node ast.Node, v reflect.Value, path string) {
	seq, ok := node.(*ast.SequenceNode)
	if !ok {
		d.fault(at(node), "%s: expected a list, got %s (write each element on a line of its own after \"- \")", named(path), got(node))
		return
	}
	fresh := reflect.MakeSlice(v.Type(), len(seq.Values), len(seq.Values))
	for i, e := range seq.Values {
		sub := path + "[" + strconv.Itoa(i) + "]"
		d.places[sub] = at(e)
		d.value(e, fresh.Index(i), sub)
	}
	v.Set(fresh)
}

// text sets a type that parses its own text, such as netip.Prefix and [MAC].
func (d *decoder) text(node ast.Node, v reflect.Value, path string) {
	s, ok := scalarText(node)
	if !ok {
		hint := ""
		if _, block := node.(*ast.MappingNode); block {
			hint = " (put an IPv6 address in quotes)"
		}
		d.fault(at(node), "%s: expected %s, got %s%s", named(path), typeName(v.Type()), got(node), hint)
		return
	}
	u := v.Addr().Interface().(encoding.TextUnmarshaler)
	if err := u.UnmarshalText([]byte(s)); err != nil {
		d.fault(at(node), "%s: expected %s: %v", named(path), typeName(v.Type()), err)
	}
}

// duration sets v from text such as 90s or 1h30m. A bare number is refused,
// because nobody can tell seconds from milliseconds.
func (d *decoder) duration(node ast.Node, v reflect.Value, path string) {
	s, ok := scalarText(node)
	if !ok {
		d.fault(at(node), "%s: expected a duration, got %s", named(path), got(node))
		return
	}
	t, err := time.ParseDuration(s)
	if err != nil {
		d.fault(at(node), "%s: %q is not a duration (write it with a unit: 500ms, 90s, 1h30m)", named(path), s)
		return
	}
	v.SetInt(int64(t))
}

// scalar sets text, numbers and booleans.
func (d *decoder) scalar(node ast.Node, v reflect.Value, path string) {
	if err := setScalar(node, v); err != nil {
		d.fault(at(node), "%s: %v", named(path), err)
	}
}

func setScalar(node ast.Node, v reflect.Value) error {
	switch v.Kind() {
	case reflect.String:
		return setText(node, v)
	case reflect.Bool:
		b, ok := node.(*ast.BoolNode)
		if !ok {
			return fmt.Errorf("expected true or false, got %s", got(node))
		}
		v.SetBool(b.Value)
		return nil
	}
	n, ok := node.(ast.ScalarNode)
	if !ok || node.Type() == ast.StringType || node.Type() == ast.BoolType || node.Type() == ast.LiteralType {
		return fmt.Errorf("expected %s, got %s", typeName(v.Type()), got(node))
	}
	return setNumber(fmt.Sprint(n.GetValue()), v)
}

func setText(node ast.Node, v reflect.Value) error {
	switch n := node.(type) {
	case *ast.StringNode:
		v.SetString(n.Value)
	case *ast.LiteralNode:
		v.SetString(n.Value.Value)
	case ast.ScalarNode:
		return fmt.Errorf("expected text, got %s (put it in quotes)", got(node))
	default:
		return fmt.Errorf("expected text, got %s", got(node))
	}
	return nil
}

func setNumber(s string, v reflect.Value) error {
	switch {
	case v.CanInt():
		n, err := strconv.ParseInt(s, 10, v.Type().Bits())
		if err != nil {
			return fmt.Errorf("expected a whole number of %d bits, got %s", v.Type().Bits(), s)
		}
		v.SetInt(n)
	case v.CanUint():
		n, err := strconv.ParseUint(s, 10, v.Type().Bits())
		if err != nil {
			return fmt.Errorf("expected a whole number from 0 on, of %d bits, got %s", v.Type().Bits(), s)
		}
		v.SetUint(n)
	case v.CanFloat():
		n, err := strconv.ParseFloat(s, v.Type().Bits())
		if err != nil {
			return fmt.Errorf("expected a number, got %s", s)
		}
		v.SetFloat(n)
	default:
		return fmt.Errorf("a key of the Go type %s cannot be read from YAML", v.Type())
	}
	return nil
}

// custom lets a type with its own UnmarshalYAML read the node.
func (d *decoder) custom(node ast.Node, v reflect.Value, path string) {
	if err := yaml.NodeToValue(node, v.Addr().Interface(), yaml.Strict()); err != nil {
		d.fault(at(node), "%s: %s", named(path), strings.TrimSpace(yaml.FormatError(err, false, false)))
	}
}

// scalarText returns what a scalar says in the file, without quotes.
func scalarText(node ast.Node) (string, bool) {
	switch n := node.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return strings.TrimSpace(n.Value.Value), true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return node.GetToken().Value, true
	}
	return "", false
}

// got names what stands in the file.
func got(node ast.Node) string {
	switch n := node.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "keys and values"
	case *ast.SequenceNode:
		return "a list"
	case *ast.NullNode:
		return "nothing"
	case *ast.StringNode:
		return "the text " + strconv.Quote(short(n.Value))
	case *ast.LiteralNode:
		return "a block of text"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "the number " + short(node.GetToken().Value)
	case *ast.BoolNode:
		return node.GetToken().Value
	}
	return "something else"
}

func short(s string) string { return clip(s, 40) }

// clip returns the first limit characters of s.
func clip(s string, limit int) string {
	if r := []rune(s); len(r) > limit {
		return string(r[:limit]) + "..."
	}
	return s
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func named(path string) string {
	if path == "" {
		return "the file"
	}
	return path
}

func within(path string) string {
	if path == "" {
		return ""
	}
	return " in " + path
}
