package vault

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const maxXattrs = 64 << 10

// describe fills in what fstat, xattrs and flags say about an open file.
func describe(i *Item, f *os.File, st *unix.Stat_t) error {
	i.UID, i.GID, i.Mode = st.Uid, st.Gid, st.Mode&0o7777
	i.Access, i.Modify = stamp(st.Atim), stamp(st.Mtim)
	i.Names, i.Size, i.Dev, i.Ino, i.Change = uint64(st.Nlink), st.Size, uint64(st.Dev), st.Ino, stamp(st.Ctim)
	flags, err := getFlags(f)
	if err != nil {
		return err
	}
	i.Flags = flags
	i.Xattrs, err = xattrs(int(f.Fd()))
	return err
}

func stamp(t unix.Timespec) time.Time { return time.Unix(t.Sec, t.Nsec).UTC() }

func xattrs(fd int) (map[string][]byte, error) {
	buf := make([]byte, maxXattrs)
	n, err := unix.Flistxattr(fd, buf)
	if errors.Is(err, unix.ENOTSUP) || n == 0 && err == nil {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list extended attributes: %w", err)
	}
	all := make(map[string][]byte)
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		value := make([]byte, maxXattrs)
		n, err := unix.Fgetxattr(fd, name, value)
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read extended attribute %s: %w", name, err)
		}
		all[name] = value[:n:n]
	}
	return all, nil
}

// getFlags returns 0 where the file system has no flags.
func getFlags(f *os.File) (uint32, error) {
	flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the flags of chattr: %w", err)
	}
	return flags, nil
}

// Flags of linux/fs.h.
const (
	flagSync      = 0x08
	flagImmutable = 0x10
	flagAppend    = 0x20
	flagNoDump    = 0x40
	flagNoAtime   = 0x80
)

// held are the flags that forbid to remove a file.
const held = flagImmutable | flagAppend

// settable are the flags that chattr(1) can set and that mean something again
// on a restored file.
const settable = held | flagNoDump | flagNoAtime | flagSync

func setFlags(f *os.File, flags uint32) error {
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, int(flags)); err != nil {
		return fmt.Errorf("set the flags of chattr: %w", err)
	}
	return nil
}

// applyAttributes gives a file owner, mode, attributes and times, flags last.
func applyAttributes(i Item, f *os.File) error {
	fd := int(f.Fd())
	if err := unix.Fchown(fd, int(i.UID), int(i.GID)); err != nil {
		return fmt.Errorf("set the owner: %w", err)
	}
	// After the owner: changing that drops the set-id bits and capabilities.
	if err := unix.Fchmod(fd, i.Mode); err != nil {
		return fmt.Errorf("set the mode: %w", err)
	}
	for name, value := range i.Xattrs {
		if err := unix.Fsetxattr(fd, name, value, 0); err != nil {
			return fmt.Errorf("set extended attribute %s: %w", name, err)
		}
	}
	times := []unix.Timespec{unix.NsecToTimespec(i.Access.UnixNano()), unix.NsecToTimespec(i.Modify.UnixNano())}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), times, 0); err != nil {
		return fmt.Errorf("set the times: %w", err)
	}
	return nil
}

// applyFlags sets what chattr(1) had set.
func applyFlags(i Item, f *os.File) error {
	want := i.Flags & settable
	if want == 0 {
		return nil
	}
	now, err := getFlags(f)
	if err != nil {
		return err
	}
	return setFlags(f, now|want)
}
