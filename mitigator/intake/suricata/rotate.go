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

// listings is how often a directory is read to see it at rest, while a rotation
// renames one file after the other.
const listings = 20

// candidates lists the non-empty regular files beside path that are called like
// it, with something appended, in the order in which they were written.
func candidates(path string) []candidate {
	all := list(path)
	for range listings {
		again := list(path)
		if slices.EqualFunc(all, again, candidate.same) {
			break
		}
		all = again
		time.Sleep(time.Millisecond)
	}
	return all
}

// same ignores how far a file has grown.
func (c candidate) same(d candidate) bool {
	return c.path == d.path && c.dev == d.dev && c.inode == d.inode
}

func list(path string) []candidate {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil
	}
	var all []candidate
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), filepath.Base(path)) {
			continue
		}
		name := filepath.Join(filepath.Dir(path), entry.Name())
		info, err := os.Stat(name)
		if err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
			continue
		}
		c := candidate{path: name, size: info.Size(), written: info.ModTime()}
		c.dev, c.inode = identity(info)
		all = append(all, c)
	}
	slices.SortStableFunc(all, func(a, b candidate) int {
		return cmp.Or(a.written.Compare(b.written), byName(path, a.path, b.path))
	})
	return all
}

// open opens the file if it still has its name.
func (c candidate) open() (*openFile, error) {
	f, err := openRegular(c.path)
	if err != nil {
		return nil, err
	}
	if f.inode != c.inode || f.dev != c.dev {
		f.close()
		return nil, errRenamed
	}
	return f, nil
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
	for range listings {
		f, renamed := searchRest(candidates(path), c)
		if f != nil || !renamed {
			return f
		}
	}
	return nil
}

func searchRest(all []candidate, c cursor) (rest *openFile, renamed bool) {
	for _, byInode := range [...]bool{true, false} {
		for _, found := range all {
			f, err := found.open()
			if err != nil {
				renamed = true
				continue
			}
			if (byInode && c.isFile(f, found.size)) || (!byInode && c.headMatches(f.file, found.size)) {
				return f, false
			}
			f.close()
		}
	}
	return nil, renamed
}

// after finds what is read once f is at its end: the file that was written next
// and is named like a rotated one, or the one at path itself. It returns nil
// while f is the file at path, or its successor is empty: after a rename Suricata
// goes on writing to the old file until it opens the new one. The error says
// what is wrong with the file at path.
func after(path string, f *openFile) (*openFile, error) {
	info, err := os.Stat(path)
	if err == nil {
		if dev, inode := identity(info); dev == f.dev && inode == f.inode {
			return nil, nil
		}
		err = checkRegular(path, info)
	} else {
		err = explain(path, err)
	}
	_, last, statErr := f.stat()
	if statErr != nil {
		return nil, statErr
	}
	for range listings {
		next, openErr := successor(path, candidates(path), f, last)
		if next != nil {
			return next, nil
		}
		if openErr == nil {
			return nil, err
		}
		err = openErr
	}
	return nil, err
}

// successor is the first file of the list that was written after f. The error
// says that it cannot be opened (any more under this name).
func successor(path string, all []candidate, f *openFile, last time.Time) (*openFile, error) {
	at := slices.IndexFunc(all, func(c candidate) bool { return c.inode == f.inode && c.dev == f.dev })
	for i, c := range all {
		if i <= at || (at < 0 && c.written.Before(last)) {
			continue
		}
		if c.path != path && !rotated.MatchString(strings.TrimPrefix(c.path, path)) {
			continue
		}
		next, err := c.open()
		if err != nil {
			return nil, err
		}
		// A copy of f is no successor.
		if !f.cursor().headMatches(next.file, c.size) {
			return next, nil
		}
		next.close()
	}
	return nil, nil
}

var errRenamed = errors.New("a rotation is going on")

var errNoRest = errors.New("the rest of the file that was read last is gone (compressed or deleted?); records in it may be lost: rotate with delaycompress")
