package sqlite

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// DefaultReserve is how much room is kept beside the database, in bytes:
	// measured, several hundred containments or releases.
	DefaultReserve = 8 << 20
	// reserveStep is how much of it is given up at a time: whoever filled the
	// disk takes what is given up too, so no more than one update needs.
	reserveStep = 256 << 10
	// refillPause is how often a reserve that was spent is tried to be filled.
	refillPause = time.Second
)

// reserve is a file of no content beside the database. On a full disk it is cut
// short, step by step, to make room for what cannot wait. One goroutine at a time
// may change it.
type reserve struct {
	path string
	size int64
	left atomic.Int64
	// why says what kept the last try from filling it, next is when it is tried again.
	why  error
	next time.Time
}

func newReserve(database string, size int64) *reserve {
	r := &reserve{path: database + "-reserve", size: size}
	if st, err := os.Stat(r.path); err == nil {
		r.left.Store(min(st.Size(), size))
	}
	return r
}

func (r *reserve) whole() bool { return r.left.Load() >= r.size }

// fill makes the reserve whole when the disk has that much room and a quarter
// more: if it took the last of it, the disk would be full again at once. It
// returns why the reserve is not whole.
func (r *reserve) fill(now time.Time) error {
	if r.whole() {
		return nil
	}
	if !now.Before(r.next) {
		r.next = now.Add(refillPause)
		r.why = r.tryFill()
	}
	return r.why
}

func (r *reserve) tryFill() error {
	var fs unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(r.path), &fs); err != nil {
		return fmt.Errorf("free space beside %s: %w", r.path, err)
	}
	free, wanted := int64(fs.Bavail)*fs.Bsize, r.size-r.left.Load()+r.size/4
	if free < wanted {
		return fmt.Errorf("%d bytes are free, %d are wanted: %w", free, wanted, syscall.ENOSPC)
	}
	if err := r.allocate(); err != nil {
		return errors.Join(fmt.Errorf("reserve room in %s: %w", r.path, err), r.cut(r.left.Load()))
	}
	r.left.Store(r.size)
	return nil
}

func (r *reserve) allocate() error {
	f, err := os.OpenFile(r.path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	// A signal interrupts fallocate(2) on tmpfs, and the runtime sends itself many.
	for range 10 {
		if err = unix.Fallocate(int(f.Fd()), 0, 0, r.size); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EOPNOTSUPP) {
		return r.write(f)
	}
	return err
}

// write allocates by writing, for file systems without fallocate(2).
func (r *reserve) write(f *os.File) error {
	block := make([]byte, reserveStep)
	for i := range block {
		block[i] = byte(i*7 + i>>8) // not zeros, of which some file systems keep none
	}
	for at := int64(0); at < r.size; at += reserveStep {
		if _, err := f.WriteAt(block[:min(reserveStep, r.size-at)], at); err != nil {
			return err
		}
	}
	return f.Sync()
}

// spend gives up one step. It returns false when nothing is left.
func (r *reserve) spend() bool {
	left := r.left.Load()
	if left <= 0 {
		return false
	}
	left = max(0, left-reserveStep)
	if err := r.cut(left); err != nil {
		return false
	}
	r.left.Store(left)
	r.why = errSpent
	return true
}

var errSpent = errors.New("urgent updates have used some of it")

func (r *reserve) cut(to int64) error {
	err := os.Truncate(r.path, to)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// noRoom reports whether the directory cannot take one more small file: what the
// engine's own errors do not tell (a file that cannot be opened, an I/O error
// for a quota).
func noRoom(dir string) bool {
	f, err := os.CreateTemp(dir, ".room-*")
	if err == nil {
		_, werr := f.Write(make([]byte, 64<<10))
		err = errors.Join(werr, f.Sync(), f.Close(), os.Remove(f.Name()))
	}
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
