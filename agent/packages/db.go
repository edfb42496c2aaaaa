package packages

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"hash/maphash"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// State is what the package lists say about a file.
type State string

// States of a file.
const (
	// Unpackaged: no installed package brought the path.
	Unpackaged State = "unpackaged"
	// Unchanged: as the package brought it.
	Unchanged State = "unchanged"
	// Changed: a package brought the path, with other content or rights.
	Changed State = "changed"
	// Unverified: a package brought the path and no sum can be compared.
	Unverified State = "unverified"
)

// Standing is a state with its package and reason.
type Standing struct {
	State   State  `json:"state"`
	Package string `json:"package,omitempty"`
	// Why says what the state rests on when it is not Unpackaged.
	Why string `json:"why,omitempty"`
	// Unpacked is when the package was unpacked last.
	Unpacked time.Time `json:"unpacked,omitzero"`
}

// unpacking is how long dpkg may take from the first file that it replaces to
// the list that it writes.
const unpacking = time.Minute

// Replaced reports whether an upgrade of the package explains that a file which
// was at the path lost its name at a time.
func (s Standing) Replaced(lost time.Time) bool {
	return s.State != Unpackaged && !lost.IsZero() && lost.Before(s.Unpacked.Add(unpacking))
}

const (
	maxVerdicts = 512
	// halfInstalled is the status while dpkg unpacks, or after it failed to.
	halfInstalled = "half-installed"
)

// DB reads dpkg's lists below a root directory. It keeps an index of about 12
// bytes a path and is safe for concurrent use.
type DB struct {
	root string
	seed maphash.Seed

	mu       sync.Mutex
	loaded   time.Time // the status file's time when the index was made
	index    []owned
	packages []string
	statuses map[string]string // by package, without its architecture
	verdicts map[version]Standing
}

type owned struct {
	hash uint64
	pkg  uint16
}

// version is one state of one file.
type version struct {
	path         string
	dev, ino     uint64
	size         int64
	mtime, ctime int64
}

// New returns the lists below root, which is "/" but in tests.
func New(root string) *DB {
	return &DB{root: root, seed: maphash.MakeSeed(), verdicts: make(map[version]Standing)}
}

// Check tells what the lists say about the file at path. A symbolic link is not
// followed.
func (db *DB) Check(path string) (Standing, error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if err := db.refresh(); err != nil {
		return Standing{}, err
	}
	name, listed := db.owner(path)
	if name == "" {
		return Standing{State: Unpackaged}, nil
	}
	var st syscall.Stat_t
	if err := syscall.Lstat(filepath.Join(db.root, path), &st); err != nil {
		return Standing{}, fmt.Errorf("check %s against its package: %w", path, err)
	}
	v := version{path, uint64(st.Dev), st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano()}
	if s, ok := db.verdicts[v]; ok {
		return s, nil
	}
	s, err := db.compare(path, listed, name, &st)
	if err != nil {
		return Standing{}, err
	}
	if len(db.verdicts) >= maxVerdicts {
		clear(db.verdicts)
	}
	db.verdicts[v] = s
	return s, nil
}

// Load makes the index, so that the first Check need not.
func (db *DB) Load() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.refresh()
}

// refresh makes the index anew when packages were installed or removed.
func (db *DB) refresh() error {
	path := filepath.Join(db.root, "var/lib/dpkg/status")
	st, err := os.Stat(path)
	if os.IsNotExist(err) {
		return nil // Not a Debian system: nothing is packaged.
	}
	if err != nil {
		return fmt.Errorf("read the package lists: %w", err)
	}
	if st.ModTime().Equal(db.loaded) {
		return nil
	}
	statuses, err := present(path)
	if err != nil {
		return fmt.Errorf("read the package lists: %w", err)
	}
	db.statuses = statuses
	db.index, db.packages = db.index[:0], db.packages[:0]
	lists, err := filepath.Glob(filepath.Join(db.root, "var/lib/dpkg/info/*.list"))
	if err != nil {
		return fmt.Errorf("read the package lists: %w", err)
	}
	for _, l := range lists {
		name := strings.TrimSuffix(filepath.Base(l), ".list")
		if statuses[bare(name)] != "" {
			db.add(name, l)
		}
	}
	slices.SortFunc(db.index, func(a, b owned) int { return cmp.Compare(a.hash, b.hash) })
	db.index = slices.Clip(db.index)
	clear(db.verdicts)
	db.loaded = st.ModTime()
	return nil
}

func (db *DB) add(name, list string) {
	f, err := os.Open(list)
	if err != nil {
		return // Removed meanwhile; the next refresh sees it.
	}
	defer f.Close()
	if len(db.packages) > 0xfffe {
		return
	}
	db.packages = append(db.packages, name)
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		db.index = append(db.index, owned{maphash.Bytes(db.seed, lines.Bytes()), uint16(len(db.packages) - 1)})
	}
}

// present names the packages whose files are on the host, with their status, the
// third word of dpkg's field. One that is only half configured, or whose
// triggers are still to run, is there like an installed one: a host is in these
// states during each upgrade.
func present(path string) (map[string]string, error) {
	names := make(map[string]string)
	err := stanzas(path, func(name string, lines []string) {
		for _, l := range lines {
			f := strings.Fields(l)
			if len(f) == 4 && f[0] == "Status:" && f[3] != "not-installed" && f[3] != "config-files" {
				names[name] = f[3]
			}
		}
	})
	return names, err
}

// bare drops the architecture from the name of a list.
func bare(pkg string) string {
	name, _, _ := strings.Cut(pkg, ":")
	return name
}

// stanzas calls use for each paragraph of dpkg's status.
func stanzas(path string, use func(name string, lines []string)) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(make([]byte, 64<<10), 4<<20)
	var name string
	var lines []string
	for s.Scan() {
		line := s.Text()
		if line == "" {
			use(name, lines)
			name, lines = "", lines[:0]
			continue
		}
		if rest, ok := strings.CutPrefix(line, "Package: "); ok {
			name = rest
		}
		if strings.HasPrefix(line, "Status: ") || strings.HasPrefix(line, " /") {
			lines = append(lines, line)
		}
	}
	if name != "" {
		use(name, lines)
	}
	return s.Err()
}

// owner returns the package that brought path and the name it has there: with
// a merged /usr the lists still say /bin.
func (db *DB) owner(path string) (pkg, listed string) {
	names := []string{path}
	if short, ok := strings.CutPrefix(path, "/usr"); ok {
		names = append(names, short)
	}
	for _, name := range names {
		h := maphash.String(db.seed, name)
		i, _ := slices.BinarySearchFunc(db.index, h, func(e owned, h uint64) int { return cmp.Compare(e.hash, h) })
		for ; i < len(db.index) && db.index[i].hash == h; i++ {
			pkg := db.packages[db.index[i].pkg]
			if hasLine(db.info(pkg, "list"), name) {
				return pkg, name
			}
		}
	}
	return "", ""
}

func (db *DB) info(pkg, kind string) string {
	return filepath.Join(db.root, "var/lib/dpkg/info", pkg+"."+kind)
}

func hasLine(path, line string) bool {
	data, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	for l := range bytes.Lines(data) {
		if string(bytes.TrimSuffix(l, []byte("\n"))) == line {
			return true
		}
	}
	return false
}

func (db *DB) compare(path, listed, pkg string, st *syscall.Stat_t) (Standing, error) {
	s := Standing{Package: pkg}
	if list, err := os.Stat(db.info(pkg, "list")); err == nil {
		s.Unpacked = list.ModTime()
	}
	switch {
	case st.Mode&syscall.S_IFMT == syscall.S_IFLNK && !db.hasSum(listed, pkg):
		s.State, s.Why = Unverified, "it is a symbolic link, for which packages bring no sum"
		return s, nil
	case st.Mode&syscall.S_IFMT != syscall.S_IFREG:
		s.State, s.Why = Changed, "it is no regular file any more"
		return s, nil
	case st.Uid != 0 || st.Mode&0o022 != 0:
		s.State, s.Why = Changed, "others than root may write it"
		return s, nil
	}
	want, why := db.sum(listed, pkg)
	if want == "" {
		s.State, s.Why = Unverified, why
		return s, nil
	}
	got, err := md5Of(filepath.Join(db.root, path))
	if err != nil {
		return Standing{}, fmt.Errorf("check %s against its package: %w", path, err)
	}
	if got != want {
		s.State, s.Why = Changed, "its MD5 sum is not the package's"
		if db.statuses[bare(pkg)] == halfInstalled {
			// The new file is there before its sum is.
			s.State, s.Why = Unverified, "the package is being unpacked"
		}
		return s, nil
	}
	s.State, s.Why = Unchanged, "package installed, path listed, MD5 sum equal, writable for root alone"
	return s, nil
}

// hasSum reports whether the package brought a regular file.
func (db *DB) hasSum(listed, pkg string) bool {
	_, why := db.sum(listed, pkg)
	return why != noSum
}

// noSum is why a file cannot be compared of which there is no sum.
const noSum = "the package brought no sum for it"

// sum returns the MD5 sum that the package brought, or why it is not to be had.
func (db *DB) sum(listed, pkg string) (sum, why string) {
	sums, list := db.info(pkg, "md5sums"), db.info(pkg, "list")
	a, errA := os.Stat(sums)
	b, errB := os.Stat(list)
	if errA == nil && errB == nil && a.ModTime().After(b.ModTime().Add(time.Minute)) {
		return "", "the package's sums were written after it was unpacked"
	}
	data, _ := os.ReadFile(sums)
	for line := range strings.Lines(string(data)) {
		if s, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "  "); ok && "/"+name == listed {
			return s, ""
		}
	}
	var found string
	_ = stanzas(filepath.Join(db.root, "var/lib/dpkg/status"), func(name string, lines []string) {
		for _, l := range lines {
			if f := strings.Fields(l); name == bare(pkg) && len(f) >= 2 && f[0] == listed {
				found = f[1]
			}
		}
	})
	if found == "" {
		return "", noSum
	}
	return found, ""
}

func md5Of(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := md5.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
