package suricata

import (
	"cmp"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// rotated fits what a log rotation appends: ".1", "-20261124", ".2026-11-24.1".
var rotated = regexp.MustCompile(`^[.-][0-9][0-9.:_T-]*$`)

// candidate is a file that a rotation may have left.
type candidate struct {
	path       string
	dev, inode uint64
	size       int64
	written    time.Time
}

// candidates lists the regular files beside path that are called like it, with
// something appended, in the order in which they were written.
func candidates(path string) []candidate {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil
	}
	var all []candidate
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), filepath.Base(path)) || !entry.Type().IsRegular() {
			continue
		}
		info, err := entry.Info()
		if err != nil {
			continue
		}
		c := candidate{path: filepath.Join(filepath.Dir(path), entry.Name()), size: info.Size(), written: info.ModTime()}
		c.dev, c.inode = identity(info)
		all = append(all, c)
	}
	slices.SortStableFunc(all, func(a, b candidate) int {
		return cmp.Or(a.written.Compare(b.written), byName(path, a.path, b.path))
	})
	return all
}

// byName orders files that were written in the same tick of the clock: a higher
// number is older, a higher date is younger, the file itself is the youngest.
func byName(path, a, b string) int {
	if a == path || b == path {
		return cmp.Compare(len(b), len(a))
	}
	na, errA := strconv.Atoi(strings.TrimPrefix(a, path+"."))
	nb, errB := strconv.Atoi(strings.TrimPrefix(b, path+"."))
	if errA == nil && errB == nil && na < 10000 && nb < 10000 {
		return cmp.Compare(nb, na)
	}
	return cmp.Compare(a, b)
}

// findRest looks for the file that a cursor points into, under whatever name:
// the same inode after a rename, a copy with the same beginning after
// copytruncate. It returns nil when there is none (it may be compressed).
func findRest(path string, c cursor) *openFile {
	for _, sameInode := range [...]bool{true, false} {
		for _, found := range candidates(path) {
			f, err := openRegular(found.path)
			if err != nil {
				continue
			}
			size, _, err := f.stat()
			if err == nil && ((sameInode && c.isFile(f, size)) || (!sameInode && c.headMatches(f.file, size))) {
				return f
			}
			f.close()
		}
	}
	return nil
}

// after finds what is read once f is at its end: the rotated file that was
// written next, else the file at path itself. It returns nil while f is the
// file at path, or its successor is empty: after a rename Suricata goes on
// writing to the old file until it opens the new one.
func after(path string, f *openFile) (*openFile, error) {
	if info, err := os.Stat(path); err == nil {
		if dev, inode := identity(info); dev == f.dev && inode == f.inode {
			return nil, nil
		}
	}
	_, last, err := f.stat()
	if err != nil {
		return nil, err
	}
	current, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	size, _, err := current.stat()
	if err != nil || current.inode == f.inode && current.dev == f.dev {
		current.close()
		return nil, err
	}
	if next := between(path, f, current, last); next != nil {
		current.close()
		return next, nil
	}
	if size == 0 {
		current.close()
		return nil, nil
	}
	return current, nil
}

// between finds the rotated file that was written next after f and is not the
// current one: several rotations went by while nobody read.
func between(path string, f, current *openFile, last time.Time) *openFile {
	all := candidates(path)
	at := slices.IndexFunc(all, func(c candidate) bool { return c.inode == f.inode && c.dev == f.dev })
	for i, c := range all {
		earlier := i <= at || (at < 0 && !c.written.After(last))
		if earlier || c.size == 0 || c.inode == current.inode || !rotated.MatchString(strings.TrimPrefix(c.path, path)) {
			continue
		}
		next, err := openRegular(c.path)
		if err != nil {
			continue
		}
		if next.inode == c.inode && !f.cursor().headMatches(next.file, c.size) {
			return next
		}
		next.close()
	}
	return nil
}

var errNoRest = errors.New("the rest of the file that was read last is gone (compressed or deleted?); records in it may be lost: rotate with delaycompress")
