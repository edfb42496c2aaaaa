package agent

import (
	"errors"
	"path"
	"time"

	"github.com/cordon-security/cordon/agent/guard"
	"github.com/cordon-security/cordon/internal/config"
)

// Config is the agent's configuration file.
type Config struct {
	// StateDir holds identity, vault, journal and results.
	StateDir string `yaml:"state_dir" doc:"Directory of the agent's identity, vault, journal and unsent results; root alone may read it."`
	// Mitigator overrides the address of the enrolment.
	Mitigator string `yaml:"mitigator" doc:"HOST:PORT of the mitigator; empty takes the one of the enrolment. Set it when the appliance moved."`
	// Observer chooses the source of events.
	Observer string `yaml:"observer" doc:"Source of process and connection events: auto takes the best that works; else bpf, proc-connector or poll."`
	// History is how long ended processes and connections are kept.
	History time.Duration `yaml:"history" doc:"How long processes and connections that ended are remembered, from 1m to 1h. Longer finds older alerts and takes more memory."`
	// Watch is how long a cleaned host is watched.
	Watch time.Duration `yaml:"watch" doc:"How long after a cleanup the agent waits for what comes back before it reports, from 0s to 1m."`
	// VaultMaxFileSize bounds one file in the vault.
	VaultMaxFileSize int64 `yaml:"vault_max_file_size" doc:"Largest file in bytes that is moved into the vault; a larger one stays and the threat is reported as unresolved."`
	// ProtectedServices are units whose main process is never stopped.
	ProtectedServices []string `yaml:"protected_services" doc:"systemd services whose main process is never stopped, * and ? allowed; a list here replaces the default list."`
	// ProtectedPaths are never vaulted.
	ProtectedPaths []string `yaml:"protected_paths" doc:"Files and directories, absolute, from which nothing is ever moved into the vault."`
}

// DefaultConfig is what holds without a configuration file.
func DefaultConfig() Config {
	return Config{
		StateDir:          "/var/lib/cordon/agent",
		Observer:          "auto",
		History:           10 * time.Minute,
		Watch:             2 * time.Second,
		VaultMaxFileSize:  512 << 20,
		ProtectedServices: guard.DefaultServices(),
	}
}

// Validate tells what cannot be.
func (c *Config) Validate() error {
	var errs []error
	if !path.IsAbs(c.StateDir) || path.Clean(c.StateDir) == "/" {
		errs = append(errs, config.Invalid("state_dir", "must be an absolute path to a directory of its own"))
	}
	switch c.Observer {
	case "auto", "bpf", "proc-connector", "poll":
	default:
		errs = append(errs, config.Invalid("observer", "must be auto, bpf, proc-connector or poll, not %q", c.Observer))
	}
	if c.History < time.Minute || c.History > time.Hour {
		errs = append(errs, config.Invalid("history", "must be from 1m to 1h"))
	}
	if c.Watch < 0 || c.Watch > time.Minute {
		errs = append(errs, config.Invalid("watch", "must be from 0s to 1m"))
	}
	if c.VaultMaxFileSize < 1<<20 {
		errs = append(errs, config.Invalid("vault_max_file_size", "must be at least 1048576 (1 MiB)"))
	}
	for _, s := range c.ProtectedServices {
		if _, err := path.Match(s, ""); err != nil || s == "" {
			errs = append(errs, config.Invalid("protected_services", "%q is no name of a unit", s))
		}
	}
	for _, p := range c.ProtectedPaths {
		if !path.IsAbs(p) {
			errs = append(errs, config.Invalid("protected_paths", "%q is no absolute path", p))
		}
	}
	return errors.Join(errs...)
}
