package packaging

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cordon-security/cordon/internal/config"
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

// site is the appliance and an endpoint with an agent, both under systemd.
type site struct {
	lan              *testlan.Standard
	appliance, alice machine
}

// TestServices installs Cordon on two machines that systemd runs, and does to
// its services what administrators and accidents do. Each step goes on from the
// one before.
func TestServices(t *testing.T) {
	lan := newLAN(t)
	s := &site{lan: lan, appliance: machine{t, lan.Appliance}, alice: machine{t, lan.Alice}}
	s.appliance.install("mitigator", "enforcer")
	s.alice.install("agent")
	for _, m := range []machine{s.appliance, s.alice} {
		if said := m.run("sh", "-c", "systemd-analyze verify --man=no /usr/lib/systemd/system/cordon-*.service 2>&1"); strings.Contains(said, "cordon") {
			t.Errorf("systemd-analyze verify: %s", said)
		}
	}
	for _, step := range []struct {
		name string
		run  func(*site, *testing.T)
	}{
		{"enforcer starts", (*site).enforcerStarts},
		{"administrator before the first start", (*site).administratorFirst},
		{"mitigator starts", (*site).mitigatorStarts},
		{"mitigator reads alerts by its group", (*site).alertsByGroup},
		{"agent starts when it is enrolled", (*site).agentEnrols},
		{"agent cleans and restores inside its sandbox", (*site).agentWorks},
		{"enforcer stops and the rules stay", (*site).rulesOutliveTheEnforcer},
		{"break glass beside the service", (*site).breakGlass},
		{"mitigator restarts and all return", (*site).mitigatorRestarts},
		{"killed", (*site).killed},
		{"stuck", (*site).stuck},
		{"faulty configuration", (*site).faultyConfiguration},
		{"exposure", (*site).exposure},
		{"stop", (*site).stop},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.run(s, t) }) {
			t.FailNow()
		}
	}
}

// in gives the machines to a step.
func (s *site) in(t *testing.T) (appliance, alice machine) {
	return s.appliance.at(t), s.alice.at(t)
}

// machines are where the services run.
func (s *site) machines(t *testing.T) map[string]machine {
	appliance, alice := s.in(t)
	return map[string]machine{"enforcer": appliance, "mitigator": appliance, "agent": alice}
}

// started fails unless a service came up because its program said so, says how
// it is, and is confined as documented.
func (m machine) started(service, account string) {
	m.Helper()
	for name, want := range map[string]string{"ActiveState": "active", "SubState": "running", "Type": "notify", "NRestarts": "0"} {
		if got := m.property(service, name); got != want {
			m.Errorf("cordon-%s: %s is %q, want %q%s", service, name, got, want, m.log())
		}
	}
	status := m.property(service, "StatusText")
	if shown := m.run("systemctl", "status", "--no-pager", "cordon-"+service); status == "" || !strings.Contains(shown, `Status: "`+status+`"`) {
		m.Errorf("cordon-%s says %q, systemctl status shows\n%s", service, status, shown)
	}
	m.Logf("cordon-%s: %s", service, status)
	m.confined(service, account)
}

func (m machine) confined(service, account string) {
	m.Helper()
	p := m.procStatus(service)
	id, group := m.account("passwd", account), m.account("group", account)
	set := fmt.Sprintf("%016x", capabilities(m.T, service))
	for field, want := range map[string]string{
		"Uid": strings.Join([]string{id, id, id, id}, " "), "Gid": strings.Join([]string{group, group, group, group}, " "),
		"CapEff": set, "CapPrm": set, "CapBnd": set, "NoNewPrivs": "1", "Seccomp": "2",
	} {
		if p[field] != want {
			m.Errorf("cordon-%s: %s is %q, want %q", service, field, p[field], want)
		}
	}
	dir := "/var/lib/cordon/" + service
	if owner, mode := m.owner(dir); owner != account+":"+account || mode != 0o700 {
		m.Errorf("%s is %s %v", dir, owner, mode)
	}
}

// capabilityNumbers are the numbers of the capabilities that units name.
var capabilityNumbers = map[string]uint{
	"CAP_CHOWN": unix.CAP_CHOWN, "CAP_DAC_OVERRIDE": unix.CAP_DAC_OVERRIDE, "CAP_DAC_READ_SEARCH": unix.CAP_DAC_READ_SEARCH,
	"CAP_FOWNER": unix.CAP_FOWNER, "CAP_FSETID": unix.CAP_FSETID, "CAP_KILL": unix.CAP_KILL, "CAP_SETFCAP": unix.CAP_SETFCAP,
	"CAP_LINUX_IMMUTABLE": unix.CAP_LINUX_IMMUTABLE, "CAP_NET_ADMIN": unix.CAP_NET_ADMIN, "CAP_SYS_ADMIN": unix.CAP_SYS_ADMIN,
	"CAP_SYS_PTRACE": unix.CAP_SYS_PTRACE, "CAP_SYS_RESOURCE": unix.CAP_SYS_RESOURCE, "CAP_PERFMON": unix.CAP_PERFMON, "CAP_BPF": unix.CAP_BPF,
}

var capability = regexp.MustCompile(`CAP_[A-Z_]+`)

// capabilities is the set that the documentation gives a service.
func capabilities(t *testing.T, service string) (set uint64) {
	t.Helper()
	page, row := read(t, "../docs/services.md"), regexp.MustCompile("(?m)^\\| `cordon-"+service+`\.service.*$`)
	if service == "agent" {
		page, row = read(t, "../docs/agent-hardening.md"), regexp.MustCompile("(?m)^\\| `CAP_[^|]*")
	}
	for _, line := range row.FindAllString(page, -1) {
		for _, name := range capability.FindAllString(line, -1) {
			number, ok := capabilityNumbers[name]
			if !ok {
				t.Fatalf("%s has no number here", name)
			}
			set |= 1 << number
		}
	}
	return set & ownBounds(t)
}

// ownBounds is what no program of this machine can go beyond: a container may
// lack some.
func ownBounds(t *testing.T) uint64 {
	t.Helper()
	_, after, _ := strings.Cut(read(t, "/proc/self/status"), "CapBnd:")
	set, err := strconv.ParseUint(strings.Fields(after)[0], 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

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
	if err := s.connected(m, &status); err != nil {
		m.until("it reaches the enforcer still", func() error { return s.connected(m, &status) })
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

const (
	dropped = "/var/tmp/.cache/updater"
	crontab = "/var/spool/cron/crontabs/root"
	ownLine = "17 4 * * * /usr/bin/true\n"
	reviver = "cache-updater.service"
	// fileCapability is the attribute of CAP_NET_RAW in a file's permitted and
	// effective set, revision 2; see linux/capability.h.
	fileCapability = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
)

// agentWorks lets the agent under its unit clean an endpoint, and bring a file
// back with all that it had.
func (s *site) agentWorks(t *testing.T) {
	appliance, alice := s.in(t)
	c2 := netip.AddrPortFrom(testlan.C2IPv4, testlan.C2Port)
	alice.must(alice.host.DropPayload(t.Context(), dropped))
	alice.must(alice.host.Do(func() error {
		return errors.Join(unix.Chown(dropped, 1234, 1234), unix.Chmod(dropped, 0o4755),
			unix.Setxattr(dropped, "security.capability", []byte(fileCapability), 0), unix.Setxattr(dropped, "trusted.mark", []byte("x"), 0))
	}))
	command := strings.Join(append([]string{dropped}, testlan.PayloadOptions{C2: c2, Name: "updater", Children: 1}.Args()...), " ")
	alice.must(alice.host.WriteFile(crontab, []byte(ownLine+"@reboot "+command+"\n"), 0o600))
	alice.write(dropIns+reviver, "[Service]\nExecStart="+command+"\nRestart=always\n[Install]\nWantedBy=multi-user.target\n")
	alice.run("systemctl", "enable", "--now", reviver)
	var open []testlan.Connection
	_, err := s.lan.C2.WaitFor(t.Context(), func(all []testlan.Connection) bool {
		open = testlan.Receiving(all, testlan.AliceIPv4, time.Now().Add(-time.Second))
		return len(open) > 0
	})
	appliance.must(err)
	appliance.must(appliance.host.AppendFile(evePath, alert(t, open[0].Remote, c2)))
	appliance.until("the threat is resolved", func() error {
		var list wirev1.ListThreatsResponse
		if err := appliance.admin(&list, "threats", "--all"); err != nil {
			return err
		}
		if a := list.GetThreats(); len(a) != 1 || a[0].GetState() != "resolved" {
			return fmt.Errorf("%w: threats %v%s", errNot, a, alice.log())
		}
		return nil
	})
	if alice.host.Exists(dropped) || alice.host.Exists(dropIns+reviver) {
		t.Error("the threat's files are there still")
	}
	if state := strings.TrimSpace(alice.run("systemctl", "show", "--value", "-p", "ActiveState", reviver)); state != "inactive" {
		t.Errorf("the unit that starts it is %s", state)
	}
	lines, err := alice.host.ReadFile(crontab)
	alice.must(err)
	for line := range strings.Lines(string(lines)) {
		if !strings.HasPrefix(line, "#") && line != ownLine {
			t.Errorf("cron would run %q", line)
		}
	}
	s.restore(alice)
}

// restore brings the file back by a unit that is the agent's but for what it
// runs, so that what the sandbox forbids shows.
func (s *site) restore(alice machine) {
	alice.Helper()
	var items []struct {
		ID   string `json:"id"`
		Path []byte `json:"path"`
	}
	alice.must(json.Unmarshal([]byte(alice.run("cordon-agent", "vault", "list", "--json")), &items))
	id := ""
	for _, i := range items {
		if string(i.Path) == dropped {
			id = i.ID
		}
	}
	var lines []string
	for line := range strings.Lines(read(alice.T, "systemd/cordon-agent.service")) {
		switch key, _, _ := strings.Cut(line, "="); key {
		case "Type":
			line = "Type=oneshot\n"
		case "ExecStart":
			line = "ExecStart=/usr/bin/cordon-agent restore " + id + "\n"
		case "Restart", "WatchdogSec", "NotifyAccess":
			line = ""
		}
		lines = append(lines, line)
	}
	alice.write("/run/systemd/system/cordon-restore.service", strings.Join(lines, ""))
	alice.run("systemctl", "daemon-reload")
	alice.systemctl("start", "restore")
	var st unix.Stat_t
	value, mark := make([]byte, 64), make([]byte, 8)
	n := 0
	alice.must(alice.host.Do(func() (err error) {
		if err = unix.Stat(dropped, &st); err != nil {
			return err
		}
		if n, err = unix.Getxattr(dropped, "security.capability", value); err != nil {
			return fmt.Errorf("its capability: %w", err)
		}
		if _, err = unix.Getxattr(dropped, "trusted.mark", mark); err != nil {
			return fmt.Errorf("its trusted attribute: %w", err)
		}
		return nil
	}))
	if st.Uid != 1234 || st.Gid != 1234 || st.Mode&0o7777 != 0o4755 || string(value[:n]) != fileCapability {
		alice.Errorf("restored as %d:%d %o with %q", st.Uid, st.Gid, st.Mode, value[:n])
	}
	alice.must(alice.host.Remove(dropped))
}

// alert is a record as Suricata writes it, of a flow that is under way.
func alert(t *testing.T, src, dst netip.AddrPort) []byte {
	t.Helper()
	const eveTime = "2006-01-02T15:04:05.000000-0700"
	now := time.Now()
	line, err := json.Marshal(map[string]any{
		"timestamp": now.Format(eveTime), "event_type": "alert", "proto": "TCP", "app_proto": "http",
		"src_ip": src.Addr(), "src_port": src.Port(), "dest_ip": dst.Addr(), "dest_port": dst.Port(),
		"alert": map[string]any{
			"action": "allowed", "gid": 1, "signature_id": 2017259, "rev": 12, "severity": 1,
			"signature": "ET TROJAN Generic - POST To .php w/Extended ASCII Characters", "category": "A Network Trojan was detected",
		},
		"flow": map[string]any{
			"pkts_toserver": 7, "pkts_toclient": 6, "bytes_toserver": 1562, "bytes_toclient": 446, "start": now.Add(-time.Second).Format(eveTime),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return append(line, '\n')
}

func (s *site) rulesOutliveTheEnforcer(t *testing.T) {
	m, _ := s.in(t)
	printer := s.lan.Printer
	mac, err := printer.MAC(testlan.Port)
	m.must(err)
	var made wirev1.QuarantineEndpointResponse
	m.must(m.admin(&made, "quarantine", mac.String(), "--reason", "a test", "--access", "none"))
	cut := func(what string) {
		t.Helper()
		if _, err := printer.Ping(t.Context(), testlan.WebIPv4, time.Second); err == nil {
			t.Errorf("the printer reaches the internet %s", what)
		}
	}
	m.until("the quarantine is in force", func() error { return expect(m.run("nft", "list", "ruleset"), mac.String()) })
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
		m.dropIn(service, "watchdog", "WatchdogSec=3\n")
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

func (s *site) exposure(t *testing.T) {
	for service, m := range s.machines(t) {
		want, _ := exposure(t, service, 10)
		out := m.run("systemd-analyze", "security", "--no-pager", "cordon-"+service+".service")
		found := overall.FindStringSubmatch(out)
		if found == nil {
			t.Fatalf("systemd-analyze: %s", out)
		}
		// Of a unit that is loaded systemd knows a little more, to its credit.
		if live, err := strconv.ParseFloat(found[1], 64); err != nil || live > want {
			t.Errorf("cordon-%s: %s when it runs, %.1f on paper", service, found[1], want)
		}
	}
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
