package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cordon-security/cordon/internal/testlan"
)

const (
	programDir = "/usr/local/bin"
	configDir  = "/etc/cordon"
	stateDir   = "/var/lib/cordon"
	runDir     = "/run/cordon"
	logDir     = "/var/log/cordon-demo"
	evePath    = "/var/log/suricata/eve.json"
	socketPath = runDir + "/enforcer.sock"
	adminToken = "/root/cordon-admin.token"

	cli       = "cordon"
	mitigator = "cordon-mitigator"
	enforcer  = "cordon-enforcer"
	agent     = "cordon-agent"
	payload   = "testlan-payload"
)

// mitigatorConfig is what the administrator of this LAN would write.
const mitigatorConfig = `# Cordon's mitigator on the demo LAN.
names: [cordon.lan, 10.77.0.1, 127.0.0.1]
agents:
  listen: "[::]:7443"
  address: 10.77.0.1:7443
admin:
  listen: "[::]:8443"
  address: 10.77.0.1:8443
home_networks:
  include: [10.77.0.0/24, "fd77::/64"]
  exclude: [10.77.0.1/32, "fd77::1/128"]
sources:
  - name: suricata
    kind: suricata-file
    path: /var/log/suricata/eve.json
policy:
  mode: enforce
  access: limited
  no_agent: quarantine
  unresolved: quarantine
protected:
  addresses: [10.77.0.1/32, "fd77::1/128"]
devices:
  - name: built-in
    socket: /run/cordon/enforcer.sock
`

// enforcerConfig lets endpoints with limited access reach the appliance alone.
const enforcerConfig = `# Cordon's enforcement device on the demo LAN.
name: built-in
socket: /run/cordon/enforcer.sock
allow:
  - prefix: 10.77.0.1
  - prefix: "fd77::1"
protected:
  addresses: [10.77.0.1, "fd77::1"]
`

// agentConfig lets an agent watch a cleaned host for longer than it does by
// default, so that there is time to kill the mitigator in a cleanup.
const agentConfig = `# Cordon's agent on the demo LAN.
watch: 4s
`

// findPrograms says which of the built programs are missing.
func findPrograms(dir string) error {
	var missing []string
	for _, name := range []string{cli, mitigator, enforcer, agent, payload} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%s: not in %s: run \"make build\", or name the folder of the built programs with --bin", strings.Join(missing, ", "), dir)
	}
	return nil
}

// prepare gives a host programs and a clean place for them, whatever the
// machine that it is a copy of has of Cordon.
func prepare(h *testlan.Host, bin string, programs ...string) error {
	errs := []error{h.Remove(configDir), h.Remove(stateDir)}
	for _, d := range []string{configDir, stateDir, runDir, logDir} {
		errs = append(errs, h.Mkdir(d, 0o755))
	}
	for _, p := range programs {
		errs = append(errs, h.CopyFile(filepath.Join(bin, p), filepath.Join(programDir, p), 0o755))
	}
	return errors.Join(errs...)
}

// daemon starts a program of ours on a host; its log stays on the host.
func daemon(ctx context.Context, h *testlan.Host, name string) (*testlan.Process, error) {
	config := filepath.Join(configDir, strings.TrimPrefix(name, "cordon-")+".yaml")
	return h.Start(ctx, testlan.Cmd{
		Path: filepath.Join(programDir, name), Args: []string{name, "run", "--config", config},
		Log: filepath.Join(logDir, name+".log"),
	})
}
