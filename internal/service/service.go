package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// Exit codes of [Main]. An error with a method ExitCode() int chooses its own;
// a faulty configuration uses that for EX_CONFIG (78).
const (
	ExitOK     = 0
	ExitFailed = 1
)

// ExitCode returns the exit code that err asks for: 0 for nil, what its
// ExitCode method says when it or an error below it has one, else 1.
func ExitCode(err error) int {
	if err == nil {
		return ExitOK
	}
	var coded interface{ ExitCode() int }
	if errors.As(err, &coded) {
		return coded.ExitCode()
	}
	return ExitFailed
}

// Main runs a program to its end and returns its exit code.
//
// The context given to run is cancelled by SIGINT or SIGTERM; run should then
// return soon. A second signal ends the process at once with 128 + its number.
// run calls ready once it serves; systemd is then told READY=1, and from then
// on the watchdog is fed (see [Unit.Watch]). STOPPING=1 is sent when the context
// is cancelled or run returns.
//
// Main sets slog's default logger to [NewLogger] on standard error; hand
// slog.Default() on in Options. An error from run is printed once; one that
// wraps context.Canceled after a signal is a clean end.
func Main(name string, run func(ctx context.Context, ready func()) error) int {
	slog.SetDefault(NewLogger(os.Stderr))
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(signals)
	return serve(name, run, signals, newUnit(systemd{}), os.Exit)
}

// serve is Main with what a test replaces: where signals come from, who is
// notified, and how the process is ended hard.
func serve(name string, run func(context.Context, func()) error, signals <-chan os.Signal, unit *Unit, exit func(int)) int {
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), unitKey{}, unit))
	defer cancel()
	var background sync.WaitGroup
	background.Go(func() { onSignals(ctx, cancel, name, signals, exit) })

	var once sync.Once
	ready := func() {
		once.Do(func() {
			unit.notify(readyState)
			go unit.feed(ctx) // not waited for: a check that hangs must not keep the process
		})
	}
	stop := context.AfterFunc(ctx, func() { unit.notify(stoppingState) })
	err := run(ctx, ready)
	interrupted := ctx.Err() != nil
	if stop() {
		unit.notify(stoppingState)
	}
	cancel()
	background.Wait()
	if interrupted && errors.Is(err, context.Canceled) {
		err = nil
	}
	if err != nil {
		unit.notify("STATUS=" + oneLine(err.Error()))
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
	}
	return ExitCode(err)
}

// onSignals cancels at the first signal and ends the process at the second. It
// returns when the context is cancelled for another reason than a signal.
func onSignals(ctx context.Context, cancel context.CancelFunc, name string, signals <-chan os.Signal, exit func(int)) {
	select {
	case s := <-signals:
		slog.Info("stopping", "program", name, "signal", s.String())
		cancel()
	case <-ctx.Done():
		return
	}
	go func() {
		s, ok := <-signals
		if !ok {
			return
		}
		slog.Warn("second signal, ending at once", "program", name, "signal", s.String())
		if number, ok := s.(syscall.Signal); ok {
			exit(128 + int(number))
			return
		}
		exit(ExitFailed)
	}()
}
