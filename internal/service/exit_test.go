package service

import (
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
)

// TestExit holds that an error is printed once with the program's name, that a
// code is not, and which exit code each asks for.
func TestExit(t *testing.T) {
	for what, c := range map[string]struct {
		err  error
		code int
		text string
	}{
		"nothing":      {nil, 0, ""},
		"an error":     {errors.New("no room"), 1, "cordon-x: no room\n"},
		"a code":       {Code(78), 78, ""},
		"a code below": {fmt.Errorf("run: %w", Code(3)), 3, ""},
		"success":      {Code(0), 0, ""},
	} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		stderr := os.Stderr
		os.Stderr = w
		code := Exit("cordon-x", c.err)
		os.Stderr = stderr
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil || code != c.code || string(text) != c.text {
			t.Errorf("%s: code %d, printed %q, %v; want %d, %q", what, code, text, err, c.code, c.text)
		}
	}
}
