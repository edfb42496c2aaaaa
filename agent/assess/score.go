package assess

import (
	"fmt"
	"path"
	"strings"

	"github.com/cordon-security/cordon/agent/packages"
	"github.com/cordon-security/cordon/agent/procfs"
)

// suspicion is the score from which on a process is suspicious. A process that
// holds the flow of an alert and reaches it is confirmed.
const suspicion = 50

// The points. The score of a file is its greatest, not their sum: each reason
// stands for itself.
const (
	pointsNameless    = 100 // An executable that never had a name.
	pointsDeleted     = 80  // An unpackaged executable that was deleted while it runs.
	pointsTemporary   = 70  // In a directory that anybody may write, or that is gone after a boot.
	pointsHidden      = 70  // Below a name that begins with a dot.
	pointsChanged     = 70  // At a packaged path, with other content.
	pointsMounted     = 60  // On a medium or mount that is no part of the system.
	pointsHome        = 60  // In a home directory.
	pointsShellSocket = 90  // Program text that opens a connection itself.
	pointsFetchAndRun = 60  // Program text that fetches and runs.
	pointsUnpackaged  = 30  // From no package, in a place for local programs.
)

var (
	temporaryDirs = []string{"/tmp", "/var/tmp", "/dev/shm", "/run/user", "/run/lock", "/run/shm", "/var/crash", "/var/www"}
	mountedDirs   = []string{"/mnt", "/media"}
	homeDirs      = []string{"/home", "/root"}
)

// mark is a score with its reason; no points mean nothing is held against it.
type mark struct {
	points int
	why    string
	// place is true when nothing but where the file lies is held against it.
	place bool
}

func worse(a, b mark) mark {
	if b.points > a.points {
		return b
	}
	return a
}

// markFile scores a file by where it lies and where it came from.
func markFile(name string, t Trait) mark {
	if name == "" {
		return mark{}
	}
	switch t.Standing.State {
	case packages.Unchanged, packages.Unverified:
		return mark{}
	case packages.Changed:
		return mark{points: pointsChanged, why: fmt.Sprintf("%s is at a path of package %s, but %s", name, t.Standing.Package, t.Standing.Why)}
	}
	m := mark{pointsUnpackaged, name + " comes from no package", true}
	if dir := dirOf(name, temporaryDirs); dir != "" {
		m = worse(m, mark{pointsTemporary, fmt.Sprintf("%s comes from no package and lies in %s", name, dir), true})
	}
	if t.Memory {
		m = worse(m, mark{pointsTemporary, name + " comes from no package and lies on a file system in memory", true})
	}
	if hidden(name) {
		m = worse(m, mark{pointsHidden, name + " comes from no package and lies under a hidden name", true})
	}
	if dir := dirOf(name, homeDirs); dir != "" {
		m = worse(m, mark{pointsHome, name + " comes from no package and lies in a home directory", true})
	}
	if dir := dirOf(name, mountedDirs); dir != "" {
		m = worse(m, mark{pointsMounted, fmt.Sprintf("%s comes from no package and lies on a mount below %s", name, dir), true})
	}
	return m
}

func dirOf(name string, dirs []string) string {
	for _, d := range dirs {
		if strings.HasPrefix(name, d+"/") {
			return d
		}
	}
	return ""
}

func hidden(name string) bool {
	for part := range strings.SplitSeq(name, "/") {
		if len(part) > 1 && part[0] == '.' && part != ".." {
			return true
		}
	}
	return false
}

// trusted reports whether a process runs a package's own file: the path is the
// package's, and leads to what the process runs, or led to it until an upgrade.
func trusted(p procfs.Process, t Trait) bool {
	switch {
	case p.ExeElsewhere || p.Memfd:
		return false
	case p.ExeDeleted:
		return p.ExeRoots && t.Standing.Replaced(p.ExeChanged)
	}
	return (t.Standing.State == packages.Unchanged || t.Standing.State == packages.Unverified) && t.File == p.ExeFile
}

// replaced reports whether another file has the name by which the executable of
// a process was started.
func replaced(p procfs.Process, t Trait) bool {
	return p.ExeDeleted && !p.Memfd && t.There && t.File != p.ExeFile
}

// markExe scores a process by its executable.
func markExe(p procfs.Process, t Trait) mark {
	switch {
	case p.Kernel || p.Exe == "" || trusted(p, t):
		return mark{}
	case p.Memfd:
		return mark{points: pointsNameless, why: fmt.Sprintf("the executable of pid %d never had a name (%s)", p.PID, path.Base(p.Exe))}
	case replaced(p, t):
		// A program that was installed anew runs on as it was.
		return markFile(p.Exe, strange(t))
	case p.ExeDeleted:
		return mark{points: pointsDeleted, why: fmt.Sprintf("the executable %s was deleted while it runs, and no package's upgrade explains it", p.Exe)}
	case p.ExeElsewhere || !t.There || t.File != p.ExeFile:
		return markFile(p.Exe, strange(t))
	}
	return markFile(p.Exe, t)
}

// strange is the trait of a file that is not the one at its path here: what a
// package brought there says nothing about it.
func strange(t Trait) Trait {
	return Trait{Memory: t.Memory, Standing: packages.Standing{State: packages.Unpackaged}}
}

// markInput scores a process by the script or text that its interpreter runs.
func markInput(in input, t Trait) mark {
	m := markScript(in, t)
	text := in.inline
	switch {
	case strings.Contains(text, "/dev/tcp/") || strings.Contains(text, "/dev/udp/"):
		m = worse(m, mark{points: pointsShellSocket, why: "its command opens a network connection from the shell itself"})
	case (strings.Contains(text, "curl ") || strings.Contains(text, "wget ")) && strings.Contains(text, "|"):
		m = worse(m, mark{points: pointsFetchAndRun, why: "its command fetches something and pipes it on"})
	}
	return m
}

// markShell scores an interpreter of commands whose input is the flow itself.
func markShell(p procfs.Process) mark {
	g, _, ok := grammarOf(p)
	if !ok || g.operandIsText {
		return mark{}
	}
	return mark{points: pointsShellSocket, why: fmt.Sprintf("pid %d (%s) takes its commands from the connection itself", p.PID, p.Exe)}
}

// markScript scores a process by its script. A path that leads to nothing says
// little: the name may be another program's word, or that of another root.
func markScript(in input, t Trait) mark {
	switch {
	case in.path == "":
		return mark{}
	case in.elsewhere:
		return markFile(in.path, strange(t))
	case t.There:
		return markFile(in.path, t)
	case t.Standing.State != packages.Unpackaged:
		return mark{}
	case in.gone:
		return mark{points: pointsDeleted, why: fmt.Sprintf("the script %s comes from no package and was deleted while it runs", in.path)}
	}
	return mark{points: pointsUnpackaged, why: fmt.Sprintf("the script %s is not there", in.path)}
}
