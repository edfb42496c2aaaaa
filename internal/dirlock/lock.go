// Package dirlock keeps two processes from working in one directory at a time.
package dirlock

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrInUse says that another process, or another lock of this one, has the
// directory.
var ErrInUse = errors.New("another process works in the directory")

// name is the file that is locked, flock(2). It is never removed: a lock on a
// removed file keeps nobody out.
const name = "lock"

// Lock is a directory that is held. The kernel gives it up when the process
// ends, however that happens.
type Lock struct{ file *os.File }

// Try holds a directory, which must exist. Where it is held already, the error
// wraps ErrInUse.
func Try(dir string) (*Lock, error) {
	return hold(dir, unix.LOCK_EX|unix.LOCK_NB)
}

// Wait holds a directory, which must exist, as soon as nobody else does.
func Wait(dir string) (*Lock, error) {
	return hold(dir, unix.LOCK_EX)
}

func hold(dir string, how int) (*Lock, error) {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	err = unix.Flock(int(f.Fd()), how)
	for errors.Is(err, unix.EINTR) {
		err = unix.Flock(int(f.Fd()), how)
	}
	if err == nil {
		return &Lock{f}, nil
	}
	_ = f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = ErrInUse
	}
	return nil, fmt.Errorf("lock %s: %w", dir, err)
}

// Release gives the directory up.
func (l *Lock) Release() error { return l.file.Close() }
