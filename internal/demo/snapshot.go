package demo

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/cordon-security/cordon/internal/testlan"
)

var (
	// watched are the places of a host that nobody may have touched but where
	// it is said: configuration, what starts programs, programs, people's files.
	watched = []string{"/etc", "/home/alice", "/usr/bin", "/usr/sbin", "/usr/lib/systemd", "/usr/local/bin", "/usr/local/sbin", "/var/spool", "/var/tmp"}
	// readWhole are those of them whose files are compared by content too.
	readWhole = []string{"/etc/", "/home/alice/", "/var/spool/", "/var/tmp/"}
)

// snapshot maps paths to what describes the file there.
type snapshot map[string]string

// takeSnapshot looks at the watched places of a host.
func takeSnapshot(h *testlan.Host) (snapshot, error) {
	s := make(snapshot)
	err := h.Do(func() error {
		for _, root := range watched {
			err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
				if errors.Is(err, fs.ErrNotExist) {
					return nil
				}
				if err != nil {
					return err
				}
				return s.add(path, d)
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look at the files of %s: %w", h.Name(), err)
	}
	return s, nil
}

func (s snapshot) add(path string, d fs.DirEntry) error {
	info, err := d.Info()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	owner, _ := info.Sys().(*syscall.Stat_t)
	text := fmt.Sprintf("%s %d:%d", info.Mode(), owner.Uid, owner.Gid)
	switch {
	case d.Type()&fs.ModeSymlink != 0:
		target, err := os.Readlink(path)
		if err != nil {
			return err
		}
		text += " to " + target
	case d.Type().IsRegular():
		text += fmt.Sprintf(" %d bytes of %d", info.Size(), info.ModTime().UnixNano())
		if slices.ContainsFunc(readWhole, func(dir string) bool { return strings.HasPrefix(path, dir) }) {
			sum, err := checksum(path)
			if err != nil {
				return err
			}
			text += " " + sum
		}
	}
	s[path] = text
	return nil
}

// checksum is the SHA-256 of a file on the calling thread's host.
func checksum(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}

// changes lists the paths at which two snapshots differ.
func changes(before, after snapshot) []string {
	var out []string
	for path, is := range after {
		if before[path] != is {
			out = append(out, path)
		}
	}
	for path := range before {
		if _, ok := after[path]; !ok {
			out = append(out, path)
		}
	}
	slices.Sort(out)
	return out
}

// changedOnly fails when something else than the named paths differs, or when
// one of them does not.
func changedOnly(before, after snapshot, want ...string) error {
	have := make(map[string]bool)
	for _, path := range changes(before, after) {
		have[path] = true
	}
	var errs []error
	for _, path := range want {
		if !have[path] {
			errs = append(errs, fmt.Errorf("%s is as it was", path))
		}
		delete(have, path)
	}
	for _, path := range slices.Sorted(maps.Keys(have)) {
		errs = append(errs, fmt.Errorf("%s was touched: %q before, %q after", path, before[path], after[path]))
	}
	return errors.Join(errs...)
}
