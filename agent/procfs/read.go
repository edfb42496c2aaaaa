package procfs

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// MaxArgs bounds what is kept of a command line, in bytes.
const MaxArgs = 4096

const kernelThread = 0x00200000 // PF_KTHREAD, include/linux/sched.h

// FS is a mounted proc file system. Its methods may be called concurrently.
type FS struct {
	// Path is where it is mounted; empty means /proc.
	Path string
}

// File returns the path of a file of one process.
func (fs FS) File(pid int, name string) string {
	return fs.root() + "/" + strconv.Itoa(pid) + "/" + name
}

func (fs FS) root() string {
	if fs.Path == "" {
		return "/proc"
	}
	return fs.Path
}

// PIDs lists the processes that there are.
func (fs FS) PIDs() ([]int, error) {
	d, err := os.Open(fs.root())
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	pids := make([]int, 0, len(names))
	for _, n := range names {
		if pid, err := strconv.Atoi(n); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// Stat reads a process's identity, family and state, which is the cheap part.
func (fs FS) Stat(pid int) (Process, error) {
	data, err := os.ReadFile(fs.File(pid, "stat"))
	if err != nil {
		return Process{}, fmt.Errorf("read process %d: %w", pid, err)
	}
	return parseStat(pid, data)
}

// parseStat reads proc_pid_stat(5). The name stands in parentheses and may
// itself hold any byte, so the last closing one ends it.
func parseStat(pid int, data []byte) (Process, error) {
	open, end := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if open < 0 || end < open {
		return Process{}, fmt.Errorf("process %d: unreadable stat line", pid)
	}
	f := strings.Fields(string(data[end+1:]))
	if len(f) < 20 {
		return Process{}, fmt.Errorf("process %d: short stat line", pid)
	}
	p := Process{ID: ID{PID: pid}, State: f[0], Comm: string(data[open+1 : end])}
	numbers := map[int]*int{1: &p.PPID, 3: &p.SID}
	for i, into := range numbers {
		n, err := strconv.Atoi(f[i])
		if err != nil {
			return Process{}, fmt.Errorf("process %d: unreadable stat line: %w", pid, err)
		}
		*into = n
	}
	flags, err := strconv.ParseUint(f[6], 10, 64)
	if err != nil {
		return Process{}, fmt.Errorf("process %d: unreadable stat line: %w", pid, err)
	}
	p.Kernel = flags&kernelThread != 0
	if p.Threads, err = strconv.Atoi(f[17]); err != nil {
		return Process{}, fmt.Errorf("process %d: unreadable stat line: %w", pid, err)
	}
	if p.Start, err = strconv.ParseUint(f[19], 10, 64); err != nil {
		return Process{}, fmt.Errorf("process %d: unreadable stat line: %w", pid, err)
	}
	return p, nil
}

// Detail adds executable, command line, descriptors and cgroup to what Stat
// returned. What cannot be read stays empty: the process may be gone.
func (fs FS) Detail(p *Process) {
	pid := p.PID
	dir := fs.thread(pid)
	fs.executable(p, dir)
	p.Args = args(dir)
	p.Cwd, _ = os.Readlink(dir + "/cwd")
	p.Stdin, _ = os.Readlink(dir + "/fd/0")
	p.ScriptFD, _ = os.Readlink(dir + "/fd/255")
	p.Cgroup = fs.cgroup(pid)
}

// args reads the command line.
func args(dir string) []string {
	f, err := os.Open(dir + "/cmdline")
	if err != nil {
		return nil
	}
	defer f.Close()
	buf := make([]byte, MaxArgs)
	n, _ := f.Read(buf)
	text := strings.TrimRight(string(buf[:n]), "\x00")
	if text == "" {
		return nil
	}
	return strings.Split(text, "\x00")
}

func (fs FS) cgroup(pid int) string {
	data, err := os.ReadFile(fs.File(pid, "cgroup"))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "0::"); ok {
			return strings.TrimSuffix(rest, "\n")
		}
	}
	return ""
}

// Snapshot reads every process with Stat, and with Detail too when detailed.
func (fs FS) Snapshot(detailed bool) (map[int]Process, error) {
	pids, err := fs.PIDs()
	if err != nil {
		return nil, err
	}
	all := make(map[int]Process, len(pids))
	for _, pid := range pids {
		p, err := fs.Stat(pid)
		if err != nil {
			continue // It ended since the list was read.
		}
		if detailed && !p.Kernel {
			fs.Detail(&p)
		}
		all[pid] = p
	}
	return all, nil
}

// SocketHolders maps the inode of each socket that a process holds to the
// processes that hold it, for the inodes wanted.
func (fs FS) SocketHolders(wanted map[uint64]bool) (map[uint64][]int, error) {
	holders := make(map[uint64][]int)
	if len(wanted) == 0 {
		return holders, nil
	}
	pids, err := fs.PIDs()
	if err != nil {
		return nil, err
	}
	for _, pid := range pids {
		for inode := range fs.sockets(pid) {
			if wanted[inode] {
				holders[inode] = append(holders[inode], pid)
			}
		}
	}
	return holders, nil
}

func (fs FS) sockets(pid int) map[uint64]bool {
	dir := fs.thread(pid) + "/fd"
	d, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	var found map[uint64]bool
	for _, n := range names {
		link, err := os.Readlink(dir + "/" + n)
		if err != nil || !strings.HasPrefix(link, "socket:[") {
			continue
		}
		inode, err := strconv.ParseUint(strings.TrimSuffix(link[len("socket:["):], "]"), 10, 64)
		if err != nil {
			continue
		}
		if found == nil {
			found = make(map[uint64]bool)
		}
		found[inode] = true
	}
	return found
}
