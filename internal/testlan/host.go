package testlan

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// namespaces that every host has of its own. Its control-group namespace comes
// beside them, when the machine has cgroup version 2.
const hostNamespaces = unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC

// Bind shows a file or folder of the machine inside a host.
type Bind struct {
	// Source is a path of the machine.
	Source string
	// Target is a path in the host, without symbolic links. It is made when it
	// is missing. Empty: the same as Source.
	Target string
	// Writable lets the host change what the machine has there.
	Writable bool
}

// ReadOnlyMount is a file system of its own in a host that nobody in the host
// can write to, as of a mounted image.
type ReadOnlyMount struct {
	// Path is where it is mounted, without symbolic links.
	Path string
	// Files are copied onto it before it becomes read-only: path on it to path
	// of the machine. They are executable for everybody.
	Files map[string]string
}

// HostOptions says how a host is made. The zero value is a plain host.
type HostOptions struct {
	// Systemd boots systemd as the host's PID 1, with journald, and with cron
	// where the machine has it; wait with WaitSystemd.
	Systemd bool
	// Binds are mounted before the host's first process starts.
	Binds []Bind
	// ReadOnly are file systems made for this host.
	ReadOnly []ReadOnlyMount
	// MAC is the hardware address of the host's first link. Nil: one that is
	// the same in every run, made from the host's and the link's name.
	MAC net.HardwareAddr
	// DNS is written to the host's /etc/resolv.conf.
	DNS []netip.Addr
	// Names are written to the host's /etc/hosts.
	Names map[string]netip.Addr
}

// Host is a machine on the LAN. It ends with the LAN.
type Host struct {
	lan  *LAN
	name string
	o    HostOptions

	init      *exec.Cmd
	cgroup    string
	cgroupDir *os.File // where programs go, nil without cgroup version 2
	inside    *thread  // in all of the host's namespaces
	netns     netns.NsHandle
	links     *netlink.Handle
	outside   struct {
		sync.Mutex
		thread *thread // in the host's network and files, not in its PID namespace
	}
	macUsed bool // guarded by lan.mu
}

// AddHost makes a host and waits until its first process runs. It has a
// loopback interface that is up, and no other link.
func (l *LAN) AddHost(ctx context.Context, name string, o HostOptions) (*Host, error) {
	if !validName.MatchString(name) {
		return nil, fmt.Errorf("host name %q: use up to 32 small letters, digits and hyphens", name)
	}
	if l.Host(name) != nil {
		return nil, fmt.Errorf("add host %s: there is one of that name", name)
	}
	h := &Host{lan: l, name: name, o: o}
	start := time.Now()
	if err := h.boot(ctx); err != nil {
		return nil, fmt.Errorf("add host %s: %w", name, err)
	}
	l.log.Debug("host added", "host", name, "pid", h.PID(), "took", time.Since(start))
	return h, nil
}

// Name returns the host's name.
func (h *Host) Name() string { return h.name }

// PID returns the process id, on the machine, of the host's first process.
func (h *Host) PID() int { return h.init.Process.Pid }

// Path returns where the machine sees the host's path p. An absolute symbolic
// link on the way would lead out of the host: ReadFile, WriteFile and Do have
// no such trap.
func (h *Host) Path(p string) string {
	return fmt.Sprintf("/proc/%d/root%s", h.PID(), filepath.Join("/", p))
}

func (h *Host) boot(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	cgroup, err := makeCgroup(h.lan.name, h.name)
	if err != nil {
		return err
	}
	if h.o.Systemd && cgroup == "" {
		return errors.New("systemd needs cgroup version 2 mounted on this machine (mount -t cgroup2 none /sys/fs/cgroup/unified)")
	}
	h.cgroup = cgroup
	if err := h.lan.record(func(s *state) { s.host(h.name).Cgroup = cgroup }); err != nil {
		return err
	}
	if err := h.startInit(); err != nil {
		return err
	}
	if err := h.lan.record(func(s *state) { s.host(h.name).Init = identify(h.PID()) }); err != nil {
		return errors.Join(err, h.init.Process.Kill())
	}
	if err := h.attach(); err != nil {
		return errors.Join(err, h.init.Process.Kill())
	}
	h.lan.mu.Lock()
	defer h.lan.mu.Unlock()
	h.lan.hosts = append(h.lan.hosts, h)
	return nil
}

// startInit starts the host's first process and waits for its report.
func (h *Host) startInit() error {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	config, err := json.Marshal(bootConfig{
		Host: h.name, Scratch: filepath.Join(h.lan.dir, scratchDir), Self: exe,
		Systemd: h.o.Systemd, Keep: h.lan.keep, Cgroup: h.cgroup != "", Binds: h.o.Binds,
		ReadOnly: h.o.ReadOnly, DNS: h.o.DNS, Names: h.o.Names,
	})
	if err != nil {
		return fmt.Errorf("encode the host's options: %w", err)
	}
	report, reportW, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	defer report.Close()
	h.init = exec.Command(exe)
	h.init.Env = []string{actorEnv + "=" + initActor, "PATH=" + hostPath}
	h.init.Stdin = bytes.NewReader(config)
	h.init.ExtraFiles = []*os.File{reportW}
	h.init.SysProcAttr = &syscall.SysProcAttr{Cloneflags: hostNamespaces, Setsid: true, Pdeathsig: h.lan.deathSignal()}
	if h.cgroup != "" {
		dir, err := os.Open(h.cgroup)
		if err != nil {
			reportW.Close()
			return fmt.Errorf("open control group: %w", err)
		}
		defer dir.Close()
		h.init.SysProcAttr.UseCgroupFD = true
		h.init.SysProcAttr.CgroupFD = int(dir.Fd())
		h.init.SysProcAttr.Unshareflags = unix.CLONE_NEWCGROUP
	}
	err = h.lan.spawner.do(h.init.Start)
	reportW.Close()
	if err != nil {
		return fmt.Errorf("start its first process: %w", err)
	}
	go func() { _ = h.init.Wait() }() // reaped, whatever it says at its end
	said, err := io.ReadAll(report)
	if err != nil {
		return fmt.Errorf("read the report of its first process: %w", err)
	}
	switch string(said) {
	case bootReady:
		return nil
	case "":
		return errors.New("its first process ended without a word: does main or TestMain call testlan.RunActor first?")
	default:
		return errors.New(string(said))
	}
}

// deathSignal is what hosts get when the process that made the LAN ends.
func (l *LAN) deathSignal() syscall.Signal {
	if l.keep {
		return 0
	}
	return syscall.SIGKILL
}

// attach opens what this process needs to work in the host.
func (h *Host) attach() error {
	ns, err := netns.GetFromPid(h.PID())
	if err != nil {
		return fmt.Errorf("open its network: %w", err)
	}
	h.netns = ns
	machine, err := netns.GetFromPid(os.Getpid())
	if err != nil {
		return fmt.Errorf("open the machine's network: %w", err)
	}
	defer machine.Close()
	if ns.Equal(machine) {
		return errors.New("it would be on the machine's own network")
	}
	if h.links, err = netlink.NewHandleAt(ns); err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	flags := hostNamespaces
	if h.cgroup != "" {
		flags |= unix.CLONE_NEWCGROUP
	}
	if h.inside, err = newThread(func() error { return enter(h.PID(), flags) }); err != nil {
		return err
	}
	if err := h.openCgroup(); err != nil {
		return err
	}
	return h.quietNetwork()
}

// release gives up what this process holds of the host.
func (h *Host) release() {
	if h.inside != nil {
		h.inside.close()
	}
	h.outside.Lock()
	if h.outside.thread != nil {
		h.outside.thread.close()
	}
	h.outside.Unlock()
	if h.cgroupDir != nil {
		h.cgroupDir.Close()
	}
	if h.links != nil {
		h.links.Close()
	}
	if h.netns > 0 {
		h.netns.Close()
	}
}
