package service

import (
	"context"
	"time"
)

// statusEvery is how old the line of KeepStatus may get.
const statusEvery = 2 * time.Second

// KeepStatus keeps the line that `systemctl status` shows up to date, as line
// gives it, until ctx ends. It tells the manager only what has changed. line is
// called every few seconds, from one goroutine.
func (u *Unit) KeepStatus(ctx context.Context, line func() string) {
	if u == nil {
		return
	}
	tick := time.NewTicker(statusEvery)
	defer tick.Stop()
	told := ""
	for {
		if now := line(); now != told {
			u.Status("%s", now)
			told = now
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
