package persistence

import (
	"bytes"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/cordon-security/cordon/agent/packages"
)

const (
	maxFile    = 1 << 20
	maxWrapper = 64 << 10
	maxEntries = 20000
)

// Finder reads a host's cron and systemd files below Root.
type Finder struct {
	// Root is "/" but in tests.
	Root     string
	Packages *packages.DB
}

// All lists every entry of the host. What cannot be read is left out.
func (f *Finder) All() []Entry {
	entries := append(f.cron(), f.systemd()...)
	if len(entries) > maxEntries {
		entries = entries[:maxEntries]
	}
	seen := make(map[string]*Wrapper)
	for i := range entries {
		f.wrappers(&entries[i], seen)
	}
	return entries
}

// wrappers looks into the unpackaged scripts that an entry names.
func (f *Finder) wrappers(e *Entry, seen map[string]*Wrapper) {
	if e.Packaged {
		return
	}
	for _, c := range e.Commands {
		if !strings.HasPrefix(c, "/") || c == e.Path {
			continue
		}
		w, known := seen[c]
		if !known {
			w = f.wrapper(c)
			seen[c] = w
		}
		if w != nil {
			e.Wrappers = append(e.Wrappers, *w)
		}
	}
}

func (f *Finder) wrapper(file string) *Wrapper {
	if s, err := f.Packages.Check(file); err != nil || s.State == packages.Unchanged || s.State == packages.Unverified {
		return nil
	}
	data, ok := f.read(file, maxWrapper)
	if !ok || bytes.IndexByte(data, 0) >= 0 || !bytes.HasPrefix(data, []byte("#!")) {
		return nil
	}
	return &Wrapper{Path: file, Names: commands(string(data), "", "")}
}

// read returns a regular file's content up to limit; a longer file is not read.
func (f *Finder) read(name string, limit int64) ([]byte, bool) {
	file, err := os.OpenFile(f.at(name), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, false
	}
	defer file.Close()
	st, err := file.Stat()
	if err != nil || !st.Mode().IsRegular() || st.Size() > limit {
		return nil, false
	}
	data, err := io.ReadAll(io.LimitReader(file, limit))
	return data, err == nil
}

func (f *Finder) at(name string) string { return filepath.Join(f.Root, name) }

// list returns the files of a directory, as host paths.
func (f *Finder) list(dir string) []fs.DirEntry {
	entries, err := os.ReadDir(f.at(dir))
	if err != nil {
		return nil
	}
	return entries
}

func (f *Finder) packaged(name string) bool {
	s, err := f.Packages.Check(name)
	return err == nil && s.State == packages.Unchanged
}

// homes maps each user with a home directory to it.
func (f *Finder) homes() map[string]string {
	homes := make(map[string]string)
	data, _ := f.read("/etc/passwd", maxFile)
	for line := range strings.Lines(string(data)) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if len(fields) == 7 && path.IsAbs(fields[5]) && fields[5] != "/" {
			homes[fields[0]] = path.Clean(fields[5])
		}
	}
	return homes
}
