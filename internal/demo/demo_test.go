package demo

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// builtDir is where programs builds to; TestMain removes it.
var builtDir string

func TestMain(m *testing.M) {
	code := m.Run()
	if builtDir != "" {
		if err := os.RemoveAll(builtDir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// programs builds every program once, with what plays malware, into a folder
// that everybody may read.
var programs = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "cordon-demo-test")
	if err != nil {
		return "", err
	}
	builtDir = dir
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", err
	}
	for _, args := range [][]string{
		{"-o", dir + "/", "./cmd/cordon", "./cmd/cordon-mitigator", "./cmd/cordon-enforcer", "./cmd/cordon-agent"},
		{"-o", dir + "/testlan-payload", "./internal/testlan/payload"},
	} {
		build := exec.Command("go", append([]string{"build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w"}, args...)...)
		build.Dir = "../.."
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return dir, fmt.Errorf("%w: %s", err, out)
		}
	}
	return dir, nil
})

// tokenSecret finds tokens of agents and administrators.
var tokenSecret = regexp.MustCompile(`\bcordon(admin)?1-[a-z0-9]{8,}`)

// played is a demo that runs as a user would run it.
type played struct {
	*testing.T
	name string
	bin  string
	cmd  *exec.Cmd
	out  lockedBuffer
	errs lockedBuffer
}

// lockedBuffer is read while a program writes to it.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// startDemo starts a demo on a LAN of the test's own. At the test's end it
// holds that nothing is left of it and that the machine's network is as it was.
func startDemo(t *testing.T, args ...string) *played {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	bin, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	before := machineNetwork(t)
	p := &played{T: t, name: fmt.Sprintf("demo-%d", os.Getpid()), bin: bin}
	t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			_ = p.cmd.Process.Kill()
			_ = p.cmd.Wait()
			p.down()
		}
		p.nothingLeft(before)
	})
	p.cmd = p.cordon(append([]string{"demo"}, args...)...)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return p
}

// cordon is a command line on the test's LAN.
func (p *played) cordon(args ...string) *exec.Cmd {
	if args[0] == "demo" {
		args = append(args, "--name", p.name)
	}
	cmd := exec.Command(filepath.Join(p.bin, "cordon"), args...)
	cmd.Stdout, cmd.Stderr = &p.out, &p.errs
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	return cmd
}

// end waits for the demo and returns its exit code.
func (p *played) end() int {
	p.Helper()
	late := time.AfterFunc(4*time.Minute, func() { _ = p.cmd.Process.Signal(syscall.SIGTERM) })
	defer late.Stop()
	err := p.cmd.Wait()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		p.Fatal(err)
	}
	return p.cmd.ProcessState.ExitCode()
}

func (p *played) down() {
	p.Helper()
	if err := p.cordon("demo", "down").Run(); err != nil {
		p.Errorf("demo down: %v\n%s", err, p.errs.String())
	}
}

// says waits until the demo has printed the text.
func (p *played) says(text string) {
	p.Helper()
	for end := time.Now().Add(time.Minute); !strings.Contains(p.out.String(), text); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			p.Fatalf("it never said %q:\n%s\n%s", text, p.out.String(), p.errs.String())
		}
	}
}

// nothingLeft holds that the LAN's processes, mounts, control groups and files
// are gone, and that the machine's own network is as it was.
func (p *played) nothingLeft(before string) {
	p.Helper()
	left := p.left()
	// A process that was killed may need a moment.
	for end := time.Now().Add(5 * time.Second); len(left) > 0 && time.Now().Before(end); left = p.left() {
		time.Sleep(20 * time.Millisecond)
	}
	if len(left) > 0 {
		p.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
	if after := machineNetwork(p.T); after != before {
		p.Errorf("the machine's own network changed from\n%s\nto\n%s", before, after)
	}
}

func (p *played) left() []string {
	p.Helper()
	mark := "cordon-lan/" + p.name
	var out []string
	for _, pattern := range []string{"/run/" + mark, "/sys/fs/cgroup/" + mark, "/sys/fs/cgroup/*/" + mark} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			p.Fatal(err)
		}
		out = append(out, found...)
	}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		p.Fatal(err)
	}
	for _, dir := range processes {
		// The mounts of every process, this one's too, are the machine's and the
		// hosts'; forwarders are in no host, and known by what they run.
		mounts, err := os.ReadFile(dir + "/mountinfo")
		if err == nil && bytes.Contains(mounts, []byte(mark+"/")) {
			out = append(out, "mount of "+dir)
		}
		if exe, err := os.Readlink(dir + "/exe"); err == nil && strings.HasPrefix(exe, p.bin+"/") {
			out = append(out, dir+" runs "+exe)
		}
	}
	return out
}

// machineNetwork describes the links, addresses, routes and rules of the
// machine's own network.
func machineNetwork(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, args := range [][]string{
		{"ip", "-o", "link"}, {"ip", "-o", "address"}, {"ip", "route", "show", "table", "all"}, {"ip", "-6", "route", "show", "table", "all"},
		{"ip", "rule"}, {"nft", "list", "ruleset"}, {"sysctl", "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"},
	} {
		out, err := exec.Command(args[0], args[1:]...).Output()
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		for line := range strings.Lines(string(out)) {
			// What counts by itself: life times, packets.
			line, _, _ = strings.Cut(strings.TrimSpace(line), " valid_lft")
			line, _, _ = strings.Cut(line, " expires")
			line, _, _ = strings.Cut(line, " counter packets")
			fmt.Fprintln(&all, line)
		}
	}
	return all.String()
}

func (p *played) report() Report {
	p.Helper()
	var r Report
	if err := json.Unmarshal([]byte(p.out.String()), &r); err != nil {
		p.Fatalf("%v:\n%s\n%s", err, p.out.String(), p.errs.String())
	}
	if r.Logs != "" {
		p.Cleanup(func() {
			if err := os.RemoveAll(r.Logs); err != nil {
				p.Error(err)
			}
		})
	}
	return r
}

// failures are the steps that were not as they should be, for a message.
func failures(r Report) string {
	var out []string
	for _, s := range r.Steps {
		if s.Result == "fail" {
			out = append(out, fmt.Sprintf("(%s) %s: %s: %s", s.Scene, s.Host, s.Text, s.Problem))
		}
	}
	return strings.Join(out, "\n")
}

// sensorAlerts is where alerts lie that real sensors wrote; they are no part of
// the tree.
const sensorAlerts = "../../../shared/data/alerts/suricata/fh-wrccdc-2018.json"

// sensorAlert puts one of them into a file: an HTTP request of a trojan.
func sensorAlert(t *testing.T) string {
	t.Helper()
	all, err := os.ReadFile(sensorAlerts)
	if errors.Is(err, os.ErrNotExist) && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(all) {
		if !bytes.Contains(line, []byte(`"signature_id":2017259`)) {
			continue
		}
		path := filepath.Join(t.TempDir(), "alert.json")
		if err := os.WriteFile(path, line, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Fatalf("%s has no such alert", sensorAlerts)
	return ""
}

// TestDemoTellsTheWholeStory plays it with a record of a real sensor.
func TestDemoTellsTheWholeStory(t *testing.T) {
	p := startDemo(t, "--output", "json", "--alert", sensorAlert(t))
	code := p.end()
	r := p.report()
	if code != 0 || !r.Passed || r.Failed != 0 || r.Error != "" {
		t.Errorf("exit code %d, passed %t, error %q, logs in %s:\n%s\n%s", code, r.Passed, r.Error, r.Logs, failures(r), p.errs.String())
	}
	var letters []string
	for _, s := range r.Scenes {
		letters = append(letters, s.Letter)
		if s.Checks == 0 {
			t.Errorf("scene %s checked nothing", s.Letter)
		}
	}
	if want := []string{"a", "b", "c", "d", "e", "f", "*"}; !slices.Equal(letters, want) {
		t.Errorf("scenes %v, want %v", letters, want)
	}
	for _, s := range r.Scenes {
		for what, ms := range s.Latencies {
			t.Logf("(%s) %s: %.1f ms", s.Letter, what, ms)
		}
	}
}

func TestDemoFailsWhereSomethingIsNotAsItShouldBe(t *testing.T) {
	// The printer is attacked here and attacks nobody: it must not be cut off, so
	// scene (c) cannot come to its end.
	alert := filepath.Join(t.TempDir(), "alert.json")
	const line = `{"timestamp":"2026-01-02T03:04:05.000006+0000","event_type":"alert","proto":"TCP","src_ip":"1.2.3.4","src_port":1,` +
		`"dest_ip":"5.6.7.8","dest_port":2,"alert":{"signature_id":1,"signature":"an attack","category":"Attempted Information Leak","severity":2}}`
	if err := os.WriteFile(alert, []byte(line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startDemo(t, "--output", "json", "--scenario", "d", "--alert", alert)
	code := p.end()
	r := p.report()
	if code != 1 || r.Passed || r.Failed != 2 || r.Error != "" {
		t.Errorf("exit code %d, passed %t, %d failed, error %q:\n%s", code, r.Passed, r.Failed, r.Error, failures(r))
	}
	if !strings.Contains(failures(r), "waits for") {
		t.Errorf("it does not say what the threat waits for:\n%s", failures(r))
	}
	if said := p.errs.String(); !strings.Contains(said, "hint: ") || r.Logs == "" || !strings.Contains(said, r.Logs) {
		t.Errorf("it does not say where the logs are (%q): %s", r.Logs, said)
	}
	for _, name := range []string{"appliance-cordon-mitigator.log", "appliance-cordon-enforcer.log", "alice-cordon-agent.log", "appliance-eve.json", "appliance-ruleset.txt"} {
		if info, err := os.Stat(filepath.Join(r.Logs, name)); err != nil || info.Size() == 0 {
			t.Errorf("log %s: %v", name, err)
		}
	}
	err := filepath.WalkDir(r.Logs, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if tokenSecret.Match(content) {
			t.Errorf("%s holds a token", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestDemoInterruptedLeavesNothing(t *testing.T) {
	for _, c := range []struct {
		name  string
		when  string
		with  syscall.Signal
		flags []string
	}{
		{"while it installs", "made in", syscall.SIGTERM, nil},
		{"in the middle of a cleanup", "eve.json", syscall.SIGINT, []string{"--scenario", "b", "--keep"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := startDemo(t, c.flags...)
			p.says(c.when)
			if err := p.cmd.Process.Signal(c.with); err != nil {
				t.Fatal(err)
			}
			if code := p.end(); code != 1 || !strings.Contains(p.errs.String(), "interrupted") {
				t.Errorf("exit code %d: %s", code, p.errs.String())
			}
			if said := p.out.String(); strings.Contains(said, "FAIL") || strings.Contains(said, "logs") {
				t.Errorf("an interruption counts as a failure:\n%s", said)
			}
			p.nothingLeft(machineNetwork(t))
		})
	}
}

func TestDemoKilledIsRemovedByDown(t *testing.T) {
	p := startDemo(t, "--scenario", "a", "--keep")
	p.says("connected to the C2")
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	p.end()
	if len(p.left()) == 0 {
		t.Error("a LAN that was left behind shows nothing: the search finds nothing ever")
	}
	p.down()
	if !strings.Contains(p.errs.String(), "is removed") {
		t.Errorf("down says %q", p.errs.String())
	}
	p.nothingLeft(machineNetwork(t))
	p.down()
	if !strings.Contains(p.errs.String(), "there is no LAN") {
		t.Errorf("down of nothing says %q", p.errs.String())
	}
}

func TestDemoIsKept(t *testing.T) {
	p := startDemo(t, "--output", "json", "--scenario", "c", "--keep")
	code := p.end()
	defer p.down()
	r := p.report()
	if code != 0 || r.Kept == nil {
		t.Fatalf("exit code %d, kept %+v:\n%s\n%s", code, r.Kept, failures(r), p.errs.String())
	}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer client.CloseIdleConnections()
	answer, err := client.Get(r.Kept.Console)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		t.Errorf("the console answers %s", answer.Status)
	}
	if info, err := os.Stat(r.Kept.Program); err != nil || info.Mode()&0o111 == 0 {
		t.Errorf("the command line that is named: %v, %v", info, err)
	}
	p.out = lockedBuffer{}
	if err := p.cordon("--server", r.Kept.Server, "--token-file", r.Kept.TokenFile, "threats").Run(); err != nil {
		t.Errorf("%v: %s", err, p.errs.String())
	}
	if !strings.Contains(p.out.String(), "quarantined") {
		t.Errorf("the threats are\n%s", p.out.String())
	}
	p.errs = lockedBuffer{}
	if err := p.cordon("demo", "--scenario", "c").Run(); err == nil || !strings.Contains(p.errs.String(), "cordon demo down") {
		t.Errorf("a second demo beside it: %v, %s", err, p.errs.String())
	}
}

func TestDemoRefusesWhatCannotBe(t *testing.T) {
	bin, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(t.TempDir(), "dns.json")
	if err := os.WriteFile(bad, []byte(`{"event_type":"dns","proto":"UDP"}`+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	nobody := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	for _, c := range []struct {
		name string
		args []string
		as   *syscall.SysProcAttr
		want string
	}{
		{"no root", []string{"demo"}, nobody, "run as root"},
		{"no root for down", []string{"demo", "down"}, nobody, "run as root"},
		{"no such scene", []string{"demo", "--scenario", "a,x"}, nil, `no scene "x"`},
		{"no programs", []string{"demo", "--bin", t.TempDir()}, nil, "make build"},
		{"no alert", []string{"demo", "--alert", bad}, nil, "not an alert of TCP"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.as != nil && os.Geteuid() != 0 {
				c.as = nil // it is nobody already
			}
			cmd := exec.Command(filepath.Join(bin, "cordon"), c.args...)
			cmd.Dir, cmd.SysProcAttr = "/", c.as
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), c.want) {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}
