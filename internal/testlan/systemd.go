package testlan

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	systemdPath = "/lib/systemd/systemd"
	unitDir     = "/etc/systemd/system"
	hostTarget  = "cordon-lan.target"
)

// maskedUnits would reach from a host to the machine (device nodes, kernel
// settings), or have nothing to do in a host and only cost time.
var maskedUnits = []string{
	"systemd-udevd.service", "systemd-udevd-control.socket", "systemd-udevd-kernel.socket",
	"systemd-udev-trigger.service", "systemd-udev-settle.service", "systemd-hwdb-update.service",
	"systemd-sysctl.service", "systemd-modules-load.service", "systemd-binfmt.service",
	"proc-sys-fs-binfmt_misc.automount", "proc-sys-fs-binfmt_misc.mount",
	"sys-kernel-config.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount",
	"sys-fs-fuse-connections.mount", "dev-hugepages.mount", "dev-mqueue.mount",
	"systemd-remount-fs.service", "systemd-random-seed.service", "systemd-firstboot.service",
	"systemd-machine-id-commit.service", "systemd-journal-flush.service",
	"systemd-update-utmp.service", "systemd-update-utmp-runlevel.service", "systemd-timesyncd.service",
	"systemd-tmpfiles-setup-dev.service", "systemd-pstore.service", "systemd-boot-system-token.service",
	"systemd-journal-catalog-update.service", "systemd-update-done.service", "ldconfig.service",
	"networking.service", "ifupdown-pre.service", "systemd-networkd.service", "systemd-networkd.socket",
	"systemd-resolved.service", "nftables.service", "apparmor.service", "ufw.service",
	"keyboard-setup.service", "console-setup.service", "getty.target", "timers.target",
}

// writeUnits leaves a host's systemd with a target of few units.
func writeUnits() error {
	for _, unit := range maskedUnits {
		path := filepath.Join(unitDir, unit)
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("mask %s: %w", unit, err)
		}
		if err := os.Symlink("/dev/null", path); err != nil {
			return fmt.Errorf("mask %s: %w", unit, err)
		}
	}
	if err := maskGenerators(); err != nil {
		return err
	}
	target := "[Unit]\nDescription=Host of a test LAN\nRequires=basic.target\nAfter=basic.target\nWants=cron.service\nAllowIsolate=yes\n"
	return replaceFile(filepath.Join(unitDir, hostTarget), target)
}

// maskGenerators keeps systemd from running the machine's unit generators, at
// boot and at every reload: a host has no disks, terminals or init scripts, and
// a dozen programs each time is what a reload would spend its seconds on.
func maskGenerators() error {
	const dir = "/etc/systemd/system-generators"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("mask unit generators: %w", err)
	}
	found, err := filepath.Glob("/lib/systemd/system-generators/*")
	if err != nil {
		return fmt.Errorf("mask unit generators: %w", err)
	}
	for _, generator := range found {
		path := filepath.Join(dir, filepath.Base(generator))
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("mask unit generators: %w", err)
		}
		if err := os.Symlink("/dev/null", path); err != nil {
			return fmt.Errorf("mask unit generators: %w", err)
		}
	}
	return nil
}

// execSystemd turns the calling process into systemd. It returns only when
// that failed.
func execSystemd(report *os.File, keep bool) error {
	// The death signal belongs to a thread, and the one that was given it at the
	// start need not be this one, which becomes systemd. Should the maker die
	// before this, the report below fails.
	runtime.LockOSThread()
	if !keep {
		if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
			return fmt.Errorf("tie systemd to the maker of the LAN: %w", err)
		}
	}
	if _, err := os.Stat(systemdPath); errors.Is(err, fs.ErrNotExist) {
		return errors.New("systemd is not installed: apt-get install systemd")
	}
	if _, err := report.WriteString(bootReady); err != nil {
		return err
	}
	argv := []string{systemdPath, "--system", "--unit=" + hostTarget, "--log-target=journal", "--show-status=false"}
	env := []string{"container=cordon-lan", "PATH=" + hostPath, "LANG=C.UTF-8"}
	if err := unix.Exec(systemdPath, argv, env); err != nil {
		return fmt.Errorf("start systemd: %w", err)
	}
	return nil
}

// WaitSystemd waits until the host's systemd has started all its units. It
// returns "running", or "degraded" when a unit failed.
func (h *Host) WaitSystemd(ctx context.Context) (string, error) {
	if !h.o.Systemd {
		return "", fmt.Errorf("host %s does not run systemd", h.name)
	}
	last := ""
	for {
		out, err := h.Run(ctx, "systemctl", "is-system-running")
		last = strings.TrimSpace(out)
		if last == "running" || last == "degraded" {
			return last, nil
		}
		select {
		case <-ctx.Done():
			return last, fmt.Errorf("systemd on %s is %q: %w", h.name, last, errors.Join(ctx.Err(), err))
		case <-time.After(50 * time.Millisecond):
		}
	}
}
