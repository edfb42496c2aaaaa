package service

import (
	"errors"
	"fmt"
	"os"
)

// Code is an error that ends a program with an exit code and without a message,
// because what there was to say is said: Main's result, or a check that failed.
type Code int

// Error names the code, for those who do not end the program by it.
func (c Code) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

// ExitCode is the code, for [ExitCode].
func (c Code) ExitCode() int { return int(c) }

// Exit prints what a command of the program returned, once, on standard error,
// and returns the exit code that it asks for. A [Code] is not printed.
func Exit(program string, err error) int {
	if silent := Code(0); err != nil && !errors.As(err, &silent) {
		fmt.Fprintf(os.Stderr, "%s: %v\n", program, err)
	}
	return ExitCode(err)
}
