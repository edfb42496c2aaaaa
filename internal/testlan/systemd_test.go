package testlan

import (
	"context"
	"strings"
	"testing"
	"time"
)

func TestSystemdHost(t *testing.T) {
	lan := newStandard(t, StandardOptions{})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	state, err := lan.Alice.WaitSystemd(ctx)
	if err != nil {
		t.Fatal(err)
	}
	failed, err := lan.Alice.Run(ctx, "systemctl", "--failed", "--no-legend", "--plain")
	if err != nil || state != "running" {
		t.Errorf("systemd is %s, failed units: %q, %v", state, failed, err)
	}

	const unit = "[Service]\nExecStart=/bin/sleep 1000\n[Install]\nWantedBy=multi-user.target\n"
	if err := lan.Alice.WriteFile("/etc/systemd/system/updater.service", []byte(unit), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"systemctl", "daemon-reload"},
		{"systemctl", "enable", "--now", "updater.service"},
		{"systemctl", "is-active", "updater.service"},
		{"pgrep", "-f", "sleep 1000"},
		{"systemctl", "disable", "--now", "updater.service"},
	} {
		if _, err := lan.Alice.Run(ctx, args...); err != nil {
			t.Fatal(err)
		}
	}
	out, _ := lan.Alice.Run(ctx, "systemctl", "is-active", "updater.service")
	if got := strings.TrimSpace(out); got != "inactive" {
		t.Errorf("unit is %q after it was stopped", got)
	}
	if out, err := lan.Alice.Run(ctx, "pgrep", "-f", "sleep 1000"); err == nil {
		t.Errorf("the unit's process runs on: %s", out)
	}
}
