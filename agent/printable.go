package agent

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// printable makes every text of a message fit to be sent and read: names on the
// host may hold any byte, protobuf takes only UTF-8, and a control character
// would act on the terminal of who reads it.
func printable(m protoreflect.Message) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap():
		case f.IsList():
			for n := range v.List().Len() {
				if fit, changed := printableValue(f, v.List().Get(n)); changed {
					v.List().Set(n, fit)
				}
			}
		default:
			if fit, changed := printableValue(f, v); changed {
				m.Set(f, fit)
			}
		}
		return true
	})
}

func printableValue(f protoreflect.FieldDescriptor, v protoreflect.Value) (fit protoreflect.Value, changed bool) {
	switch f.Kind() {
	case protoreflect.StringKind:
		s := printableText(v.String())
		return protoreflect.ValueOfString(s), s != v.String()
	case protoreflect.MessageKind:
		printable(v.Message())
	}
	return v, false
}

func printableText(s string) string {
	var b strings.Builder
	for _, r := range strings.ToValidUTF8(s, "\uFFFD") {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			fmt.Fprintf(&b, "\\x%02x", r)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}
