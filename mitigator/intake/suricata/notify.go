package suricata

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// watcher wakes its reader when a file or the names in its directory change
// (inotify(7)). What an event says is not read: the reader looks for itself, so
// an overflowing queue loses nothing.
type watcher struct {
	file *os.File
	wake chan struct{}
	// watched is the descriptor of the watch on the open file; -1 for none.
	watched int
	// successor is the inode that next watches.
	successor uint64
}

func newWatcher() (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w (raise fs.inotify.max_user_instances)", err)
	}
	w := &watcher{file: os.NewFile(uintptr(fd), "inotify"), wake: make(chan struct{}, 1), watched: -1}
	go w.read()
	return w, nil
}

// read ends when the watcher is closed.
func (w *watcher) read() {
	buf := make([]byte, 16<<10)
	for {
		if _, err := w.file.Read(buf); err != nil {
			return
		}
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// names watches for files that come and go beside path.
func (w *watcher) names(path string) error {
	return w.add(filepath.Dir(path), unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_MOVED_FROM|unix.IN_DELETE|unix.IN_ATTRIB)
}

// contents watches the open file, under whatever name it has by now, instead of
// the one before.
func (w *watcher) contents(f *os.File) error {
	conn, err := w.file.SyscallConn()
	if err != nil {
		return err
	}
	if w.watched >= 0 {
		old := w.watched
		w.watched = -1
		// The watch is gone already when the file was deleted.
		_ = conn.Control(func(fd uintptr) { _, _ = unix.InotifyRmWatch(int(fd), uint32(old)) })
	}
	return conn.Control(func(fd uintptr) {
		wd, addErr := unix.InotifyAddWatch(int(fd), fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.IN_MODIFY)
		if addErr == nil {
			w.watched = wd
		}
	})
}

// next watches the file at path for its first record, while its predecessor is
// still read. It returns false when the file is watched already, or cannot be.
func (w *watcher) next(path string) bool {
	before := w.successor
	info, err := os.Stat(path)
	if err != nil {
		return false
	}
	_, w.successor = identity(info)
	return w.successor != before && w.add(path, unix.IN_MODIFY) == nil
}

func (w *watcher) add(path string, mask uint32) error {
	conn, err := w.file.SyscallConn()
	if err != nil {
		return err
	}
	var addErr error
	if err := conn.Control(func(fd uintptr) { _, addErr = unix.InotifyAddWatch(int(fd), path, mask) }); err != nil {
		return err
	}
	if addErr != nil {
		return fmt.Errorf("watch %s: %w", path, addErr)
	}
	return nil
}

func (w *watcher) close() { w.file.Close() }
