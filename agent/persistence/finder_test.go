package persistence_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cordon-security/cordon/agent/packages"
	"github.com/cordon-security/cordon/agent/persistence"
)

const evil = "/root/.x/evil"

// host makes a root directory of these files; a text that begins with "->" is
// a symbolic link.
func host(t *testing.T, files map[string]string) *persistence.Finder {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(text, "->"); ok {
			err = os.Symlink(target, path)
		} else {
			err = os.WriteFile(path, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return &persistence.Finder{Root: root, Packages: packages.New(root)}
}

// starting returns the entries that start the threat.
func starting(entries []persistence.Entry) (found []persistence.Entry) {
	for _, e := range entries {
		if _, _, ok := e.Starting([]string{evil}); ok {
			found = append(found, e)
		}
	}
	return found
}

func TestEveryPlace(t *testing.T) {
	const unit, passwd = "[Service]\nExecStart=" + evil + " -q\n", "u:x:1000:1000::/home/u:/bin/sh\n"
	for name, c := range map[string]struct {
		files map[string]string
		path  string
		links []string
	}{
		"crontab":       {map[string]string{"/etc/crontab": "* * * * * root " + evil + "\n"}, "/etc/crontab", nil},
		"cron.d":        {map[string]string{"/etc/cron.d/x": "\n@reboot root " + evil}, "/etc/cron.d/x", nil},
		"own crontab":   {map[string]string{"/var/spool/cron/crontabs/u": "* * * * * " + evil}, "/var/spool/cron/crontabs/u", nil},
		"cron.daily":    {map[string]string{"/etc/cron.daily/x": "#!/bin/sh\nnice " + evil + "\n"}, "/etc/cron.daily/x", nil},
		"anacrontab":    {map[string]string{"/etc/anacrontab": "1 5 x " + evil}, "/etc/anacrontab", nil},
		"wrapper":       {map[string]string{"/etc/crontab": "* * * * * root /opt/w\n", "/opt/w": "#!/bin/sh\n" + evil + " &\n"}, "/etc/crontab", nil},
		"unit":          {map[string]string{"/etc/systemd/system/x.service": unit}, "/etc/systemd/system/x.service", nil},
		"transient":     {map[string]string{"/run/systemd/transient/x.service": unit}, "/run/systemd/transient/x.service", nil},
		"generated":     {map[string]string{"/run/systemd/generator.late/x.service": unit}, "/run/systemd/generator.late/x.service", nil},
		"user's unit":   {map[string]string{"/etc/passwd": passwd, "/home/u/.config/systemd/user/x.service": unit}, "/home/u/.config/systemd/user/x.service", nil},
		"drop-in":       {map[string]string{"/etc/systemd/system/ssh.service.d/x.conf": unit}, "/etc/systemd/system/ssh.service.d/x.conf", nil},
		"through shell": {map[string]string{"/etc/systemd/system/x.service": "[Service]\nEnvironment=D=/root/.x\nExecStart=/bin/sh -c '$D/evil'\n"}, "/etc/systemd/system/x.service", nil},
		"enabled": {map[string]string{
			"/etc/systemd/system/x.service": unit, "/etc/systemd/system/multi-user.target.wants/x.service": "->/etc/systemd/system/x.service",
		}, "/etc/systemd/system/x.service", []string{"/etc/systemd/system/multi-user.target.wants/x.service"}},
		"linked": {map[string]string{
			"/root/.x/x.service": unit, "/etc/systemd/system/x.service": "->/root/.x/x.service",
			"/etc/systemd/system/multi-user.target.wants/x.service": "->/root/.x/x.service",
		}, "/root/.x/x.service", []string{"/etc/systemd/system/multi-user.target.wants/x.service", "/etc/systemd/system/x.service"}},
		"linked twice": {map[string]string{
			"/root/.x/x.service": unit, "/root/l": "->.x/x.service", "/etc/systemd/system/x.service": "->../../../root/l",
		}, "/root/.x/x.service", []string{"/etc/systemd/system/x.service"}},
	} {
		t.Run(name, func(t *testing.T) {
			entries, skipped := host(t, c.files).All()
			found := starting(entries)
			if len(found) != 1 || found[0].Path != c.path || len(skipped) != 0 {
				t.Fatalf("found %+v, skipped %v", found, skipped)
			}
			slices.Sort(found[0].Links)
			if !slices.Equal(found[0].Links, c.links) {
				t.Errorf("links %v, want %v", found[0].Links, c.links)
			}
		})
	}
}

func TestWhatStartsNothing(t *testing.T) {
	f := host(t, map[string]string{
		"/etc/crontab":                     "# * * * * * root " + evil + "\n* * * * * root rm -f " + evil + "\n",
		"/etc/cron.d/scan":                 "0 0 * * * root clamscan " + evil + "\n",
		"/etc/systemd/system/x.service":    "[Service]\n#ExecStart=" + evil + "\nExecStart=/usr/bin/find " + evil + "\n",
		"/etc/systemd/system/mask.service": "->/dev/null",
		"/etc/cron.daily/x":                "#!/bin/sh\nrm -f " + evil + "\n",
	})
	entries, skipped := f.All()
	if found := starting(entries); len(found) != 0 || len(skipped) != 0 {
		t.Errorf("found %+v, skipped %v", found, skipped)
	}
}

// Too much in one place hides nothing in another, and is told.
func TestTooMuchIsTold(t *testing.T) {
	unit := map[string]string{"/etc/systemd/system/x.service": "[Service]\nExecStart=" + evil + "\n"}
	for name, c := range map[string]struct{ path, text string }{
		"lines": {"/etc/cron.d/many", strings.Repeat("* * * * * root true\n", 20001)},
		"size":  {"/etc/cron.d/large", strings.Repeat("# comment\n", 200000)},
		"words": {"/etc/cron.daily/wide", "#!/bin/sh\nfor i in " + words(5000) + "; do $i; done\n"},
	} {
		t.Run(name, func(t *testing.T) {
			unit[c.path] = c.text
			defer delete(unit, c.path)
			entries, skipped := host(t, unit).All()
			if len(starting(entries)) != 1 {
				t.Error("the unit is not found")
			}
			if len(skipped) != 1 || !strings.Contains(skipped[0], c.path) {
				t.Errorf("skipped %v", skipped)
			}
		})
	}
}

func words(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("/opt/" + strings.Repeat("x", i%50) + string(rune('a'+i%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i/676)) + " ")
	}
	return b.String()
}
