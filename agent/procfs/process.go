package procfs

import (
	"strings"
	"time"
)

// ID names one process for as long as the machine is up.
type ID struct {
	PID int `json:"pid"`
	// Start is the start time in clock ticks (USER_HZ, 10 ms) since boot.
	Start uint64 `json:"start"`
}

// FileID names an inode.
type FileID struct {
	Dev uint64 `json:"dev"`
	Ino uint64 `json:"ino"`
}

// IsZero reports whether the inode is not known.
func (f FileID) IsZero() bool { return f == FileID{} }

// Process is what proc(5) says about one process.
type Process struct {
	ID
	PPID int `json:"ppid"`
	SID  int `json:"sid"`
	// State is the letter of proc_pid_stat(5): R, S, D, T, Z, X. It is that of
	// the first thread, whose end is not yet the process's.
	State string `json:"state,omitempty"`
	// Threads counts the threads, with a first one that has ended.
	Threads int    `json:"threads,omitempty"`
	Comm    string `json:"comm"`
	// Kernel is true for a kernel thread.
	Kernel bool `json:"kernel,omitempty"`

	// Exe is the path of the executable on this host, or as the process sees it
	// when ExeElsewhere is set, without the kernel's " (deleted)".
	Exe string `json:"exe,omitempty"`
	// ExeFile is the executable's inode; zero when it could not be read.
	ExeFile FileID `json:"exe_file,omitzero"`
	// ExeDeleted is true when the name by which it was started was removed,
	// also when another file has it now, or another name the file.
	ExeDeleted bool `json:"exe_deleted,omitempty"`
	// ExeElsewhere is true when no name leads to the executable that this
	// program sees: it lies on a mount of another namespace.
	ExeElsewhere bool `json:"exe_elsewhere,omitempty"`
	// ExeChanged is the change time of the executable's inode: of a deleted
	// one, when it lost its name.
	ExeChanged time.Time `json:"exe_changed,omitzero"`
	// ExeRoots is true when the executable belongs to root and nobody else may
	// write it.
	ExeRoots bool `json:"exe_roots,omitempty"`
	// Memfd is true when the executable never had a name (memfd_create(2)).
	Memfd bool `json:"memfd,omitempty"`
	// Args is the command line, at most MaxArgs bytes of it.
	Args []string `json:"args,omitempty"`
	Cwd  string   `json:"cwd,omitempty"`
	// Stdin is what descriptor 0 leads to: a path, or "pipe:[n]" and the like.
	Stdin string `json:"stdin,omitempty"`
	// ScriptFD is what descriptor 255 leads to, where bash keeps its script.
	ScriptFD string `json:"script_fd,omitempty"`
	// Cgroup is the path in the unified hierarchy.
	Cgroup string `json:"cgroup,omitempty"`
}

// Dead reports whether no thread of the process runs any more.
func (p *Process) Dead() bool { return p.State == "X" || p.State == "Z" && p.Threads <= 1 }

// Unit returns the systemd service that the process belongs to, from its
// cgroup, or "".
func (p *Process) Unit() string {
	for c := p.Cgroup; c != "" && c != "/"; {
		i := strings.LastIndexByte(c, '/')
		if name := c[i+1:]; strings.HasSuffix(name, ".service") {
			return name
		}
		c = c[:max(i, 0)]
	}
	return ""
}
