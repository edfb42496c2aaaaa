package config

import (
	"fmt"
	"strings"
)

// ExitCode is the process exit code for a faulty configuration: EX_CONFIG of
// sysexits.h. The units name it in RestartPreventExitStatus, because starting
// again does not repair a file.
const ExitCode = 78

// Fault is one thing that is wrong in a configuration file.
type Fault struct {
	// File is the path as given to [Load].
	File string
	// Line and Column count from 1; both are 0 when the fault has no place.
	Line, Column int
	// Text is the line of the file, without its end.
	Text string
	// Message says what is wrong and, where it can, what to do.
	Message string
}

// String returns FILE:LINE:COL: MESSAGE, and below it the line with a mark
// under the column.
func (f Fault) String() string {
	if f.Line == 0 {
		return fmt.Sprintf("%s: %s", f.File, f.Message)
	}
	place := fmt.Sprintf("%s:%d:%d: %s", f.File, f.Line, f.Column, f.Message)
	if strings.TrimSpace(f.Text) == "" {
		return place
	}
	text, column := window(f.Text, f.Column)
	return fmt.Sprintf("%s\n    %s\n    %s^", place, text, indent(text, column))
}

// maxShown is how much of a line is shown, in characters.
const maxShown = 120

// window returns the part of a long line that column lies in, and the column in
// that part.
func window(line string, column int) (string, int) {
	r := []rune(line)
	if len(r) <= maxShown {
		return line, column
	}
	start := min(max(column-1-maxShown/2, 0), len(r)-maxShown)
	return string(r[start : start+maxShown]), column - start
}

// indent returns white space as wide as the first column-1 characters of
// line, keeping tabs so that the mark stands under the right place.
func indent(line string, column int) string {
	var b strings.Builder
	for i, r := range []rune(line) {
		if i >= column-1 {
			break
		}
		if r != '\t' {
			r = ' '
		}
		b.WriteRune(r)
	}
	return b.String()
}

// Error holds every fault that was found in one file, in the order of its
// lines. [Load] and [Parse] return it for everything except a file that could
// not be read.
type Error struct {
	Faults []Fault
}

// Error joins the faults, one after another on lines of their own.
func (e *Error) Error() string {
	lines := make([]string, len(e.Faults))
	for i, f := range e.Faults {
		lines[i] = f.String()
	}
	return strings.Join(lines, "\n")
}

// ExitCode returns [ExitCode], for internal/service.
func (*Error) ExitCode() int { return ExitCode }

// KeyError says which key a value belongs to that a Validate method refuses.
// [Load] turns it into a [Fault] at that key's line. Several are joined with
// [errors.Join].
type KeyError struct {
	// Key is the path as [Describe] writes it, with an index in brackets for
	// an element of a list: sources[1].path.
	Key string
	// Err says what is wrong with the value.
	Err error
}

// Error returns KEY: MESSAGE.
func (e *KeyError) Error() string { return e.Key + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *KeyError) Unwrap() error { return e.Err }

// Invalid returns a [KeyError] for key with a formatted message.
func Invalid(key, format string, args ...any) error {
	return &KeyError{Key: key, Err: fmt.Errorf(format, args...)}
}

// flatten returns the errors that err joins, or err alone.
func flatten(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, flatten(e)...)
	}
	return all
}
