package durablefile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Write writes a file of mode 0600 that is there whole or not at all, also
// after a power loss: temporary file beside it, fsync, rename, fsync of the
// directory.
func Write(path string, data []byte) error {
	return write(path, data, os.Rename)
}

// Create is Write for a path that must not exist yet: of two writers, the
// second gets fs.ErrExist and changes nothing.
func Create(path string, data []byte) error {
	return write(path, data, func(temporary, path string) error {
		err := os.Link(temporary, path)
		return errors.Join(err, os.Remove(temporary))
	})
}

func write(path string, data []byte, place func(temporary, path string) error) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, temporaryPrefix+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("write %s: %w", path, err)
			if e := os.Remove(f.Name()); e != nil && !errors.Is(e, fs.ErrNotExist) {
				err = errors.Join(err, e)
			}
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = place(f.Name(), path); err != nil {
		return err
	}
	return SyncDir(dir)
}

// SyncDir makes renames, links and removals in dir durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

const temporaryPrefix = "."

// RemoveTemporary drops what a crash left of Write and Create in dir, and every
// other file whose name begins with a dot. Nobody may be writing in dir then.
func RemoveTemporary(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() && strings.HasPrefix(e.Name(), temporaryPrefix) {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}
