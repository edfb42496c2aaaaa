package packaging

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cordon-security/cordon/internal/testlan"
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
	s.appliance.verified("mitigator", "enforcer")
	s.alice.verified("agent")
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
		{"installed again", (*site).upgraded},
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

// verified enables the units and lets systemd look at what it would start at
// boot: each unit, and that their order has no cycle.
func (m machine) verified(services ...string) {
	m.Helper()
	for _, s := range services {
		m.systemctl("enable", s)
	}
	m.write("/run/systemd/system/boot.target", "[Unit]\nRequires=sysinit.target multi-user.target network-pre.target network.target network-online.target\n")
	said := m.run("sh", "-c", "systemd-analyze verify --man=no boot.target /usr/lib/systemd/system/cordon-*.service 2>&1")
	for line := range strings.Lines(said) {
		if strings.Contains(line, "cordon-") || strings.Contains(line, "cycle") {
			m.Errorf("systemd-analyze verify: %s", line)
		}
	}
	for _, s := range services {
		if got := m.property(s, "UnitFileState"); got != "enabled" {
			m.Errorf("cordon-%s is %s", s, got)
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
