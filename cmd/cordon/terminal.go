package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// isTerminal reports whether a reader or writer is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// ask writes a question to standard error and reads one line. It returns when
// the person interrupts, too.
func (s *session) ask(question string) (string, error) {
	fmt.Fprint(s.stderr, printable(question)+" ")
	return readLine(s.ctx, s.stdin)
}

// askHidden is ask with the echo of the terminal off.
func (s *session) askHidden(question string) (answer string, err error) {
	f, ok := s.stdin.(*os.File)
	if !ok {
		return "", errors.New("standard input is not a terminal")
	}
	fd := int(f.Fd())
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return "", fmt.Errorf("turn the echo off: %w", err)
	}
	hidden := *before
	hidden.Lflag &^= unix.ECHO
	if err := unix.IoctlSetTermios(fd, unix.TCSETSF, &hidden); err != nil {
		return "", fmt.Errorf("turn the echo off: %w", err)
	}
	defer func() {
		fmt.Fprintln(s.stderr)
		err = errors.Join(err, unix.IoctlSetTermios(fd, unix.TCSETSF, before))
	}()
	return s.ask(question)
}

// readLine reads one line of at most maxToken bytes. When the context ends first
// the reading goes on alone: the program is about to end.
func readLine(ctx context.Context, from io.Reader) (string, error) {
	type read struct {
		line string
		err  error
	}
	done := make(chan read, 1)
	go func() {
		line, err := bufio.NewReader(io.LimitReader(from, maxToken)).ReadString('\n')
		done <- read{line, err}
	}()
	select {
	case <-ctx.Done():
		return "", errors.New("interrupted")
	case r := <-done:
		if r.err != nil && !(errors.Is(r.err, io.EOF) && r.line != "") {
			return "", fmt.Errorf("read the answer: %w", r.err)
		}
		return strings.TrimSpace(r.line), nil
	}
}
