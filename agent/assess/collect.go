package assess

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cordon-security/cordon/agent/guard"
	"github.com/cordon-security/cordon/agent/observe"
	"github.com/cordon-security/cordon/agent/packages"
	"github.com/cordon-security/cordon/agent/persistence"
	"github.com/cordon-security/cordon/agent/procfs"
	"github.com/cordon-security/cordon/agent/sockdiag"
)

// rounds bounds how often traits are looked up for a decision.
const rounds = 16

// Collector records facts from the running host.
type Collector struct {
	Proc     procfs.FS
	Packages *packages.DB
	History  *observe.History
	Guard    *guard.Guard
	Finder   *persistence.Finder
	// Observer names the history's source, Keep how long it reaches back.
	Observer string
	Keep     time.Duration
	// Root is the host's root directory, "/" but in tests.
	Root string
	Now  func() time.Time
}

// Look records the facts for the flows and decides. It says nothing of what
// starts the threat: that is Persistence, because it takes longer.
func (c *Collector) Look(flows []Flow, known Known) (Facts, Evidence, error) {
	f := Facts{At: c.Now().UTC(), Flows: flows, Known: known, Observer: c.Observer, History: c.Keep, Traits: make(map[string]Trait)}
	live, ended := c.History.Processes()
	f.Ended = ended
	var err error
	if f.Live, err = c.table(live); err != nil {
		return f, Evidence{}, err
	}
	if f.Holders, err = c.holders(f); err != nil {
		return f, Evidence{}, err
	}
	// What ended, or became another program, without an event so far is past all
	// the same.
	for pid, p := range live {
		now, ok := f.Live[pid]
		if !p.Kernel && (!ok || now.Start != p.Start || becameAnother(p, now)) {
			f.Ended = append(f.Ended, p)
		}
	}
	f.Scripts = c.scripts(f.Live)
	if f.Inputs, err = c.inputs(f); err != nil {
		return f, Evidence{}, err
	}
	f.Protected = make(map[int]string)
	for pid, p := range f.Live {
		if err := c.Guard.Process(p.Process); err != nil {
			f.Protected[pid] = err.Error()
		}
	}
	for _, k := range known.Files {
		f.Traits[k.Path] = c.trait(k.Path)
	}
	for range rounds {
		e, missing := decide(f)
		if len(missing) == 0 {
			return f, e, nil
		}
		for _, path := range missing {
			f.Traits[path] = c.trait(path)
		}
	}
	return f, Decide(f), nil
}

// becameAnother reports whether a process runs another program now than the
// history knows: the event of it is still under way.
func becameAnother(known, now observe.Process) bool {
	return known.Exe != "" && now.Exe != "" && known.Exe != now.Exe && known.ExeFile != now.ExeFile
}

// table reads the process table, and takes from the history what cannot have
// changed.
func (c *Collector) table(known map[int]observe.Process) (map[int]observe.Process, error) {
	pids, err := c.Proc.PIDs()
	if err != nil {
		return nil, err
	}
	live := make(map[int]observe.Process, len(pids))
	for _, pid := range pids {
		p, err := c.Proc.Stat(pid)
		if err != nil || p.Dead() {
			continue
		}
		old, ok := known[pid]
		if ok && old.Start != p.Start {
			old = observe.Process{}
		}
		if old.Exe != "" && interpreter(old.Exe) == "" && c.Proc.Settled(old.Process) {
			p = refreshed(old.Process, p)
		} else if !p.Kernel {
			c.Proc.Detail(&p)
		}
		live[pid] = observe.Process{Process: p, Parent: old.Parent}
	}
	return live, nil
}

// refreshed puts what proc_pid_stat(5) says now into what was known.
func refreshed(old, now procfs.Process) procfs.Process {
	old.PPID, old.SID, old.State, old.Threads, old.Comm = now.PPID, now.SID, now.State, now.Threads, now.Comm
	return old
}

// holders finds the processes behind the flows: those that hold the socket now,
// those that the history knows, else those that listen on the local port.
func (c *Collector) holders(f Facts) ([]Holder, error) {
	sockets, err := sockdiag.List()
	if err != nil {
		return nil, err
	}
	wanted := make(map[uint64]bool)
	for _, s := range sockets {
		if s.Inode != 0 && slices.ContainsFunc(f.Flows, func(w Flow) bool { return matches(s, w) || listens(s, w) }) {
			wanted[s.Inode] = true
		}
	}
	pids, err := c.Proc.SocketHolders(wanted)
	if err != nil {
		return nil, err
	}
	var all []Holder
	for i, flow := range f.Flows {
		of := func(match func(sockdiag.Socket, Flow) bool, via string, live bool) {
			for _, s := range sockets {
				if !match(s, flow) {
					continue
				}
				for _, pid := range pids[s.Inode] {
					if p, ok := f.Live[pid]; ok {
						all = append(all, Holder{Flow: i, Process: p.ID, Via: via, Live: live})
					}
				}
			}
		}
		before := len(all)
		of(matches, "sock_diag", true)
		all = append(all, c.remembered(i, flow)...)
		if len(all) == before {
			of(listens, "listener", false)
		}
	}
	return unique(all), nil
}

// remembered asks the history. A connection counts when it was open within the
// history's time before the alert, and was not opened after it.
func (c *Collector) remembered(i int, flow Flow) []Holder {
	const slack = 2 * time.Minute // Clocks of data source and endpoint differ.
	var all []Holder
	for _, conn := range c.History.Find(flow.Remote, flow.Local.Port()) {
		if conn.Process.PID == 0 {
			continue
		}
		if !flow.SeenAt.IsZero() {
			if conn.Opened.After(flow.SeenAt.Add(slack)) || !conn.Closed.IsZero() && conn.Closed.Before(flow.SeenAt.Add(-c.Keep)) {
				continue
			}
		}
		all = append(all, Holder{Flow: i, Process: conn.Process, Via: "history", Live: conn.Closed.IsZero(), Closed: conn.Closed})
	}
	return all
}

// unique drops a second finding of the same process for the same flow.
func unique(all []Holder) []Holder {
	var kept []Holder
	for _, h := range all {
		if !slices.ContainsFunc(kept, func(k Holder) bool { return k.Flow == h.Flow && k.Process == h.Process }) {
			kept = append(kept, h)
		}
	}
	return kept
}

func matches(s sockdiag.Socket, f Flow) bool {
	if s.Protocol != f.Protocol || f.Local.Port() != 0 && s.Local.Port() != f.Local.Port() {
		return false
	}
	if s.Remote == f.Remote {
		return true
	}
	// A UDP socket that is not connected may speak to anybody.
	return f.Protocol == syscall.IPPROTO_UDP && s.Remote.Port() == 0 && f.Local.Port() != 0
}

func listens(s sockdiag.Socket, f Flow) bool {
	return f.Protocol == syscall.IPPROTO_TCP && s.Protocol == f.Protocol && s.State == sockdiag.Listen &&
		f.Local.Port() != 0 && s.Local.Port() == f.Local.Port()
}

// Sockets returns the live connections that processes of the tree hold to the
// remote sides of the flows.
func (c *Collector) Sockets(flows []Flow) ([]sockdiag.Socket, error) {
	sockets, err := sockdiag.List()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(sockets, func(s sockdiag.Socket) bool {
		return s.Protocol != syscall.IPPROTO_TCP || s.State == sockdiag.TimeWait ||
			!slices.ContainsFunc(flows, func(f Flow) bool { return s.Remote == f.Remote && matches(s, f) })
	}), nil
}

// inputs finds the processes whose descriptor 0 is the socket of a flow that
// they opened. One that listens hands its descriptor 0 on to the service that it
// starts, as inetd does, and proves nothing.
func (c *Collector) inputs(f Facts) (map[int]bool, error) {
	sockets, err := sockdiag.List()
	if err != nil {
		return nil, err
	}
	listening := make(map[uint16]bool)
	for _, s := range sockets {
		if s.State == sockdiag.Listen {
			listening[s.Local.Port()] = true
		}
	}
	wanted := make(map[string]bool)
	for _, s := range sockets {
		if s.Inode != 0 && !listening[s.Local.Port()] && slices.ContainsFunc(f.Flows, func(w Flow) bool { return s.Remote == w.Remote && matches(s, w) }) {
			wanted[fmt.Sprintf("socket:[%d]", s.Inode)] = true
		}
	}
	found := make(map[int]bool)
	for _, h := range f.Holders {
		// Descriptor 0 may be another since the process was looked at in detail.
		if in, err := os.Readlink(c.Proc.File(h.Process.PID, "fd/0")); err == nil && h.Live && wanted[in] {
			found[h.Process.PID] = true
		}
	}
	return found, nil
}

// scripts looks up the scripts of interpreters as those see them.
func (c *Collector) scripts(live map[int]observe.Process) map[int]procfs.FileID {
	found := make(map[int]procfs.FileID)
	for pid, p := range live {
		in, ok := inputOf(p.Process)
		if !ok || in.path == "" || in.gone {
			continue
		}
		fd, err := openIn(c.Proc.File(pid, "root"), in.path)
		if err != nil {
			continue
		}
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil {
			found[pid] = procfs.FileID{Dev: uint64(st.Dev), Ino: st.Ino}
		}
		_ = unix.Close(fd)
	}
	return found
}

// openIn opens a path below a root directory, whose symbolic links lead
// nowhere else, without reading from it.
func openIn(root, path string) (int, error) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(dir)
	return unix.Openat2(dir, path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
}

func (c *Collector) trait(path string) Trait {
	var t Trait
	var st syscall.Stat_t
	if syscall.Lstat(filepath.Join(c.Root, path), &st) == nil && st.Mode&syscall.S_IFMT == syscall.S_IFREG {
		t.There = true
		t.File = procfs.FileID{Dev: uint64(st.Dev), Ino: st.Ino}
		var fs unix.Statfs_t
		if unix.Statfs(filepath.Join(c.Root, path), &fs) == nil {
			t.Memory = fs.Type == unix.TMPFS_MAGIC || fs.Type == unix.RAMFS_MAGIC
		}
	}
	if target := c.resolve(path); target != path {
		t.Target = target
	}
	s, err := c.Packages.Check(path)
	if err != nil {
		// The path is a package's and the file is gone or unreadable.
		s = packages.Standing{State: packages.Unverified, Why: err.Error()}
	}
	t.Standing = s
	return t
}

// Trusted reports whether a process, of which the details are known, runs a
// package's own file.
func (c *Collector) Trusted(p procfs.Process) bool { return trusted(p, c.trait(p.Exe)) }

// resolve follows the symbolic links of a path on the host; "" when it leads to
// nothing.
func (c *Collector) resolve(path string) string {
	fd, err := openIn(c.Root, path)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	target, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return ""
	}
	if c.Root == "/" {
		return target
	}
	return strings.TrimPrefix(target, filepath.Clean(c.Root))
}

// Persistence adds what starts the files of the evidence, and the wrappers in
// between, which become evidence themselves. It returns in words what was too
// much to be looked at.
func (c *Collector) Persistence(e *Evidence) (skipped []string) {
	entries, skipped := c.Finder.All()
	taken := make(map[string]bool)
	for again := true; again; {
		again = false
		for _, entry := range entries {
			if taken[entry.Key()] {
				continue
			}
			why, wrapper, ok := starts(*e, entry)
			if !ok {
				continue
			}
			taken[entry.Key()], again = true, true
			e.Entries = append(e.Entries, Start{Entry: entry, Why: why})
			if wrapper != "" && !slices.Contains(e.Paths(), wrapper) {
				t := c.trait(wrapper)
				e.Files = append(e.Files, SuspectFile{Path: wrapper, File: t.File, Why: "it is the script between " + entry.Name() + " and the threat"})
			}
		}
	}
	return skipped
}

// starts tells whether an entry starts the threat: a file of it, or a unit that
// does.
func starts(e Evidence, entry persistence.Entry) (why, wrapper string, ok bool) {
	if file, wrapper, ok := entry.Starting(e.Paths()); ok {
		if wrapper != "" {
			return fmt.Sprintf("it starts %s through %s", file, wrapper), wrapper, true
		}
		return "it starts " + file, "", true
	}
	for _, s := range e.Entries {
		if entry.Starts != "" && s.Kind == persistence.Unit && entry.Starts == s.Unit && entry.User == s.User && !entry.Packaged {
			return "it starts the unit " + s.Unit, "", true
		}
	}
	return "", "", false
}

// Executable returns the open executable of a process, also of a deleted one. The
// caller closes it.
func (c *Collector) Executable(pid int) (*os.File, error) {
	return c.Proc.OpenExe(pid)
}

// ParseFlow makes a flow from a remote side alone, for a look by hand.
func ParseFlow(remote string, now time.Time) (Flow, error) {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return Flow{}, fmt.Errorf("remote side %q: want ADDRESS:PORT, as 192.0.2.1:443 or [2001:db8::1]:443", remote)
	}
	return Flow{Protocol: syscall.IPPROTO_TCP, Remote: at, SeenAt: now}, nil
}
