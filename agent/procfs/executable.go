package procfs

import (
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// executable reads what a process runs, and by which name this program sees it.
func (fs FS) executable(p *Process, dir string) {
	p.Exe, p.ExeFile, p.ExeDeleted, p.ExeElsewhere, p.Memfd, p.ExeRoots, p.ExeChanged = "", FileID{}, false, false, false, false, time.Time{}
	link, err := os.Readlink(dir + "/exe")
	if err != nil {
		return
	}
	p.Exe = link
	var st syscall.Stat_t
	if syscall.Stat(dir+"/exe", &st) != nil {
		return
	}
	p.ExeFile = FileID{Dev: uint64(st.Dev), Ino: st.Ino}
	p.ExeChanged = time.Unix(st.Ctim.Unix())
	p.ExeRoots = st.Uid == 0 && st.Mode&0o022 == 0
	name, removed := strings.CutSuffix(link, " (deleted)")
	switch {
	case st.Nlink > 0 && leads(link, p.ExeFile):
	case st.Nlink == 0 || removed:
		p.Exe, p.ExeDeleted = name, true
		p.Memfd = st.Nlink == 0 && strings.HasPrefix(name, "/memfd:")
	default:
		if at := locate(dir); at != "" && leads(at, p.ExeFile) {
			p.Exe = at
		} else {
			p.ExeElsewhere = true
		}
	}
}

// Began is what a process ran that was started by an absolute name, as the process
// sees it: the file that the name leads to now, or the name of one that is gone.
func (fs FS) Began(id ID, name string) Process {
	p := Process{ID: id, Exe: name}
	fd, err := unix.Open(fs.thread(id.PID)+"/root"+name, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		p.ExeDeleted = true
		return p
	}
	defer unix.Close(fd)
	var st syscall.Stat_t
	link, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil || syscall.Fstat(fd, &st) != nil {
		return p
	}
	p.Exe, p.ExeFile = link, FileID{Dev: uint64(st.Dev), Ino: st.Ino}
	p.ExeChanged = time.Unix(st.Ctim.Unix())
	p.ExeRoots = st.Uid == 0 && st.Mode&0o022 == 0
	p.ExeElsewhere = !leads(link, p.ExeFile)
	return p
}

// leads reports whether a name leads to a file.
func leads(name string, file FileID) bool {
	var st syscall.Stat_t
	return syscall.Lstat(name, &st) == nil && uint64(st.Dev) == file.Dev && st.Ino == file.Ino
}

// Exe reads the inode of the executable; zero when it cannot be read.
func (fs FS) Exe(pid int) FileID {
	var st syscall.Stat_t
	if syscall.Stat(fs.File(pid, "exe"), &st) != nil && syscall.Stat(fs.thread(pid)+"/exe", &st) != nil {
		return FileID{}
	}
	return FileID{Dev: uint64(st.Dev), Ino: st.Ino}
}

// Settled reports whether a process runs what is known of it still, by the same
// name: what Detail read of its executable holds.
func (fs FS) Settled(p Process) bool {
	return p.Exe != "" && !p.ExeDeleted && !p.ExeElsewhere && fs.Exe(p.PID) == p.ExeFile && leads(p.Exe, p.ExeFile)
}

// OpenExe opens the executable of a process, also one that no name leads to.
func (fs FS) OpenExe(pid int) (*os.File, error) {
	f, err := os.OpenFile(fs.thread(pid)+"/exe", os.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the executable of pid %d: %w", pid, err)
	}
	return f, nil
}

// mount is a line of proc_pid_mountinfo(5).
type mount struct {
	id, device string
	// root is what of the file system is mounted at point.
	root, point string
}

// locate finds the name that this program sees for an executable on a mount of
// another namespace, as one that is bound over another file; "" without one.
func locate(dir string) string {
	fd, err := unix.Open(dir+"/exe", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	link, err := os.Readlink(dir + "/exe")
	if err != nil {
		return ""
	}
	info, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(fd))
	if err != nil {
		return ""
	}
	_, id, _ := strings.Cut(string(info), "mnt_id:")
	id, _, _ = strings.Cut(strings.TrimSpace(id), "\n")
	for _, theirs := range mounts(dir) {
		if theirs.id != id {
			continue
		}
		rest, ok := below(link, theirs.point)
		if !ok {
			return ""
		}
		return visible(theirs.device, path.Join(theirs.root, rest))
	}
	return ""
}

// visible returns the name that this program sees for a path within the file
// system of a device.
func visible(device, inner string) string {
	for _, ours := range mounts("/proc/self") {
		if rest, ok := below(inner, ours.root); ok && ours.device == device {
			return path.Join(ours.point, rest)
		}
	}
	return ""
}

func mounts(dir string) []mount {
	data, err := os.ReadFile(dir + "/mountinfo")
	if err != nil {
		return nil
	}
	var all []mount
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 5 {
			all = append(all, mount{id: f[0], device: f[2], root: unescape(f[3]), point: unescape(f[4])})
		}
	}
	return all
}

// unescape undoes the kernel's octal form of blanks and backslashes.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// below returns what of a path lies below a directory, or is it.
func below(name, dir string) (rest string, ok bool) {
	if name == dir {
		return "", true
	}
	return strings.CutPrefix(name, strings.TrimSuffix(dir, "/")+"/")
}
