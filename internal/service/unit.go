package service

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

const (
	readyState    = daemon.SdNotifyReady
	stoppingState = daemon.SdNotifyStopping
	feedState     = daemon.SdNotifyWatchdog
)

// notifier is the service manager's end of sd_notify(3).
type notifier interface {
	// notify sends one state; without a service manager it does nothing.
	notify(state string)
	// watchdog is how often the manager must hear of us; 0 is never.
	watchdog() time.Duration
}

// systemd notifies through NOTIFY_SOCKET and WATCHDOG_USEC.
type systemd struct{}

// notify drops errors: a manager that does not listen is not a fault of the
// program, and a missed watchdog ends it soon enough.
func (systemd) notify(state string) { _, _ = daemon.SdNotify(false, state) }

func (systemd) watchdog() time.Duration {
	d, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return 0
	}
	return d
}

// Unit is the running program as its service manager sees it. Its methods may
// be called at any time, from several goroutines, and on nil.
type Unit struct {
	manager notifier
	mu      sync.Mutex
	healthy []func() bool
}

type unitKey struct{}

func newUnit(n notifier) *Unit { return &Unit{manager: n} }

// From returns the unit of a context that [Main] made; nil, which is usable,
// for any other.
func From(ctx context.Context) *Unit {
	u, _ := ctx.Value(unitKey{}).(*Unit)
	return u
}

// Status sets the one line that `systemctl status` shows.
func (u *Unit) Status(format string, args ...any) {
	if u == nil {
		return
	}
	u.notify("STATUS=" + oneLine(fmt.Sprintf(format, args...)))
}

// Watch adds a check to the watchdog: systemd is told that the program lives
// only while every check returns true, and restarts it otherwise. A check must
// return soon and must not wait for a lock that a stuck part may hold for good;
// one that hangs counts as false.
func (u *Unit) Watch(healthy func() bool) {
	if u == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.healthy = append(u.healthy, healthy)
}

func (u *Unit) notify(state string) { u.manager.notify(state) }

// alive reports whether every check passes.
func (u *Unit) alive() bool {
	u.mu.Lock()
	checks := u.healthy
	u.mu.Unlock()
	for _, healthy := range checks {
		if !healthy() {
			return false
		}
	}
	return true
}

// feed tells the manager's watchdog three times in each of its intervals that
// the program lives, until ctx ends.
func (u *Unit) feed(ctx context.Context) {
	interval := u.manager.watchdog()
	if interval <= 0 {
		return
	}
	tick := time.NewTicker(interval / 3)
	defer tick.Stop()
	for {
		if u.alive() {
			u.notify(feedState)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// oneLine makes s fit for one line of the notify protocol, where a newline
// would begin another assignment.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}
