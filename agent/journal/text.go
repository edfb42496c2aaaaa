package journal

import (
	"encoding/base64"
	"fmt"
	"reflect"
	"strings"
	"unicode/utf8"

	"github.com/cordon-security/cordon/agent/assess"
)

// A name on the host may hold any byte but zero, and JSON text may not:
// encoding/json puts U+FFFD for what it cannot write, and then a resumed task
// would look for another file. Text that is no UTF-8 is therefore written as
// this mark and the bytes in base64; so is text that begins with the mark.
const bytesMark = "\x00base64:"

func encodeText(s string) (string, error) {
	if utf8.ValidString(s) && !strings.HasPrefix(s, bytesMark) {
		return s, nil
	}
	return bytesMark + base64.StdEncoding.EncodeToString([]byte(s)), nil
}

func decodeText(s string) (string, error) {
	coded, ok := strings.CutPrefix(s, bytesMark)
	if !ok {
		return s, nil
	}
	b, err := base64.StdEncoding.DecodeString(coded)
	return string(b), err
}

// converted returns a copy of the evidence with every text in it changed, so
// that a field that is added to it is never forgotten here.
func converted(e assess.Evidence, text func(string) (string, error)) (assess.Evidence, error) {
	v, err := convert(reflect.ValueOf(e), text)
	if err != nil {
		return assess.Evidence{}, err
	}
	return v.Interface().(assess.Evidence), nil
}

func convert(v reflect.Value, text func(string) (string, error)) (reflect.Value, error) {
	switch v.Kind() {
	case reflect.String:
		s, err := text(v.String())
		return reflect.ValueOf(s).Convert(v.Type()), err
	case reflect.Struct:
		return convertStruct(v, text)
	case reflect.Slice:
		if v.IsNil() || v.Type().Elem().Kind() == reflect.Uint8 {
			return v, nil
		}
		return convertSlice(v, text)
	case reflect.Map, reflect.Pointer, reflect.Interface, reflect.Array:
		return v, fmt.Errorf("the journal cannot keep a %s", v.Type())
	default:
		return v, nil
	}
}

func convertStruct(v reflect.Value, text func(string) (string, error)) (reflect.Value, error) {
	out := reflect.New(v.Type()).Elem()
	out.Set(v)
	for n := range v.NumField() {
		if !v.Type().Field(n).IsExported() {
			continue // As those of time.Time: copied with the whole.
		}
		field, err := convert(v.Field(n), text)
		if err != nil {
			return v, err
		}
		out.Field(n).Set(field)
	}
	return out, nil
}

func convertSlice(v reflect.Value, text func(string) (string, error)) (reflect.Value, error) {
	out := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
	for n := range v.Len() {
		element, err := convert(v.Index(n), text)
		if err != nil {
			return v, err
		}
		out.Index(n).Set(element)
	}
	return out, nil
}
