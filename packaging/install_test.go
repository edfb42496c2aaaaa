package packaging

import (
	"os/exec"
	"strings"
	"testing"
)

// What install.sh refuses, before it touches anything; that it installs is shown
// by TestServices.
func TestInstallRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"nothing", nil, "name the services"},
		{"an unknown service", []string{"portal"}, "there is no service portal"},
		{"what is not built", []string{"agent"}, "run make build"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), "./install.sh", c.args...)
			cmd.Env = append(cmd.Environ(), "BIN="+t.TempDir())
			if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), c.want) {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}
