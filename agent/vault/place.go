package vault

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// place is a name in a directory that is held open, so that nobody can swap a
// directory above it for a link in between.
type place struct {
	dir  *os.File
	name string
	path string
	sync func(*os.File) error
}

// find opens the directory of path without following any symbolic link.
func (v *Vault) find(path string) (*place, error) {
	if !filepath.IsAbs(path) || strings.ContainsRune(path, 0) || filepath.Clean(path) != path || path == "/" {
		return nil, fmt.Errorf("%q is no clean absolute path", path)
	}
	root, err := unix.Open(v.root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: v.root, Err: err}
	}
	defer unix.Close(root)
	dir := "." + filepath.Dir(path)
	fd, err := unix.Openat2(root, dir, &unix.OpenHow{
		Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_BENEATH,
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: filepath.Dir(path), Err: err}
	}
	return &place{dir: os.NewFile(uintptr(fd), dir), name: filepath.Base(path), path: path, sync: v.sync}, nil
}

func (p *place) close() { _ = p.dir.Close() }

func (p *place) stat() (unix.Stat_t, error) {
	var st unix.Stat_t
	err := unix.Fstatat(int(p.dir.Fd()), p.name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		err = &os.PathError{Op: "stat", Path: p.path, Err: err}
	}
	return st, err
}

// open opens the regular file at the place. What is none is not opened at all:
// a pipe would block and a device may act.
func (p *place) open() (*os.File, unix.Stat_t, error) {
	st, err := p.stat()
	if err != nil {
		return nil, st, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, st, &os.PathError{Op: "open", Path: p.path, Err: ErrSpecial}
	}
	fd, err := unix.Openat(int(p.dir.Fd()), p.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOATIME|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, st, &os.PathError{Op: "open", Path: p.path, Err: err}
	}
	f := os.NewFile(uintptr(fd), p.path)
	var opened unix.Stat_t
	if err := unix.Fstat(fd, &opened); err != nil {
		_ = f.Close()
		return nil, st, &os.PathError{Op: "stat", Path: p.path, Err: err}
	}
	if opened.Dev != st.Dev || opened.Ino != st.Ino {
		_ = f.Close()
		return nil, st, &os.PathError{Op: "open", Path: p.path, Err: ErrReplaced}
	}
	return f, opened, nil
}

// leadsTo reports whether the name leads to the inode.
func (p *place) leadsTo(dev, ino uint64) (bool, error) {
	st, err := p.stat()
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && uint64(st.Dev) == dev && st.Ino == ino, err
}

// remove unlinks the name when it still leads to the inode. With an error the
// name may be gone all the same: ask leadsTo.
func (p *place) remove(dev, ino uint64) error {
	st, err := p.stat()
	if err != nil {
		return err
	}
	if uint64(st.Dev) != dev || st.Ino != ino {
		return &os.PathError{Op: "remove", Path: p.path, Err: ErrReplaced}
	}
	if err := unix.Unlinkat(int(p.dir.Fd()), p.name, 0); err != nil {
		return &os.PathError{Op: "remove", Path: p.path, Err: err}
	}
	if err := p.sync(p.dir); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("make the removal of %s durable: %w", p.path, err)
	}
	return nil
}

// temporary makes a new file beside the place.
func (p *place) temporary(id string) (*os.File, string, error) {
	name := ".cordon-" + id
	_ = unix.Unlinkat(int(p.dir.Fd()), name, 0) // What a crash left.
	fd, err := unix.Openat(int(p.dir.Fd()), name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, "", &os.PathError{Op: "create a file beside", Path: p.path, Err: err}
	}
	return os.NewFile(uintptr(fd), name), name, nil
}

// rename puts a temporary file at the place; unless force is set, nothing may
// be there.
func (p *place) rename(from string, force bool) error {
	flags := uint(unix.RENAME_NOREPLACE)
	if force {
		flags = 0
	}
	fd := int(p.dir.Fd())
	err := unix.Renameat2(fd, from, fd, p.name, flags)
	if errors.Is(err, unix.EEXIST) {
		err = ErrExists
	}
	if err != nil {
		return &os.PathError{Op: "restore", Path: p.path, Err: err}
	}
	return p.sync(p.dir)
}

func (p *place) discard(name string) { _ = unix.Unlinkat(int(p.dir.Fd()), name, 0) }
