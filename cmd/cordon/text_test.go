package main

import (
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"":                           "",
		"alice's laptop":             "alice's laptop",
		"プリンター émoji 🖨":              "プリンター émoji 🖨",
		"\x1b[2J":                    `\x1b[2J`,
		"a\r\nb\tc":                  `a\x0d\nb\tc`,
		"\u009b2J":                   `\x9b2J`,
		"\u202egnp.exe":              `\u202egnp.exe`,
		"zero\u200bwidth":            `zero\u200bwidth`,
		"tag\U000e0041":              `tag\U000e0041`,
		"no UTF-8 \xff\xc0":          `no UTF-8 \xff\xc0`,
		"e\u0301\u0301\u0301\u0301!": "e\u0301\u0301\u0301!",
		"\ufffd":                     "\ufffd",
	} {
		if got := printable(in); got != want {
			t.Errorf("printable(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add(hostile)
	f.Add("\xff\u009b")
	f.Fuzz(func(t *testing.T, text string) {
		got := printable(text)
		if !utf8.ValidString(got) {
			t.Fatalf("not UTF-8: %q", got)
		}
		for _, r := range got {
			if !unicode.IsPrint(r) && !unicode.Is(unicode.M, r) {
				t.Fatalf("%U in %q", r, got)
			}
		}
		if short := shorten(got, 10); width(short) > 10 {
			t.Fatalf("%q takes %d columns", short, width(short))
		}
	})
}

func TestWidthAndShorten(t *testing.T) {
	for text, want := range map[string]int{"": 0, "abc": 3, "e\u0301": 1, "プリ": 4, "🖨": 2, "→": 1, "한글": 4, "ｆ": 2} {
		if got := width(text); got != want {
			t.Errorf("width(%q) = %d, want %d", text, got, want)
		}
	}
	for text, want := range map[string]string{"abcdef": "abcdef", "abcdefg": "abcde…", "プリンター": "プリ…", "": ""} {
		if got := shorten(text, 6); got != want {
			t.Errorf("shorten(%q) = %q, want %q", text, got, want)
		}
	}
	if got := shorten(strings.Repeat("x", 100), maxCell); width(got) != maxCell {
		t.Errorf("%q takes %d columns", got, width(got))
	}
}

func TestRoughAndDelta(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 s", time.Millisecond: "0 s", 59 * time.Second: "59 s", 3 * time.Minute: "3 m", time.Hour: "1 h",
		90 * time.Minute: "1 h 30 m", 24 * time.Hour: "1 d", 49 * time.Hour: "2 d 1 h",
	} {
		if got := rough(d); got != want {
			t.Errorf("rough(%s) = %q, want %q", d, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		0: "+0.0 ms", 1500 * time.Microsecond: "+1.5 ms", 12 * time.Millisecond: "+12 ms", 1800 * time.Millisecond: "+1.8 s",
		3 * time.Minute: "+3 m", -12 * time.Millisecond: "-12 ms",
	} {
		if got := delta(d); got != want {
			t.Errorf("delta(%s) = %q, want %q", d, got, want)
		}
	}
}

func TestSpan(t *testing.T) {
	for text, want := range map[string]time.Duration{"90s": 90 * time.Second, "8h": 8 * time.Hour, "2d": 48 * time.Hour, "1d12h": 36 * time.Hour, "1h30m": 90 * time.Minute} {
		var s span
		if err := s.UnmarshalText([]byte(text)); err != nil || time.Duration(s) != want {
			t.Errorf("%q = %s, %v", text, time.Duration(s), err)
		}
	}
	for _, text := range []string{"", "0", "0d", "-1h", "1d-2h", "-1d", "1.5d", "d", "8", "1w", "99999999d", "1d1d"} {
		var s span
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was taken as %s", text, time.Duration(s))
		}
	}
}
