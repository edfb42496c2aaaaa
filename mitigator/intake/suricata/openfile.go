package suricata

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cordon-security/cordon/mitigator/event"
)

// readSize is how much is read at once.
const readSize = 256 << 10

// errTruncated says that the file was cut and perhaps written anew.
var errTruncated = errors.New("the file was truncated")

// openFile is one file that is read, and how far.
type openFile struct {
	file       *os.File
	path       string
	dev, inode uint64
	lines      splitter
	// offset is where the first line begins that was not handed out.
	offset int64
	// head holds the first bytes, as far as they were read and up to headSize.
	head []byte
	buf  []byte
}

// openRegular opens a regular file; anything else is refused before it is
// opened, because opening a FIFO already has an effect on its writer.
func openRegular(path string) (*openFile, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, explain(path, err)
	}
	if err := checkRegular(path, info); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, explain(path, err)
	}
	if info, err = file.Stat(); err == nil {
		err = checkRegular(path, info)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	f := &openFile{file: file, path: path}
	f.dev, f.inode = identity(info)
	return f, nil
}

func checkRegular(path string, info fs.FileInfo) error {
	if info.Mode().IsRegular() {
		return nil
	}
	return fmt.Errorf("%s is no regular file (%s): point the source at Suricata's eve.json, or use kind suricata-socket", path, info.Mode().Type())
}

// explain says what to do about a file that cannot be opened.
func explain(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s does not exist yet; it is read as soon as Suricata makes it: %w", path, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s may not be read: let the mitigator's user join the group that owns it: %w", path, err)
	}
	return err
}

func identity(info fs.FileInfo) (dev, inode uint64) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0
	}
	return st.Dev, st.Ino
}

func (f *openFile) close() { f.file.Close() }

// size and time of the last change.
func (f *openFile) stat() (int64, time.Time, error) {
	info, err := f.file.Stat()
	if err != nil {
		return 0, time.Time{}, err
	}
	return info.Size(), info.ModTime(), nil
}

// resume goes to an offset.
func (f *openFile) resume(offset int64) error {
	f.offset, f.lines, f.head = offset, splitter{}, nil
	return f.readHead(offset)
}

// readHead extends the remembered beginning up to what was read.
func (f *openFile) readHead(read int64) error {
	want := int(min(read, headSize))
	if len(f.head) >= want {
		return nil
	}
	head := make([]byte, want)
	if _, err := f.file.ReadAt(head, 0); err != nil {
		return fmt.Errorf("read the beginning of %s: %w", f.path, err)
	}
	f.head = head
	return nil
}

// fill reads on. It returns false at the end of the file, and errTruncated when
// the file is shorter than what was read or begins differently now.
func (f *openFile) fill() (bool, error) {
	if f.buf == nil {
		f.buf = make([]byte, readSize)
	}
	at := f.offset + f.lines.held()
	n, err := f.file.ReadAt(f.buf, at)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("read %s: %w", f.path, err)
	}
	// Checked after the read, so that bytes of a file that was written anew are
	// not taken for the continuation of the old one.
	if err := f.checkUncut(at + int64(n)); err != nil {
		return false, err
	}
	if n == 0 {
		return false, nil
	}
	if err := f.readHead(at + int64(n)); err != nil {
		return false, err
	}
	f.lines.write(f.buf[:n])
	return true, nil
}

func (f *openFile) checkUncut(read int64) error {
	size, _, err := f.stat()
	if err != nil {
		return fmt.Errorf("stat %s: %w", f.path, err)
	}
	if size < read {
		return errTruncated
	}
	now := make([]byte, len(f.head))
	if n, err := f.file.ReadAt(now, 0); n < len(now) && err != nil {
		return errTruncated
	}
	if !bytes.Equal(now, f.head) {
		return errTruncated
	}
	return nil
}

// next hands out the next whole line and a function for its key.
func (f *openFile) next(source string) (line, func([]byte) event.Key, bool) {
	l, ok := f.lines.next()
	if !ok {
		return line{}, nil, false
	}
	key := f.key(source)
	f.offset += l.size + 1
	return l, key, true
}

// rest hands out a last line without an end.
func (f *openFile) rest(source string) (line, func([]byte) event.Key, bool) {
	l, ok := f.lines.rest()
	key := f.key(source)
	f.offset += l.size
	return l, key, ok
}

func (f *openFile) key(source string) func([]byte) event.Key {
	inode, at := f.inode, uint64(f.offset)
	return func(raw []byte) event.Key { return event.FileKey(source, inode, at, raw) }
}

// cursor points behind the last line that was handed out.
func (f *openFile) cursor() cursor {
	c := cursor{Dev: f.dev, Inode: f.inode, Offset: f.offset, HeadLen: int(min(f.offset, headSize))}
	if c.HeadLen > 0 {
		sum := sha256.Sum256(f.head[:c.HeadLen])
		c.HeadSum = sum[:]
	}
	return c
}
