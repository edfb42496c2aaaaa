package clean

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// unitTime bounds one call to systemctl.
const unitTime = 20 * time.Second

// Units is the service manager of the host. user names whose own manager is
// meant; empty means the system's.
type Units interface {
	// Stop stops a unit; one that does not run, or is not known, is stopped.
	Stop(ctx context.Context, unit, user string) error
	// Active reports whether a unit runs or is about to.
	Active(ctx context.Context, unit, user string) bool
	// Reload has the manager read its files again.
	Reload(ctx context.Context, user string) error
}

// Systemctl drives systemd by systemctl(1).
type Systemctl struct{}

// HasSystemd reports whether systemd manages this host, sd_booted(3).
func HasSystemd() bool {
	st, err := os.Lstat("/run/systemd/system")
	return err == nil && st.IsDir()
}

// Stop implements Units.
func (Systemctl) Stop(ctx context.Context, unit, user string) error {
	unit = instances(unit)
	err := systemctl(ctx, user, "stop", "--", unit)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 5 {
		err = nil // Not loaded, systemctl(1).
	}
	if err == nil {
		// Forget a failure, which would otherwise keep the unit listed.
		_ = systemctl(ctx, user, "reset-failed", "--", unit)
	}
	return err
}

// Active implements Units.
func (Systemctl) Active(ctx context.Context, unit, user string) bool {
	return systemctl(ctx, user, "is-active", "--quiet", "--", instances(unit)) == nil
}

// mainTime bounds the question for a main process, in front of which a whole
// cleanup waits.
const mainTime = 2 * time.Second

// MainPID returns the main process of a unit of the system's, 0 when it has
// none.
func (Systemctl) MainPID(unit string) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), mainTime)
	defer cancel()
	out, err := exec.CommandContext(ctx, "systemctl", "--no-pager", "show", "--property=MainPID", "--value", "--", unit).Output()
	if err != nil {
		return 0, fmt.Errorf("systemctl show %s: %w", unit, err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		return 0, fmt.Errorf("systemctl show %s: no pid in its answer: %w", unit, err)
	}
	return pid, nil
}

// instances returns the pattern of a template's instances, which is what
// systemctl(1) takes for one; any other unit is itself.
func instances(unit string) string {
	if name, kind, ok := strings.Cut(unit, "@."); ok {
		return name + "@*." + kind
	}
	return unit
}

// Reload implements Units.
func (Systemctl) Reload(ctx context.Context, user string) error {
	return systemctl(ctx, user, "daemon-reload")
}

func systemctl(ctx context.Context, user string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, unitTime)
	defer cancel()
	full := []string{"--no-ask-password", "--no-pager"}
	if user != "" {
		full = append(full, "--user", "--machine="+user+"@.host")
	}
	cmd := exec.CommandContext(ctx, "systemctl", append(full, args...)...)
	var out bytes.Buffer
	cmd.Stderr = &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, firstLine(out.String()))
	}
	return nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}
