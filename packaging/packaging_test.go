package packaging

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cordon-security/cordon/internal/config"
)

// need ends the test when a program that it runs is missing: a failure in CI,
// else a skip.
func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is not installed", program)
	}
	t.Skipf("%s is not installed", program)
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// unit returns the settings of a unit file, each with its values in order.
func unit(t *testing.T, program string) map[string][]string {
	t.Helper()
	settings := map[string][]string{}
	lines := bufio.NewScanner(strings.NewReader(read(t, "systemd/cordon-"+program+".service")))
	for lines.Scan() {
		if key, value, ok := strings.Cut(lines.Text(), "="); ok && !strings.HasPrefix(key, "#") {
			settings[key] = append(settings[key], value)
		}
	}
	return settings
}

var overall = regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`)

// exposure is what systemd-analyze gives a unit, and whether it stays under threshold.
func exposure(t *testing.T, program string, threshold float64) (float64, bool) {
	t.Helper()
	need(t, "systemd-analyze")
	cmd := exec.Command("systemd-analyze", "security", "--offline=true", "--no-pager",
		fmt.Sprintf("--threshold=%.0f", threshold*10), "systemd/cordon-"+program+".service")
	out, err := cmd.CombinedOutput()
	m := overall.FindSubmatch(out)
	if m == nil {
		t.Fatalf("systemd-analyze: %v\n%s", err, out)
	}
	score, parseErr := strconv.ParseFloat(string(m[1]), 64)
	if parseErr != nil {
		t.Fatal(parseErr)
	}
	return score, err == nil
}

// Mitigator and enforcer stay under 3.0, and the docs give each unit's figure.
func TestExposure(t *testing.T) {
	page := read(t, "../docs/services.md")
	for program, threshold := range map[string]float64{"mitigator": 3, "enforcer": 3, "agent": 10} {
		score, under := exposure(t, program, threshold)
		if !under || score >= threshold {
			t.Errorf("cordon-%s.service: exposure %.1f, above %.1f", program, score, threshold)
		}
		row := regexp.MustCompile("(?m)^\\| `cordon-" + program + `\.service.*\| ` + regexp.QuoteMeta(fmt.Sprintf("%.1f", score)) + ` \|$`)
		if !row.MatchString(page) {
			t.Errorf("docs/services.md does not give cordon-%s.service its exposure %.1f", program, score)
		}
	}
	score, _ := exposure(t, "agent", 10)
	if want := fmt.Sprintf("an exposure of %.1f;", score); !strings.Contains(read(t, "../docs/agent-hardening.md"), want) {
		t.Errorf("docs/agent-hardening.md does not say %q", want)
	}
}

// The threshold of TestExposure can be missed: a unit without a sandbox is.
func TestExposureOfAnOpenUnit(t *testing.T) {
	need(t, "systemd-analyze")
	open := filepath.Join(t.TempDir(), "open.service")
	if err := os.WriteFile(open, []byte("[Service]\nExecStart=/bin/true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := exec.Command("systemd-analyze", "security", "--offline=true", "--threshold=30", open).Run(); err == nil {
		t.Error("a unit without a sandbox passes")
	}
}

func TestAgentDocsNameEachCapability(t *testing.T) {
	page := read(t, "../docs/agent-hardening.md")
	for _, c := range strings.Fields(unit(t, "agent")["CapabilityBoundingSet"][0]) {
		if !strings.Contains(page, "`"+c+"`") {
			t.Errorf("docs/agent-hardening.md gives no reason for %s", c)
		}
	}
}

func TestUnits(t *testing.T) {
	for program, want := range map[string]struct{ user, capabilities string }{
		"mitigator": {"cordon-mitigator", ""},
		"enforcer":  {"cordon-enforcer", "CAP_NET_ADMIN"},
		"agent":     {"root", unit(t, "agent")["CapabilityBoundingSet"][0]},
	} {
		u := unit(t, program)
		for key, value := range map[string]string{
			"Type":                     "notify",
			"User":                     want.user,
			"CapabilityBoundingSet":    want.capabilities,
			"NoNewPrivileges":          "yes",
			"StateDirectory":           "cordon/" + program,
			"StateDirectoryMode":       "0700",
			"Restart":                  "always",
			"RestartPreventExitStatus": strconv.Itoa(config.ExitCode),
			"StartLimitIntervalSec":    "0",
			"ExecStart":                fmt.Sprintf("/usr/bin/cordon-%s run --config /etc/cordon/%s.yaml", program, program),
		} {
			if !slices.Equal(u[key], []string{value}) {
				t.Errorf("cordon-%s.service: %s is %q, want %q", program, key, u[key], value)
			}
		}
		if len(u["WatchdogSec"]) != 1 {
			t.Errorf("cordon-%s.service has no watchdog", program)
		}
		read(t, "etc/cordon/"+program+".yaml")
	}
}

// Stopping the enforcer releases nobody.
func TestEnforcerKeepsRules(t *testing.T) {
	for key, values := range unit(t, "enforcer") {
		harmless := key == "ExecStart" || key == "ExecStartPre" && slices.Equal(values, []string{"+-/usr/lib/systemd/systemd-sysctl --prefix=/net/bridge"})
		if strings.HasPrefix(key, "Exec") && !harmless {
			t.Errorf("cordon-enforcer.service has %s=%s", key, values)
		}
	}
}

// The users and folders are made by systemd's own programs in a root of the
// test's own.
func TestUsersAndFolders(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	need(t, "systemd-sysusers")
	need(t, "systemd-tmpfiles")
	root := t.TempDir()
	for name, target := range map[string]string{"sysusers.d/cordon.conf": "usr/lib/sysusers.d", "tmpfiles.d/cordon.conf": "usr/lib/tmpfiles.d"} {
		dir := filepath.Join(root, target)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "cordon.conf"), []byte(read(t, name)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("systemd-sysusers", "--root="+root, "cordon.conf").CombinedOutput(); err != nil {
		t.Fatalf("systemd-sysusers: %v\n%s", err, out)
	}
	group := regexp.MustCompile(`(?m)^cordon:.*:(cordon-mitigator,cordon-enforcer|cordon-enforcer,cordon-mitigator)$`)
	if groups := read(t, filepath.Join(root, "etc/group")); !group.MatchString(groups) {
		t.Errorf("the group cordon does not hold both users:\n%s", groups)
	}
	if out, err := exec.Command("systemd-tmpfiles", "--root="+root, "--create", "cordon.conf").CombinedOutput(); err != nil {
		t.Fatalf("systemd-tmpfiles: %v\n%s", err, out)
	}
	info, err := os.Stat(filepath.Join(root, "run/cordon"))
	if err != nil {
		t.Fatal(err)
	}
	if want := os.ModeDir | os.ModeSetgid | os.ModeSticky | 0o770; info.Mode() != want {
		t.Errorf("/run/cordon has mode %v, want %v", info.Mode(), want)
	}
}

// check-go.sh says what to do with a Go that is too old, or is missing.
func TestCheckGo(t *testing.T) {
	for _, c := range []struct{ name, goversion, want string }{
		{"old", "go1.19.8", "is 1.19.8"},
		{"missing", "", "no go is in PATH"},
		{"new", "go1.99.0", ""},
		{"patch release", "go1.26.3", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			bin := t.TempDir()
			for _, tool := range []string{"bash", "sed", "sort", "head", "dirname"} {
				path, err := exec.LookPath(tool)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink(path, filepath.Join(bin, tool)); err != nil {
					t.Fatal(err)
				}
			}
			if c.goversion != "" {
				script := "#!" + filepath.Join(bin, "bash") + "\necho " + c.goversion + "\n"
				if err := os.WriteFile(filepath.Join(bin, "go"), []byte(script), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.Command(filepath.Join(bin, "bash"), "check-go.sh")
			cmd.Env = []string{"PATH=" + bin}
			var errs bytes.Buffer
			cmd.Stderr = &errs
			err := cmd.Run()
			if (err == nil) != (c.want == "") || !strings.Contains(errs.String(), c.want) {
				t.Errorf("%v: %s", err, &errs)
			}
		})
	}
}
