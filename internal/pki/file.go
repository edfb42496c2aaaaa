package pki

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// WriteFile writes a file of mode 0600 that is there whole or not at all, also
// after a power loss: temporary file beside it, fsync, rename, fsync of the
// directory.
func WriteFile(path string, data []byte) error {
	return writeFile(path, data, os.Rename)
}

// createFile is WriteFile for a path that must not exist yet: of two writers,
// the second gets fs.ErrExist and changes nothing.
func createFile(path string, data []byte) error {
	return writeFile(path, data, func(temporary, path string) error {
		err := os.Link(temporary, path)
		return errors.Join(err, os.Remove(temporary))
	})
}

func writeFile(path string, data []byte, place func(temporary, path string) error) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
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
