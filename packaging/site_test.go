package packaging

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/cordon-security/cordon/internal/testlan"
)

const (
	// patience is how long something may take that should be quick.
	patience = time.Minute
	evePath  = "/var/log/suricata/eve.json"
	dropIns  = "/etc/systemd/system/"
	// where a host sees this folder and the built programs
	mountedPackaging, mountedBin = "/mnt/cordon/packaging", "/mnt/cordon/bin"
	token                        = "/root/admin.token"
)

// machine is a host of the test LAN whose systemd runs Cordon's units.
type machine struct {
	*testing.T
	host *testlan.Host
}

// at is the same machine for another test.
func (m machine) at(t *testing.T) machine { return machine{t, m.host} }

// newLAN makes the standard LAN, with systemd on the appliance and on alice.
func newLAN(t *testing.T) *testlan.Standard {
	t.Helper()
	if err := testlan.Check(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Dir(program(t, "cordon"))
	lan, err := testlan.NewStandard(t.Context(), testlan.StandardOptions{
		Customize: func(host string, o *testlan.HostOptions) {
			if host != "appliance" && host != "alice" {
				return
			}
			o.Systemd = true
			o.Binds = []testlan.Bind{{Source: here, Target: mountedPackaging}, {Source: bin, Target: mountedBin}}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lan.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := lan.Appliance.WaitSystemd(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Whatever the machine that these hosts are copies of has of Cordon.
	for _, h := range []*testlan.Host{lan.Appliance, lan.Alice} {
		for _, d := range []string{"/etc/cordon", "/var/lib/cordon", "/run/cordon"} {
			if err := h.Remove(d); err != nil {
				t.Fatal(err)
			}
		}
	}
	return lan
}

// install installs services as an administrator does, with the script.
func (m machine) install(services ...string) string {
	m.Helper()
	return m.run(append([]string{"env", "BIN=" + mountedBin, mountedPackaging + "/install.sh"}, services...)...)
}

func (m machine) must(err error) {
	m.Helper()
	if err != nil {
		m.Fatal(err)
	}
}

// run runs a program to its end; anything but success ends the test.
func (m machine) run(argv ...string) string {
	m.Helper()
	ctx, cancel := context.WithTimeout(m.Context(), patience)
	defer cancel()
	out, err := m.host.Run(ctx, argv...)
	if err != nil {
		m.Fatalf("%v\n%s%s", err, out, m.log())
	}
	return out
}

// log is the end of the journal of Cordon's services.
func (m machine) log() string {
	out, err := m.host.Run(context.Background(), "journalctl", "--no-pager", "-n", "30", "-o", "cat", "-u", "cordon-*")
	if err != nil {
		return "\n(no journal: " + err.Error() + ")"
	}
	return "\njournal of " + m.host.Name() + ":\n" + out
}

// until waits until check succeeds.
func (m machine) until(what string, check func() error) {
	m.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	m.Fatalf("never: %s: %v%s", what, err, m.log())
}

func (m machine) write(path, content string) {
	m.Helper()
	m.must(m.host.WriteFile(path, []byte(content), 0o644))
}

// configure replaces a service's configuration file.
func (m machine) configure(service, yaml string) { m.write("/etc/cordon/"+service+".yaml", yaml) }

// dropIn adds a drop-in to a unit, as `systemctl edit` does, or takes it away
// when it is empty.
func (m machine) dropIn(service, name, content string) {
	m.Helper()
	file := path.Join(dropIns, "cordon-"+service+".service.d", name+".conf")
	if content == "" {
		m.must(m.host.Remove(file))
	} else {
		m.write(file, "[Service]\n"+content)
	}
	m.run("systemctl", "daemon-reload")
}

func (m machine) systemctl(verb, service string) {
	m.Helper()
	m.run("systemctl", verb, "cordon-"+service+".service")
}

// property is what systemd says of a unit.
func (m machine) property(service, name string) string {
	m.Helper()
	return strings.TrimSpace(m.run("systemctl", "show", "--value", "-p", name, "cordon-"+service+".service"))
}

func (m machine) number(service, name string) int {
	m.Helper()
	n, err := strconv.Atoi(m.property(service, name))
	m.must(err)
	return n
}

// procStatus is /proc/PID/status of a service's main process.
func (m machine) procStatus(service string) map[string]string {
	m.Helper()
	content, err := m.host.ReadFile(fmt.Sprintf("/proc/%d/status", m.number(service, "MainPID")))
	m.must(err)
	fields := map[string]string{}
	for line := range strings.Lines(string(content)) {
		key, value, _ := strings.Cut(line, ":")
		fields[key] = strings.Join(strings.Fields(value), " ")
	}
	return fields
}

// account is the number of a user or group of the host.
func (m machine) account(database, name string) string {
	m.Helper()
	return strings.Split(m.run("getent", database, name), ":")[2]
}

// owner returns who a file of the host belongs to, USER:GROUP, and its mode.
func (m machine) owner(file string) (string, fs.FileMode) {
	m.Helper()
	out := strings.Fields(m.run("stat", "-c", "%U:%G", file))
	info, err := m.host.Stat(file)
	m.must(err)
	return out[0], info.Mode().Perm()
}

// admin runs the administrator's command line and reads its JSON.
func (m machine) admin(into proto.Message, args ...string) error {
	ctx, cancel := context.WithTimeout(m.Context(), patience)
	defer cancel()
	out, err := m.host.Run(ctx, append([]string{"cordon", "--token-file", token, "--output", "json"}, args...)...)
	if err != nil {
		return err
	}
	return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal([]byte(out), into)
}

var errNot = errors.New("not yet")

// expect is an error unless got holds want.
func expect(got, want string) error {
	if !strings.Contains(got, want) {
		return fmt.Errorf("%w: want %q in %q", errNot, want, got)
	}
	return nil
}
