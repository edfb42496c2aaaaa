package packaging

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cordon-security/cordon/internal/testlan"
	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

const (
	mitigatorYAML = `names: [cordon.lan, 10.77.0.1]
agents: {address: "10.77.0.1:7443"}
admin: {address: "10.77.0.1:8443"}
home_networks:
  include: [10.77.0.0/24, "fd77::/64"]
sources:
  - {name: eve, kind: suricata-file, path: /var/log/suricata/eve.json}
  - {name: live, kind: suricata-socket, path: /run/cordon-mitigator/eve.sock}
policy: {mode: enforce}
`
	enforcerYAML = `allow:
  - prefix: 10.77.0.1
  - prefix: "fd77::1"
`
)

func (s *site) enforcerStarts(t *testing.T) {
	m, _ := s.in(t)
	// As it is after br_netfilter was loaded.
	m.must(m.host.Sysctl("net.bridge.bridge-nf-call-iptables", "1"))
	m.systemctl("start", "enforcer")
	m.started("enforcer", "cordon-enforcer")
	if got := m.run("sysctl", "-n", "net.bridge.bridge-nf-call-iptables"); got != "0\n" {
		t.Errorf("bridged frames pass the rules of routed traffic: %q", got)
	}
	if tables := m.run("nft", "list", "tables"); !strings.Contains(tables, "table inet cordon") || !strings.Contains(tables, "table bridge cordon") {
		t.Errorf("tables: %s", tables)
	}
	if owner, mode := m.owner("/run/cordon/enforcer.sock"); owner != "cordon-enforcer:cordon" || mode != 0o660 {
		t.Errorf("its socket is %s %v", owner, mode)
	}
	warnings := m.run("journalctl", "--no-pager", "-o", "cat", "-p", "warning", "-u", "cordon-enforcer")
	m.must(expect(warnings, "allow is empty"))
	if strings.Contains(warnings, "quarantines in force") {
		t.Errorf("what is no warning is shown as one:\n%s", warnings)
	}
	m.configure("enforcer", enforcerYAML)
	m.systemctl("restart", "enforcer")
	m.run("cordon-enforcer", "status")
}

// administratorFirst makes an administrator as the documentation begins, as root
// and before the service ever ran.
func (s *site) administratorFirst(t *testing.T) {
	m, _ := s.in(t)
	m.write(token, m.run("cordon-mitigator", "admin", "add", "carol"))
	m.must(m.host.Chmod(token, 0o600))
}

func (s *site) mitigatorStarts(t *testing.T) {
	m, _ := s.in(t)
	m.systemctl("start", "mitigator")
	m.started("mitigator", "cordon-mitigator")
	var status wirev1.GetStatusResponse
	m.until("the mitigator reaches the enforcer's socket", func() error { return s.connected(m, &status) })
	if status.GetMode() != "observe" {
		t.Errorf("a new installation is in %q mode", status.GetMode())
	}
	// A second one, now that the service runs.
	m.run("cordon-mitigator", "admin", "add", "dave")
	m.systemctl("restart", "mitigator")
	for _, name := range []string{"carol", "dave"} {
		m.must(expect(m.run("cordon-mitigator", "admin", "list"), name))
	}
	foreign := m.run("find", "/var/lib/cordon/mitigator", "-not", "(", "-user", "cordon-mitigator", "-group", "cordon-mitigator", ")")
	if foreign != "" {
		t.Errorf("the service cannot read:\n%s", foreign)
	}
	m.until("the token that was made before the first start counts", func() error { return s.connected(m, &status) })
}

// connected is an error unless the mitigator has its one device.
func (s *site) connected(m machine, status *wirev1.GetStatusResponse) error {
	if err := m.admin(status, "status"); err != nil {
		return err
	}
	if d := status.GetDevices(); len(d) != 1 || !d[0].GetConnected() {
		return fmt.Errorf("%w: devices %v", errNot, d)
	}
	return nil
}

func (s *site) alertsByGroup(t *testing.T) {
	m, _ := s.in(t)
	m.write("/usr/lib/sysusers.d/suricata.conf", "u suricata - Suricata\n")
	m.run("systemd-sysusers", "suricata.conf")
	m.write(evePath, "")
	for _, f := range []string{evePath, "/var/log/suricata"} {
		m.run("chown", "suricata:suricata", f)
		m.run("chmod", "o=", f)
	}
	m.configure("mitigator", mitigatorYAML)
	m.systemctl("restart", "mitigator")
	var status wirev1.GetStatusResponse
	m.until("it says that it may not read", func() error {
		if err := m.admin(&status, "status"); err != nil {
			return err
		}
		return expect(fmt.Sprint(status.GetSources()), "permission denied")
	})
	m.dropIn("mitigator", "suricata", "SupplementaryGroups=suricata\n")
	m.systemctl("restart", "mitigator")
	groups := strings.Fields(m.procStatus("mitigator")["Groups"])
	for _, g := range []string{"cordon", "suricata"} {
		if !slices.Contains(groups, m.account("group", g)) {
			t.Errorf("not in the group %s: %v", g, groups)
		}
	}
	m.until("it reads", func() error { return s.healthy(m, &status) })
	s.alertsBySocket(m)
	m.until("it reaches the enforcer still", func() error { return s.connected(m, &status) })
	if watched := m.run("sh", "-c", "cat /proc/"+m.property("mitigator", "MainPID")+"/fdinfo/*"); !strings.Contains(watched, "inotify wd:") {
		t.Error("it does not watch the file, it can only ask again and again")
	}
	s.ownAddressesKnown(m)
}

// ownAddressesKnown holds that the mitigator learned, by netlink, what its machine
// is: that is never cut off.
func (s *site) ownAddressesKnown(m machine) {
	m.Helper()
	mac, err := m.host.MAC(testlan.Bridge)
	m.must(err)
	var made wirev1.QuarantineEndpointResponse
	if err := m.admin(&made, "quarantine", mac.String(), "--reason", "a test"); err == nil || !strings.Contains(err.Error(), "protected") {
		m.Errorf("the machine's own MAC is cut off: %v %v", &made, err)
	}
}

// alertsBySocket writes to the mitigator's socket as Suricata's user, in the
// group that the documentation says: it gets there, and not to the enforcer.
func (s *site) alertsBySocket(m machine) {
	m.Helper()
	const client = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall(b'no alert\\n')"
	suricata := func(socket string) error {
		_, err := m.host.Run(m.Context(), "setpriv", "--reuid=suricata", "--regid=suricata", "--groups=cordon-mitigator",
			"python3", "-c", client, socket)
		return err
	}
	m.must(suricata("/run/cordon-mitigator/eve.sock"))
	m.until("what came is counted", func() error {
		var list wirev1.ListSourcesResponse
		if err := m.admin(&list, "sources"); err != nil {
			return err
		}
		for _, src := range list.GetSources() {
			if src.GetName() == "live" && src.GetRejected() == 1 {
				return nil
			}
		}
		return fmt.Errorf("%w: %v", errNot, list.GetSources())
	})
	if suricata("/run/cordon/enforcer.sock") == nil {
		m.Error("Suricata reaches the enforcer's socket")
	}
}

func (s *site) healthy(m machine, status *wirev1.GetStatusResponse) error {
	if err := m.admin(status, "status"); err != nil {
		return err
	}
	if src := status.GetSources(); len(src) != 2 || !src[0].GetHealthy() || !src[1].GetHealthy() {
		return fmt.Errorf("%w: sources %v", errNot, src)
	}
	return nil
}

func (s *site) agentEnrols(t *testing.T) {
	appliance, alice := s.in(t)
	if _, err := alice.host.Run(t.Context(), "systemctl", "start", "cordon-agent"); err == nil {
		t.Error("an agent that is not enrolled says that it serves")
	}
	alice.must(expect(alice.log(), "this endpoint is not enrolled"))
	var made wirev1.CreateAgentTokenResponse
	appliance.must(appliance.admin(&made, "agent", "token"))
	alice.must(alice.host.WriteFile("/root/enrolment.token", []byte(made.GetToken()+"\n"), 0o600))
	alice.run("cordon-agent", "enroll", "--token-file", "/root/enrolment.token")
	alice.until("it comes by itself", func() error { return expect(alice.property("agent", "SubState"), "running") })
	alice.systemctl("restart", "agent")
	alice.started("agent", "root")
	// What works outside of the sandbox works in it.
	best, _, _ := strings.Cut(alice.run("cordon-agent", "doctor"), " ")
	alice.must(expect(alice.property("agent", "StatusText"), "observing by "+best))
	appliance.until("the agent is connected, and the endpoint is known as the agent's", func() error {
		var list wirev1.ListAgentsResponse
		if err := errors.Join(s.agentConnected(appliance), appliance.admin(&list, "agents")); err != nil {
			return err
		}
		if list.GetAgents()[0].GetEndpointId() == 0 {
			return errNot
		}
		return nil
	})
	for name, want := range map[string]string{"TasksMax": "256", "MemoryMax": strconv.Itoa(512 << 20)} {
		if got := alice.property("agent", name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}

func (s *site) agentConnected(m machine) error {
	var list wirev1.ListAgentsResponse
	if err := m.admin(&list, "agents"); err != nil {
		return err
	}
	if a := list.GetAgents(); len(a) != 1 || !a[0].GetConnected() {
		return fmt.Errorf("%w: agents %v", errNot, a)
	}
	return nil
}
