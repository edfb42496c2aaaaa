package console

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// maxText is how many characters of a text from outside a page shows.
	maxText = 300
	// maxRecord and maxRecords bound, in bytes, one raw record and all of a page.
	maxRecord  = 32 << 10
	maxRecords = 512 << 10
	// maxLaidOut bounds a record that is laid out; a larger one is shown as it came.
	maxLaidOut = 4 * maxRecord
	// maxMarks is how many combining marks one character may carry; more climb
	// over the lines around it.
	maxMarks = 3
	// maxDepth bounds the nesting of a record that is laid out: indentation grows
	// with the square of it.
	maxDepth = 32
)

// clean makes a text from outside fit to be read in a line: one that is cut at
// limit characters, without line ends, and where what is invisible, turns the
// direction of the text or is not UTF-8 is shown by its number instead. A number
// counts as the characters that it takes.
func clean(text string, limit int) string { return visible(text, limit, false) }

// visible is clean that keeps line ends and blanks when lines is true.
func visible(text string, limit int, lines bool) string {
	var b strings.Builder
	n, marks := 0, 0
	number := func(format string, arg any) {
		written, _ := fmt.Fprintf(&b, format, arg) // a Builder takes everything
		if !lines {
			n += written / 2
		}
	}
	for i := 0; i < len(text); {
		if n >= limit {
			b.WriteString("…")
			break
		}
		r, size := utf8.DecodeRuneInString(text[i:])
		if unicode.In(r, unicode.Mn, unicode.Me) {
			marks++
		} else {
			marks = 0
		}
		switch {
		case r == utf8.RuneError && size == 1:
			number("⟨%02X⟩", text[i])
		case lines && r == '\n':
			b.WriteByte('\n')
		case unicode.IsSpace(r) && r != '\u2028' && r != '\u2029':
			b.WriteByte(' ')
		case !unicode.IsPrint(r) || blank(r):
			number("⟨U+%04X⟩", r)
		case marks <= maxMarks:
			b.WriteRune(r)
		}
		i += size
		n++
	}
	return b.String()
}

// blank reports letters and symbols that have no shape.
func blank(r rune) bool {
	switch r {
	case '\u115f', '\u1160', '\u17b4', '\u17b5', '\u2800', '\u3164', '\uffa0', '\u034f':
		return true
	}
	return r >= '\ufe00' && r <= '\ufe0f' || r >= 0xe0100 && r <= 0xe01ef
}

// record is a raw record as a page shows it.
type record struct {
	Text string
	// Note says what was left out; empty when nothing was.
	Note string
}

// layout makes raw readable, as laid out JSON where it is JSON. It spends from
// the page's budget of bytes and leaves the record out when that is used up.
func layout(raw []byte, budget *int) record {
	if len(raw) == 0 {
		return record{Note: "not here, `cordon threat show` may have more"}
	}
	shown, note := raw, ""
	if len(raw) > maxRecord {
		shown = raw[:maxRecord]
		note = fmt.Sprintf("the first %d of %d bytes", maxRecord, len(raw))
	}
	if len(shown) > *budget {
		return record{Note: fmt.Sprintf("%d bytes, more than this page still shows", len(raw))}
	}
	var b bytes.Buffer
	if note == "" && depth(raw) <= maxDepth && json.Indent(&b, raw, "", "  ") == nil && b.Len() <= maxLaidOut {
		shown = b.Bytes()
	}
	*budget -= len(shown)
	return record{Text: visible(string(shown), len(shown), true), Note: note}
}

// depth is how deep the brackets in raw nest, those in strings left out.
func depth(raw []byte) int {
	now, deepest := 0, 0
	quoted, escaped := false, false
	for _, c := range raw {
		switch {
		case escaped:
			escaped = false
		case quoted && c == '\\':
			escaped = true
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			now++
			deepest = max(deepest, now)
		case c == '}' || c == ']':
			now--
		}
	}
	return deepest
}
