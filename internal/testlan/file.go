package testlan

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// WriteFile writes a file of the host with exactly this mode, and makes the
// folders above it.
func (h *Host) WriteFile(path string, content []byte, mode fs.FileMode) error {
	err := h.Do(func() error {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, content, mode); err != nil {
			return err
		}
		return os.Chmod(path, mode)
	})
	if err != nil {
		return fmt.Errorf("write on %s: %w", h.name, err)
	}
	return nil
}

// CopyFile copies a file of the machine into the host.
func (h *Host) CopyFile(machinePath, path string, mode fs.FileMode) error {
	content, err := os.ReadFile(machinePath)
	if err != nil {
		return fmt.Errorf("copy to %s: %w", h.name, err)
	}
	return h.WriteFile(path, content, mode)
}

// AppendFile appends to a file of the host in one write, and makes it when it
// is missing.
func (h *Host) AppendFile(path string, content []byte) error {
	err := h.Do(func() error {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		if err != nil {
			return err
		}
		if _, err := f.Write(content); err != nil {
			f.Close()
			return err
		}
		return f.Close()
	})
	if err != nil {
		return fmt.Errorf("append on %s: %w", h.name, err)
	}
	return nil
}

// ReadFile reads a file of the host, at most 64 MiB of it.
func (h *Host) ReadFile(path string) ([]byte, error) {
	var content []byte
	err := h.Do(func() error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		content, err = io.ReadAll(io.LimitReader(f, 64<<20))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read on %s: %w", h.name, err)
	}
	return content, nil
}

// Stat describes a file of the host. A symbolic link is not followed.
func (h *Host) Stat(path string) (fs.FileInfo, error) {
	var info fs.FileInfo
	err := h.Do(func() (err error) {
		info, err = os.Lstat(path)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("stat on %s: %w", h.name, err)
	}
	return info, nil
}

// Exists tells whether the host has a file of that path.
func (h *Host) Exists(path string) bool {
	_, err := h.Stat(path)
	return err == nil
}

// Mkdir makes a folder of the host with those above it.
func (h *Host) Mkdir(path string, mode fs.FileMode) error {
	if err := h.Do(func() error { return os.MkdirAll(path, mode) }); err != nil {
		return fmt.Errorf("make folder on %s: %w", h.name, err)
	}
	return nil
}

// Chmod sets the mode of a file of the host.
func (h *Host) Chmod(path string, mode fs.FileMode) error {
	if err := h.Do(func() error { return os.Chmod(path, mode) }); err != nil {
		return fmt.Errorf("set mode on %s: %w", h.name, err)
	}
	return nil
}

// Remove removes a file or folder of the host with all in it. What is absent
// is no error.
func (h *Host) Remove(path string) error {
	if err := h.Do(func() error { return os.RemoveAll(path) }); err != nil {
		return fmt.Errorf("remove on %s: %w", h.name, err)
	}
	return nil
}
