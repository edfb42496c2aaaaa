package assess

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/cordon-security/cordon/agent/packages"
)

const python, bash = "/usr/bin/python3.13", "/usr/bin/bash"

func TestWordsThatAreNoScript(t *testing.T) {
	for name, words := range map[string][]string{
		"module with a file": {"-m", "fetcher", "config.yaml"},
		"module with a word": {"-m", "pip", "install", "config.yaml"},
		"cluster":            {"-Im", "http.server", "8000"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRecord(t)
			r.unpackaged("/srv/config.yaml")
			r.process(10, 1, python, words...)
			r.holds(10)
			r.want(NotConfirmed)
		})
	}
}

func TestScripts(t *testing.T) {
	for name, c := range map[string]struct {
		script  string
		prepare func(r *record)
		verdict Verdict
		file    string
	}{
		"dropped":  {"/tmp/x.py", func(r *record) { r.unpackaged("/tmp/x.py") }, Confirmed, "/tmp/x.py"},
		"packaged": {"/usr/bin/tool", func(r *record) { r.packaged("/usr/bin/tool") }, NotConfirmed, ""},
		"local":    {"/usr/local/bin/tool", func(r *record) { r.unpackaged("/usr/local/bin/tool") }, Unknown, ""},
		"absent":   {"/tmp/x.py", func(r *record) { r.absent("/tmp/x.py") }, Unknown, ""},
		"packaged by a link": {"/usr/bin/tool", func(r *record) {
			r.packaged("/usr/bin/real-tool")
			r.Traits["/usr/bin/tool"] = Trait{Target: "/usr/bin/real-tool", Standing: packages.Standing{State: packages.Unpackaged}}
		}, NotConfirmed, ""},
		"dropped, by a link": {"/usr/bin/tool", func(r *record) {
			r.unpackaged("/tmp/x.py")
			r.Traits["/usr/bin/tool"] = Trait{Target: "/tmp/x.py", Standing: packages.Standing{State: packages.Unverified}}
		}, Confirmed, "/tmp/x.py"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRecord(t)
			c.prepare(r)
			r.process(10, 1, python, c.script, "config.yaml")
			r.holds(10)
			if c.file == "" {
				r.want(c.verdict)
			} else {
				r.wantPIDs(r.want(c.verdict, c.file), 10)
			}
		})
	}
}

func TestRemovedScriptThatBashHolds(t *testing.T) {
	r := newRecord(t)
	r.absent("/tmp/x")
	p := r.process(10, 1, bash, "/tmp/x")
	p.ScriptFD = "/tmp/x (deleted)"
	r.Live[10] = p
	r.holds(10)
	r.want(Confirmed, "/tmp/x")
}

// Links of the host are followed within its root.
func TestTraitFollowsLinks(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"usr/bin", "etc/alternatives"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "usr/bin/real"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"usr/bin/tool": "/etc/alternatives/tool", "etc/alternatives/tool": "../../usr/bin/real", "bin": "usr/bin"} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	c := &Collector{Root: root, Packages: packages.New(root)}
	for path, want := range map[string]string{"/usr/bin/tool": "/usr/bin/real", "/bin/real": "/usr/bin/real", "/usr/bin/real": "", "/absent": ""} {
		if got := c.trait(path).Target; got != want {
			t.Errorf("%s leads to %q, want %q", path, got, want)
		}
	}
}
