package assess

import (
	"github.com/cordon-security/cordon/agent/persistence"
	"github.com/cordon-security/cordon/agent/procfs"
)

// Verdict is what an assessment comes to.
type Verdict string

// Verdicts.
const (
	Confirmed    Verdict = "confirmed"
	NotConfirmed Verdict = "not confirmed"
	Unknown      Verdict = "unknown"
)

// Evidence is what belongs to the threat.
type Evidence struct {
	Verdict Verdict  `json:"verdict"`
	Reasons []string `json:"reasons"`
	// Processes is the tree, parents before children; ended ones are in it.
	Processes []Suspect     `json:"processes,omitempty"`
	Files     []SuspectFile `json:"files,omitempty"`
	Entries   []Start       `json:"entries,omitempty"`
}

// Suspect is a process of the tree.
type Suspect struct {
	procfs.Process
	Why   string `json:"why"`
	Ended bool   `json:"ended,omitempty"`
}

// SuspectFile is a file of the threat.
type SuspectFile struct {
	Path string        `json:"path"`
	File procfs.FileID `json:"file,omitzero"`
	Why  string        `json:"why"`
	// Deleted is true when the name does not lead to it; PID runs it then.
	Deleted bool `json:"deleted,omitempty"`
	PID     int  `json:"pid,omitempty"`
	// Elsewhere is true when it lies where the agent cannot see it, as on a
	// mount of another namespace: the path is that namespace's.
	Elsewhere bool `json:"elsewhere,omitempty"`
	// Taken is true once the file was removed with its last name: its inode
	// number may be given to another file from then on.
	Taken bool `json:"taken,omitempty"`
}

// Start is an entry that starts something of the threat.
type Start struct {
	persistence.Entry
	Why string `json:"why"`
}

// Live returns the processes of the tree that run.
func (e Evidence) Live() []procfs.Process {
	var live []procfs.Process
	for _, s := range e.Processes {
		if !s.Ended {
			live = append(live, s.Process)
		}
	}
	return live
}

// Known turns the evidence into what a later look takes over.
func (e Evidence) Known() Known {
	var k Known
	for _, f := range e.Files {
		known := KnownFile{f.Path, f.File, f.Elsewhere}
		if f.Taken {
			known.File = procfs.FileID{}
		}
		k.Files = append(k.Files, known)
	}
	for _, p := range e.Processes {
		k.Processes = append(k.Processes, p.ID)
	}
	return k
}

// Paths lists the files' paths on this host.
func (e Evidence) Paths() []string {
	paths := make([]string, 0, len(e.Files))
	for _, f := range e.Files {
		if !f.Elsewhere {
			paths = append(paths, f.Path)
		}
	}
	return paths
}
