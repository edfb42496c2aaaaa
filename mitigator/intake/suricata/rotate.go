package suricata

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// rotated fits what a log rotation appends: ".1", "-20261124", ".2026-11-24.1".
var rotated = regexp.MustCompile(`^[.-][0-9][0-9.:_T-]*$`)

// candidates lists the regular files beside path that are called like it, with
// something appended: what a rotation may have left, the least recently written
// first.
func candidates(path string) []string {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil
	}
	type found struct {
		path string
		at   time.Time
	}
	var all []found
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), filepath.Base(path)) || !entry.Type().IsRegular() {
			continue
		}
		info, err := entry.Info()
		if err == nil {
			all = append(all, found{filepath.Join(filepath.Dir(path), entry.Name()), info.ModTime()})
		}
	}
	slices.SortStableFunc(all, func(a, b found) int { return a.at.Compare(b.at) })
	paths := make([]string, len(all))
	for i, f := range all {
		paths[i] = f.path
	}
	return paths
}

// findRest looks for the file that a cursor points into, under whatever name:
// the same inode after a rename, a copy with the same beginning after
// copytruncate. It returns nil when there is none (it may be compressed).
func findRest(path string, c cursor) *openFile {
	for _, sameInode := range [...]bool{true, false} {
		for _, name := range candidates(path) {
			f, err := openRegular(name)
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

// between finds the oldest rotated file that was written after f and is not the
// current one: several rotations went by while nobody read.
func between(path string, f, current *openFile, last time.Time) *openFile {
	for _, name := range candidates(path) {
		if !rotated.MatchString(strings.TrimPrefix(name, path)) {
			continue
		}
		next, err := openRegular(name)
		if err != nil {
			continue
		}
		size, written, err := next.stat()
		itself := next.inode == f.inode || next.inode == current.inode
		if err == nil && size > 0 && !itself && written.After(last) && !f.cursor().headMatches(next.file, size) {
			return next
		}
		next.close()
	}
	return nil
}

var errNoRest = errors.New("the rest of the file that was read last is gone (compressed or deleted?); records in it may be lost: rotate with delaycompress")
