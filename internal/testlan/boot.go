package testlan

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	bootReady = "ready\n"
	hostPath  = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// bootConfig is what a host's first process reads from its standard input.
type bootConfig struct {
	Host     string
	Scratch  string
	Self     string
	Systemd  bool
	Keep     bool
	Cgroup   bool
	Binds    []Bind
	ReadOnly []ReadOnlyMount
	DNS      []netip.Addr
	Names    map[string]netip.Addr
}

// runInit is a host's first process: it makes the host's files and then
// becomes systemd, or stays to reap.
func runInit([]string) error {
	if os.Getpid() != 1 {
		return errors.New("not the first process of a PID namespace")
	}
	report := os.NewFile(3, "report")
	unix.CloseOnExec(3)
	if err := bootHost(report); err != nil {
		fmt.Fprint(report, err)
		return err
	}
	return nil
}

func bootHost(report *os.File) error {
	config, err := io.ReadAll(os.Stdin)
	if err != nil {
		return fmt.Errorf("read options: %w", err)
	}
	var c bootConfig
	if err := json.Unmarshal(config, &c); err != nil {
		return fmt.Errorf("read options: %w", err)
	}
	if err := c.makeRoot(); err != nil {
		return err
	}
	if err := c.makeFiles(); err != nil {
		return err
	}
	if err := detachStdio(); err != nil {
		return err
	}
	if c.Systemd {
		return execSystemd(report, c.Keep)
	}
	if _, err := report.WriteString(bootReady); err != nil {
		return err
	}
	report.Close()
	reap()
	return nil
}

// mount is one call of mount(2) below the new root.
type mount struct {
	source, target, kind string
	flags                uintptr
	data                 string
}

// makeRoot builds the host's file tree and makes it the root.
func (c *bootConfig) makeRoot() error {
	root := filepath.Join(c.Scratch, "root")
	if err := apply("", []mount{
		{target: "/", flags: unix.MS_REC | unix.MS_PRIVATE},
		{"cordon-lan", c.Scratch, "tmpfs", 0, "mode=755"},
	}); err != nil {
		return err
	}
	for _, d := range []string{"root", "upper", "work"} {
		if err := os.Mkdir(filepath.Join(c.Scratch, d), 0o755); err != nil {
			return err
		}
	}
	layers := fmt.Sprintf("lowerdir=/,upperdir=%[1]s/upper,workdir=%[1]s/work", c.Scratch)
	if err := apply("", []mount{{"cordon-lan", root, "overlay", 0, layers}}); err != nil {
		return err
	}
	if err := apply(root, []mount{
		{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"sysfs", "/sys", "sysfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_RDONLY, ""},
		{"dev", "/dev", "tmpfs", unix.MS_NOSUID, "mode=755,size=1m"},
		{"run", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=755"},
		{"tmp", "/tmp", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
	}); err != nil {
		return err
	}
	if err := c.mountCgroup(root); err != nil {
		return err
	}
	if err := makeDev(root); err != nil {
		return err
	}
	if err := c.makeMounts(root); err != nil {
		return err
	}
	if err := protectKernelSettings(root); err != nil {
		return err
	}
	return pivot(root)
}

func apply(root string, mounts []mount) error {
	for _, m := range mounts {
		target := filepath.Join(root, m.target)
		if root != "" {
			if err := os.MkdirAll(target, 0o755); err != nil && !errors.Is(err, unix.EROFS) {
				return err
			}
		}
		if err := unix.Mount(m.source, target, m.kind, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.kind, target, err)
		}
	}
	return nil
}

func (c *bootConfig) mountCgroup(root string) error {
	if !c.Cgroup {
		return nil
	}
	return apply(root, []mount{{"cgroup2", "/sys/fs/cgroup", "cgroup2", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""}})
}

func makeDev(root string) error {
	dev := filepath.Join(root, "dev")
	nodes := map[string]uint64{
		"null": unix.Mkdev(1, 3), "zero": unix.Mkdev(1, 5), "full": unix.Mkdev(1, 7),
		"random": unix.Mkdev(1, 8), "urandom": unix.Mkdev(1, 9), "tty": unix.Mkdev(5, 0),
		// systemd writes to the console; the machine's is not the host's.
		"console": unix.Mkdev(1, 3),
	}
	for name, number := range nodes {
		path := filepath.Join(dev, name)
		if err := unix.Mknod(path, unix.S_IFCHR|0o666, int(number)); err != nil {
			return fmt.Errorf("make %s: %w", path, err)
		}
		if err := os.Chmod(path, 0o666); err != nil {
			return err
		}
	}
	links := map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1",
		"stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx",
	}
	for name, target := range links {
		if err := os.Symlink(target, filepath.Join(dev, name)); err != nil {
			return err
		}
	}
	return apply(dev, []mount{
		{"devpts", "/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620"},
		{"shm", "/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
	})
}

func (c *bootConfig) makeMounts(root string) error {
	self := Bind{Source: c.Self, Target: selfPath}
	for _, b := range append([]Bind{self}, c.Binds...) {
		if err := b.mount(root); err != nil {
			return err
		}
	}
	for _, m := range c.ReadOnly {
		if err := m.mount(root); err != nil {
			return err
		}
	}
	return nil
}

func (b Bind) mount(root string) error {
	if b.Target == "" {
		b.Target = b.Source
	}
	info, err := os.Stat(b.Source)
	if err != nil {
		return fmt.Errorf("bind %s: %w", b.Source, err)
	}
	target := filepath.Join(root, b.Target)
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return fmt.Errorf("bind %s: %w", b.Source, err)
	}
	if err := makeTarget(target, info.IsDir()); err != nil {
		return fmt.Errorf("bind %s: %w", b.Source, err)
	}
	if err := unix.Mount(b.Source, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind %s: %w", b.Source, err)
	}
	if b.Writable {
		return nil
	}
	if err := unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("bind %s read-only: %w", b.Source, err)
	}
	return nil
}

func makeTarget(path string, dir bool) error {
	if dir {
		return os.MkdirAll(path, 0o755)
	}
	f, err := os.OpenFile(path, os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

func (m ReadOnlyMount) mount(root string) error {
	if err := apply(root, []mount{{"cordon-lan-image", m.Path, "tmpfs", unix.MS_NODEV, "mode=755"}}); err != nil {
		return err
	}
	base := filepath.Join(root, m.Path)
	for name, source := range m.Files {
		content, err := os.ReadFile(source)
		if err != nil {
			return fmt.Errorf("fill %s: %w", m.Path, err)
		}
		path := filepath.Join(base, filepath.Join("/", name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("fill %s: %w", m.Path, err)
		}
		if err := os.WriteFile(path, content, 0o755); err != nil {
			return fmt.Errorf("fill %s: %w", m.Path, err)
		}
	}
	// The file system itself becomes read-only, not only this mount of it.
	if err := unix.Mount("", base, "", unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NODEV, ""); err != nil {
		return fmt.Errorf("make %s read-only: %w", m.Path, err)
	}
	return nil
}

// protectKernelSettings keeps the host from changing settings of the whole
// machine. Those below /proc/sys/net are the host's own and stay writable.
func protectKernelSettings(root string) error {
	sys := filepath.Join(root, "proc/sys")
	steps := []struct {
		path  string
		flags uintptr
	}{
		{sys, unix.MS_BIND},
		{sys, unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY},
		{filepath.Join(sys, "net"), unix.MS_BIND},
		{filepath.Join(sys, "net"), unix.MS_BIND | unix.MS_REMOUNT},
		{filepath.Join(root, "proc/sysrq-trigger"), unix.MS_BIND},
		{filepath.Join(root, "proc/sysrq-trigger"), unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY},
	}
	for _, s := range steps {
		// A kernel may be built without some of these.
		if _, err := os.Stat(s.path); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := unix.Mount(s.path, s.path, "", s.flags, ""); err != nil {
			return fmt.Errorf("protect %s: %w", s.path, err)
		}
	}
	return nil
}

func pivot(root string) error {
	const old = ".machine"
	if err := os.MkdirAll(filepath.Join(root, old), 0o700); err != nil {
		return err
	}
	if err := unix.PivotRoot(root, filepath.Join(root, old)); err != nil {
		return fmt.Errorf("change root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	if err := unix.Unmount("/"+old, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("let go of the machine's files: %w", err)
	}
	return os.Remove("/" + old)
}

// makeFiles writes what makes a host out of a copy of the machine.
func (c *bootConfig) makeFiles() error {
	if err := unix.Sethostname([]byte(c.Host)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	id := make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		return err
	}
	hosts := "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 " + c.Host + "\n"
	for _, name := range slices.Sorted(maps.Keys(c.Names)) {
		hosts += c.Names[name].String() + " " + name + "\n"
	}
	var resolv strings.Builder
	for _, server := range c.DNS {
		fmt.Fprintf(&resolv, "nameserver %s\n", server)
	}
	files := map[string]string{
		markPath:           c.Host + "\n",
		"/etc/hostname":    c.Host + "\n",
		"/etc/machine-id":  hex.EncodeToString(id) + "\n",
		"/etc/hosts":       hosts,
		"/etc/resolv.conf": resolv.String(),
		"/etc/fstab":       "",
	}
	for path, content := range files {
		if err := replaceFile(path, content); err != nil {
			return err
		}
	}
	if err := os.MkdirAll("/run/lock", 0o1777); err != nil {
		return err
	}
	if !c.Systemd {
		return nil
	}
	return writeUnits()
}

// replaceFile writes path anew, so that a symbolic link there is not followed.
func replaceFile(path, content string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.WriteFile(path, []byte(content), 0o644)
}

// detachStdio leaves the machine's terminal and files.
func detachStdio() error {
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	for fd := range 3 {
		if err := unix.Dup3(int(null.Fd()), fd, 0); err != nil {
			return fmt.Errorf("detach from the terminal: %w", err)
		}
	}
	return nil
}

// reap waits for every orphan of the host, for ever.
func reap() {
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	for range children {
		for {
			pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
			if pid <= 0 && !errors.Is(err, unix.EINTR) {
				break
			}
		}
	}
}
