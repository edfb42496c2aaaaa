package persistence

import (
	"bytes"
	"fmt"
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
	// maxLines bounds the lines of one crontab, maxSource the entries of cron
	// and those of each manager's units.
	maxLines  = 4096
	maxSource = 20000
)

// Finder reads a host's cron and systemd files below Root.
type Finder struct {
	// Root is "/" but in tests.
	Root     string
	Packages *packages.DB
}

// search is one look at the host.
type search struct {
	*Finder
	// skipped says in words what was not looked at.
	skipped []string
}

// All lists every entry of the host, and says in words which of what starts
// programs was too much to be read. What is not there is left out.
func (f *Finder) All() (entries []Entry, skipped []string) {
	s := &search{Finder: f}
	entries = append(s.bound("cron", s.cron()), s.bound("systemd", s.systemd())...)
	seen := make(map[string]*Wrapper)
	for i := range entries {
		s.wrappers(&entries[i], seen)
	}
	return entries, s.skipped
}

func (f *search) skip(format string, args ...any) {
	f.skipped = append(f.skipped, fmt.Sprintf(format, args...))
}

func (f *search) bound(source string, entries []Entry) []Entry {
	if len(entries) <= maxSource {
		return entries
	}
	f.skip("%s has %d entries, of which only %d were looked at", source, len(entries), maxSource)
	return entries[:maxSource]
}

// started returns what a script has started so far.
func (f *search) started(file string, s *shell) []string {
	if s.full {
		f.skip("%s starts more than can be looked at", file)
	}
	return s.out
}

// wrappers looks into the unpackaged scripts that an entry names.
func (f *search) wrappers(e *Entry, seen map[string]*Wrapper) {
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

func (f *search) wrapper(file string) *Wrapper {
	if s, err := f.Packages.Check(file); err != nil || s.State == packages.Unchanged || s.State == packages.Unverified {
		return nil
	}
	if !f.isScript(file) {
		return nil
	}
	data, ok := f.read(file, maxWrapper)
	if !ok || bytes.IndexByte(data, 0) >= 0 {
		return nil
	}
	s := newShell("", "")
	s.run(string(data), 0)
	return &Wrapper{Path: file, Names: f.started(file, s)}
}

func (f *Finder) isScript(name string) bool {
	file, err := os.OpenFile(f.at(name), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer file.Close()
	var start [2]byte
	_, err = io.ReadFull(file, start[:])
	return err == nil && string(start[:]) == "#!"
}

// read returns a regular file's content up to limit; a longer file is not read.
func (f *search) read(name string, limit int64) ([]byte, bool) {
	file, err := os.OpenFile(f.at(name), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, false
	}
	defer file.Close()
	st, err := file.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return nil, false
	}
	if st.Size() > limit {
		if !f.packaged(name) {
			f.skip("%s is larger than %d bytes and was not read", name, limit)
		}
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
func (f *search) homes() map[string]string {
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
