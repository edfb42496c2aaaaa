package assess

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/cordon-security/cordon/agent/observe"
	"github.com/cordon-security/cordon/agent/packages"
	"github.com/cordon-security/cordon/agent/procfs"
)

// record is facts that a test writes down: one flow, the processes by pid, and
// the files by path.
type record struct {
	t *testing.T
	Facts
}

func newRecord(t *testing.T) *record {
	r := &record{t: t}
	r.Flows = []Flow{{Protocol: 6, Remote: netip.MustParseAddrPort("192.0.2.1:443")}}
	r.Live, r.Traits, r.Protected = make(map[int]observe.Process), make(map[string]Trait), make(map[int]string)
	r.process(1, 0, "/usr/lib/systemd/systemd")
	r.packaged("/usr/lib/systemd/systemd", "/usr/bin/python3.13", "/usr/bin/bash", "/usr/bin/dash", "/usr/bin/perl", "/usr/bin/sleep")
	return r
}

// inode gives each path an inode of its own.
func (r *record) inode(path string) procfs.FileID {
	if t, ok := r.Traits[path]; ok && !t.File.IsZero() {
		return t.File
	}
	var n uint64
	for _, c := range path {
		n = n*31 + uint64(c)
	}
	return procfs.FileID{Dev: 1, Ino: n}
}

func (r *record) packaged(paths ...string) {
	for _, p := range paths {
		r.Traits[p] = Trait{There: true, File: r.inode(p), Standing: packages.Standing{State: packages.Unchanged, Package: "p"}}
	}
}

func (r *record) unpackaged(paths ...string) {
	for _, p := range paths {
		r.Traits[p] = Trait{There: true, File: r.inode(p), Standing: packages.Standing{State: packages.Unpackaged}}
	}
}

func (r *record) absent(paths ...string) {
	for _, p := range paths {
		r.Traits[p] = Trait{Standing: packages.Standing{State: packages.Unpackaged}}
	}
}

// process adds a live process; words are its command line.
func (r *record) process(pid, parent int, exe string, words ...string) observe.Process {
	p := observe.Process{Process: procfs.Process{
		ID: procfs.ID{PID: pid, Start: uint64(pid)}, PPID: parent, SID: pid, Exe: exe, ExeFile: r.inode(exe), Args: append([]string{exe}, words...), Cwd: "/srv",
	}}
	r.Live[pid] = p
	return p
}

func (r *record) holds(pid int) {
	r.Holders = append(r.Holders, Holder{Process: r.Live[pid].ID, Via: "sock_diag", Live: true})
}

// decide demands that no trait is missing.
func (r *record) decide() Evidence {
	r.t.Helper()
	e, missing := decide(r.Facts)
	if len(missing) > 0 {
		r.t.Fatalf("the record says nothing of %v", missing)
	}
	return e
}

func (r *record) want(v Verdict, files ...string) Evidence {
	r.t.Helper()
	e := r.decide()
	if e.Verdict != v {
		r.t.Errorf("%s, not %s: %v", e.Verdict, v, e.Reasons)
	}
	if got := strings.Join(e.Paths(), " "); got != strings.Join(files, " ") {
		r.t.Errorf("files in evidence: %q, want %q", got, files)
	}
	return e
}

func (r *record) wantPIDs(e Evidence, pids ...int) {
	r.t.Helper()
	got := make(map[int]bool)
	for _, s := range e.Processes {
		got[s.PID] = true
	}
	for _, pid := range pids {
		if !got[pid] {
			r.t.Errorf("pid %d is not in the tree", pid)
		}
		delete(got, pid)
	}
	for pid := range got {
		r.t.Errorf("pid %d is in the tree", pid)
	}
}
