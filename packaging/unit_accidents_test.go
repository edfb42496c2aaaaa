package packaging

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cordon-security/cordon/internal/config"
	"github.com/cordon-security/cordon/internal/testlan"
	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

func (s *site) rulesOutliveTheEnforcer(t *testing.T) {
	m, _ := s.in(t)
	printer := s.lan.Printer
	mac, err := printer.MAC(testlan.Port)
	m.must(err)
	if _, err := printer.Ping(t.Context(), testlan.WebIPv4, patience); err != nil {
		t.Fatalf("the printer does not reach the internet before: %v", err)
	}
	var made wirev1.QuarantineEndpointResponse
	m.must(m.admin(&made, "quarantine", mac.String(), "--reason", "a test", "--access", "none"))
	cut := func(what string) {
		t.Helper()
		if _, err := printer.Ping(t.Context(), testlan.WebIPv4, time.Second); err == nil {
			t.Errorf("the printer reaches the internet %s", what)
		}
	}
	// Its addresses come from the neighbours that the enforcer watches.
	for _, element := range []string{mac.String(), testlan.PrinterIPv4.String()} {
		m.until("the quarantine is in force", func() error { return expect(m.run("nft", "list", "ruleset"), element) })
	}
	cut("although it is quarantined")
	m.systemctl("stop", "enforcer")
	m.ended("enforcer", 0)
	m.must(expect(m.run("nft", "list", "ruleset"), mac.String()))
	cut("while the enforcer is stopped")
	m.systemctl("start", "enforcer")
	var status wirev1.GetStatusResponse
	m.until("the mitigator has its device again", func() error { return s.connected(m, &status) })
	cut("after the enforcer's return")
	m.until("the status line tells it", func() error { return expect(m.property("enforcer", "StatusText"), "1 ") })
	if _, err := printer.Ping(t.Context(), testlan.AliceIPv4, time.Second); err == nil {
		t.Error("the printer reaches alice")
	}
}

// breakGlass lifts all as root, with the service stopped and with it running;
// its own user has to follow, and to end it.
func (s *site) breakGlass(t *testing.T) {
	m, _ := s.in(t)
	mac, err := s.lan.Printer.MAC(testlan.Port)
	m.must(err)
	lifted := func(want bool) {
		t.Helper()
		if now := !strings.Contains(m.run("nft", "list", "ruleset"), mac.String()); now != want {
			t.Fatalf("lifted: %t, want %t%s", now, want, m.log())
		}
	}
	for _, stopped := range []bool{true, false} {
		if stopped {
			m.systemctl("stop", "enforcer")
		}
		m.run("cordon-enforcer", "release-all", "--reason", "a test")
		lifted(true)
		m.systemctl("restart", "enforcer")
		lifted(true)
		m.must(expect(m.property("enforcer", "StatusText"), "BREAK GLASS by root"))
		m.run("cordon-enforcer", "resume")
		lifted(false)
	}
}

// ended fails unless the main process ended by itself with the code.
func (m machine) ended(service string, code int) {
	m.Helper()
	for name, want := range map[string]string{"ExecMainCode": "1", "ExecMainStatus": strconv.Itoa(code)} {
		if got := m.property(service, name); got != want {
			m.Errorf("cordon-%s: %s is %s, want %s%s", service, name, got, want, m.log())
		}
	}
}

func (s *site) mitigatorRestarts(t *testing.T) {
	m, alice := s.in(t)
	pid := alice.property("agent", "MainPID")
	m.systemctl("restart", "mitigator")
	var status wirev1.GetStatusResponse
	m.until("device, source and agent are back", func() error {
		return errors.Join(s.connected(m, &status), s.healthy(m, &status), s.agentConnected(m))
	})
	if alice.property("agent", "MainPID") != pid {
		t.Error("the agent was restarted with it")
	}
	// What is not offered is refused, and breaks nothing.
	if _, err := m.host.Run(t.Context(), "systemctl", "reload", "cordon-mitigator"); err == nil {
		t.Error("reload is offered")
	}
	m.must(s.connected(m, &status))
}

// upgraded installs once more over what runs: nothing that an administrator set
// changes, and a restart is all that is left to do.
func (s *site) upgraded(t *testing.T) {
	m, _ := s.in(t)
	before, err := m.host.ReadFile("/etc/cordon/mitigator.yaml")
	m.must(err)
	m.must(expect(m.install("mitigator", "enforcer"), "systemctl restart cordon-mitigator"))
	after, err := m.host.ReadFile("/etc/cordon/mitigator.yaml")
	m.must(err)
	if string(after) != string(before) {
		t.Errorf("the configuration was replaced by\n%s", after)
	}
	for _, service := range []string{"enforcer", "mitigator"} {
		pid := m.property(service, "MainPID")
		m.systemctl("restart", service)
		s.back(t, service, pid)
	}
}

// back waits until a service runs in another process than before, and the
// whole is connected.
func (s *site) back(t *testing.T, service, before string) {
	t.Helper()
	m := s.machines(t)[service]
	m.until("cordon-"+service+" is back", func() error {
		if now := m.property(service, "MainPID"); now == before || now == "0" || m.property(service, "ActiveState") != "active" {
			return errNot
		}
		return nil
	})
	appliance, _ := s.in(t)
	var status wirev1.GetStatusResponse
	appliance.until("all are connected", func() error {
		return errors.Join(s.connected(appliance, &status), s.healthy(appliance, &status), s.agentConnected(appliance))
	})
}

func (s *site) killed(t *testing.T) {
	for service, m := range s.machines(t) {
		before, restarts := m.property(service, "MainPID"), m.number(service, "NRestarts")
		m.run("kill", "-KILL", before)
		s.back(t, service, before)
		if got := m.number(service, "NRestarts"); got != restarts+1 {
			t.Errorf("cordon-%s was restarted %d times", service, got-restarts)
		}
	}
}

// stuck stops each program's process: only the watchdog can see that.
func (s *site) stuck(t *testing.T) {
	before := map[string]string{}
	machines := s.machines(t)
	for service, m := range machines {
		m.dropIn(service, "watchdog", "WatchdogSec=5\n")
		m.systemctl("restart", service)
		before[service] = m.property(service, "MainPID")
	}
	for service, m := range machines {
		m.run("kill", "-STOP", before[service])
	}
	for service, m := range machines {
		s.back(t, service, before[service])
		log := m.run("journalctl", "--no-pager", "-o", "cat", "-u", "cordon-"+service)
		m.must(expect(log, "Watchdog timeout"))
	}
	for service, m := range machines {
		m.dropIn(service, "watchdog", "")
		m.systemctl("restart", service)
	}
}

func (s *site) faultyConfiguration(t *testing.T) {
	for service, m := range s.machines(t) {
		file := "/etc/cordon/" + service + ".yaml"
		good, err := m.host.ReadFile(file)
		m.must(err)
		m.configure(service, "# one line above\nstate_dirr: /elsewhere\n")
		if _, err := m.host.Run(t.Context(), "systemctl", "restart", "cordon-"+service); err == nil {
			t.Errorf("cordon-%s starts", service)
		}
		m.until("it is given up", func() error { return expect(m.property(service, "ActiveState"), "failed") })
		m.ended(service, config.ExitCode)
		if n := m.number(service, "NRestarts"); n != 0 {
			t.Errorf("cordon-%s was started %d times again", service, n)
		}
		// systemctl status exits with 3 for a unit that does not run.
		shown, _ := m.host.Run(t.Context(), "systemctl", "status", "--no-pager", "--full", "cordon-"+service)
		m.must(expect(shown, file+`:2:1: unknown key "state_dirr"`))
		m.must(m.host.WriteFile(file, good, 0o644))
		m.systemctl("start", service)
	}
	s.back(t, "mitigator", "")
}

func (s *site) stop(t *testing.T) {
	for service, m := range s.machines(t) {
		// systemd forgets how a stopped unit ended as soon as nobody names it.
		m.dropIn(service, "ended", "ExecStopPost=+/bin/sh -c 'echo $EXIT_CODE $EXIT_STATUS $SERVICE_RESULT >/run/ended-"+service+"'\n")
		m.systemctl("stop", service)
		ended, err := m.host.ReadFile("/run/ended-" + service)
		m.must(err)
		if string(ended) != "exited 0 success\n" {
			t.Errorf("cordon-%s ended: %s%s", service, ended, m.log())
		}
	}
}
