package guard

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/cordon-security/cordon/agent/packages"
	"github.com/cordon-security/cordon/agent/procfs"
)

// Refusal is the error of what the guard forbids.
type Refusal struct {
	// Rule is a short fixed name, Why says it in words.
	Rule, Why string
}

// Error names the rule and says in words what it protects.
func (r *Refusal) Error() string { return fmt.Sprintf("the guard refuses (%s): %s", r.Rule, r.Why) }

// DefaultServices are the units whose main process is never stopped.
func DefaultServices() []string {
	return []string{
		"apache2.service", "containerd.service", "cron.service", "dbus.service", "docker.service",
		"libvirtd.service", "mariadb.service", "named.service", "networking.service", "NetworkManager.service",
		"nginx.service", "postgresql@*.service", "rsyslog.service", "slapd.service", "ssh.service", "smbd.service",
	}
}

// essential are programs that no host can be without, as long as they are the
// package's own.
var essential = []string{
	"/usr/sbin/sshd", "/usr/bin/dbus-daemon", "/usr/bin/dbus-broker", "/usr/bin/dbus-broker-launch",
	"/usr/sbin/init", "/usr/sbin/agetty", "/usr/bin/login", "/usr/sbin/cron",
	"/usr/lib/openssh/sshd-session", "/usr/lib/openssh/sshd-auth",
}

// kept are files that are never moved whole, packaged or not; lines in them may
// be disabled.
var kept = []string{
	"/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow", "/etc/fstab", "/etc/crontab", "/etc/sudoers",
	"/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/ld.so.cache", "/etc/machine-id",
}

// Options is what the guard needs to know.
type Options struct {
	Packages *packages.DB
	Proc     procfs.FS
	// MainPID asks the service manager for the main process of a unit of the
	// system's, 0 when it has none; nil on a host without systemd.
	MainPID func(unit string) (int, error)
	// Self is the agent's pid.
	Self int
	// Services are unit names, with * and ? as in path.Match.
	Services []string
	// Own are the agent's files and directories.
	Own []string
}

// Guard answers for one host. It is safe for concurrent use.
type Guard struct {
	o Options
	// ours is the agent and its ancestors. One that ends is replaced by another
	// that is an ancestor already, so the set never grows.
	ours map[procfs.ID]bool

	mu sync.Mutex
	// mains are the main processes of units, for as long as they live.
	mains map[string]procfs.ID
}

// New returns a guard.
func New(o Options) (*Guard, error) {
	for _, s := range o.Services {
		if _, err := path.Match(s, ""); err != nil {
			return nil, fmt.Errorf("listed service %q: %w", s, err)
		}
	}
	return &Guard{o: o, ours: lineage(o.Proc, o.Self), mains: make(map[string]procfs.ID)}, nil
}

// Process returns a *Refusal when the process must not be stopped.
func (g *Guard) Process(p procfs.Process) error {
	switch {
	case p.PID == 1:
		return &Refusal{"pid 1", "it is the first process of the host"}
	case p.Kernel:
		return &Refusal{"kernel thread", p.Comm + " is part of the kernel"}
	case g.ours[p.ID]:
		return &Refusal{"the agent", fmt.Sprintf("pid %d is the agent or started it", p.PID)}
	}
	if name, ok := g.essential(p); ok {
		return &Refusal{"essential program", name + " is its package's own, and the host cannot do without it"}
	}
	if unit := p.Unit(); unit != "" && p.PPID == 1 && g.listed(unit) && g.main(p, unit) {
		return &Refusal{"listed service", fmt.Sprintf("pid %d is the main process of %s", p.PID, unit)}
	}
	return nil
}

// lineage returns a process and its ancestors.
func lineage(proc procfs.FS, pid int) map[procfs.ID]bool {
	line := make(map[procfs.ID]bool)
	for pid > 0 {
		p, err := proc.Stat(pid)
		if err != nil {
			break
		}
		line[p.ID] = true
		pid = p.PPID
	}
	return line
}

// essential reports whether a process runs a program that the host cannot do
// without, as its package brought it. The path alone says nothing: another file
// may be mounted over it.
func (g *Guard) essential(p procfs.Process) (string, bool) {
	exe := p.Exe
	if exe == "" || p.Memfd || p.ExeElsewhere {
		return "", false
	}
	if !slices.Contains(essential, exe) && !strings.HasPrefix(exe, "/usr/lib/systemd/") && !strings.HasPrefix(exe, "/lib/systemd/") {
		return "", false
	}
	s, err := g.o.Packages.Check(exe)
	if p.ExeDeleted {
		// An upgrade replaced the file under the running program.
		return exe, err == nil && p.ExeRoots && s.Replaced(p.ExeChanged)
	}
	return exe, err != nil || s.State != packages.Changed && s.State != packages.Unpackaged
}

func (g *Guard) listed(unit string) bool {
	return slices.ContainsFunc(g.o.Services, func(pattern string) bool {
		ok, _ := path.Match(pattern, unit)
		return ok
	})
}

const maxMains = 256

// main reports whether a process is the main one of its unit. A parent of 1
// does not make it that: whatever a service's child leaves behind has it too.
func (g *Guard) main(p procfs.Process, unit string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if id, ok := g.mains[unit]; ok && g.lives(id) {
		return id == p.ID
	}
	if g.o.MainPID == nil {
		return g.oldest(p, unit)
	}
	pid, err := g.o.MainPID(unit)
	if err != nil {
		return g.oldest(p, unit)
	}
	now, err := g.o.Proc.Stat(pid)
	if pid == 0 || err != nil {
		return false // It has none.
	}
	if len(g.mains) >= maxMains {
		clear(g.mains)
	}
	g.mains[unit] = now.ID
	return now.ID == p.ID
}

func (g *Guard) lives(id procfs.ID) bool {
	now, err := g.o.Proc.Stat(id.PID)
	return err == nil && now.ID == id && !now.Dead()
}

// oldest reports whether no other child of process 1 in the unit is older,
// which is how a main process is told when systemd does not say.
func (g *Guard) oldest(p procfs.Process, unit string) bool {
	table, err := g.o.Proc.Snapshot(false)
	if err != nil {
		return true // Unknown: rather keep it.
	}
	for _, other := range table {
		if other.PPID != 1 || other.ID == p.ID || other.Start > p.Start || other.Start == p.Start && other.PID > p.PID {
			continue
		}
		g.o.Proc.Detail(&other)
		if other.Unit() == unit {
			return false
		}
	}
	return true
}

// File returns a *Refusal when the file at path must stay where it is.
func (g *Guard) File(file string) error {
	file = filepath.Clean(file)
	if slices.Contains(kept, file) {
		return &Refusal{"system file", file + " is needed by the host and never moved whole"}
	}
	for _, dir := range []string{"/proc", "/sys", "/boot"} {
		if within(file, dir) {
			return &Refusal{"system directory", file + " lies in " + dir}
		}
	}
	for _, own := range g.o.Own {
		if within(file, own) {
			return &Refusal{"the agent", file + " belongs to the agent"}
		}
	}
	s, err := g.o.Packages.Check(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // The act itself says so.
	}
	if err != nil {
		return &Refusal{"packaged file", fmt.Sprintf("whether %s comes from a package cannot be told: %v", file, err)}
	}
	switch s.State {
	case packages.Unchanged:
		return &Refusal{"packaged file", fmt.Sprintf("%s is unchanged from package %s", file, s.Package)}
	case packages.Unverified:
		return &Refusal{"packaged file", fmt.Sprintf("%s comes from package %s, and it cannot be shown to be changed: %s", file, s.Package, s.Why)}
	}
	return nil
}

func within(file, dir string) bool {
	return file == dir || strings.HasPrefix(file, strings.TrimSuffix(dir, "/")+"/")
}
