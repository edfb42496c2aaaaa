package persistence

import (
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

// systemDirs are where systemd.unit(5) looks for system units, user units
// below.
var (
	systemDirs = []string{
		"/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system",
		"/etc/systemd/system.control", "/run/systemd/system.control", "/run/systemd/transient", "/etc/systemd/system.attached",
		"/run/systemd/system.attached", "/run/systemd/generator.early", "/run/systemd/generator", "/run/systemd/generator.late",
	}
	userDirs  = []string{"/etc/systemd/user", "/run/systemd/user", "/usr/local/lib/systemd/user", "/usr/lib/systemd/user"}
	ownDirs   = []string{".config/systemd/user", ".local/share/systemd/user"}
	unitTypes = []string{".service", ".timer", ".path", ".socket"}
)

// maxLinks is how many links may lead to each other, path_resolution(7).
const maxLinks = 40

// link is a symbolic link below a unit directory.
type link struct{ path, target string }

func (f *search) systemd() []Entry {
	entries := f.units(systemDirs, "", "")
	entries = append(entries, f.units(userDirs, "", "")...)
	for user, home := range f.homes() {
		var dirs []string
		for _, d := range ownDirs {
			dirs = append(dirs, path.Join(home, d))
		}
		entries = append(entries, f.units(dirs, user, home)...)
	}
	slices.SortStableFunc(entries, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
	return entries
}

// units reads the unit files of one manager and the links that enable them.
func (f *search) units(dirs []string, user, home string) []Entry {
	var entries []Entry
	var links []link
	for _, dir := range dirs {
		if st, err := os.Lstat(f.at(path.Dir(path.Dir(dir)))); err == nil && st.Mode()&fs.ModeSymlink != 0 {
			continue // /lib is /usr/lib here.
		}
		for _, e := range f.list(dir) {
			name := path.Join(dir, e.Name())
			switch {
			case e.Type()&fs.ModeSymlink != 0:
				links = f.link(links, name)
			case e.IsDir() && (strings.HasSuffix(name, ".wants") || strings.HasSuffix(name, ".requires") || strings.HasSuffix(name, ".upholds")):
				for _, l := range f.list(name) {
					if l.Type()&fs.ModeSymlink != 0 {
						links = f.link(links, path.Join(name, l.Name()))
					}
				}
			case e.IsDir() && strings.HasSuffix(name, ".d"):
				unit := strings.TrimSuffix(e.Name(), ".d")
				for _, d := range f.list(name) {
					if strings.HasSuffix(d.Name(), ".conf") {
						entries = f.unit(entries, UnitDropIn, path.Join(name, d.Name()), unit, user, home)
					}
				}
			case slices.Contains(unitTypes, path.Ext(name)):
				entries = f.unit(entries, Unit, name, e.Name(), user, home)
			}
		}
	}
	entries = f.linked(entries, links, user, home)
	for i := range entries {
		entries[i].Links = linksTo(links, entries[i])
	}
	return entries
}

// linked reads the units that lie outside of the unit directories and are known
// by a link alone, as `systemctl link` makes it.
func (f *search) linked(entries []Entry, links []link, user, home string) []Entry {
	known := make(map[string]bool)
	for _, e := range entries {
		known[e.Path] = true
	}
	for _, l := range links {
		if known[l.target] || !slices.Contains(unitTypes, path.Ext(l.path)) {
			continue
		}
		known[l.target] = true
		if st, err := os.Lstat(f.at(l.target)); err == nil && st.Mode().IsRegular() {
			entries = f.unit(entries, Unit, l.target, path.Base(l.path), user, home)
		}
	}
	return entries
}

func (f *search) link(links []link, name string) []link {
	target := name
	for range maxLinks {
		to, err := os.Readlink(f.at(target))
		if err != nil {
			break
		}
		if !path.IsAbs(to) {
			to = path.Join(path.Dir(target), to)
		}
		target = path.Clean(to)
		links = append(links, link{name, target})
	}
	return links
}

func linksTo(links []link, e Entry) []string {
	if e.Kind != Unit {
		return nil
	}
	var to []string
	for _, l := range links {
		if slices.Contains(to, l.path) {
			continue
		}
		if l.target == e.Path || path.Base(l.target) == e.Unit && path.Base(l.path) == e.Unit {
			to = append(to, l.path)
		}
	}
	return to
}

// unit reads one unit file or drop-in and adds it to the entries.
func (f *search) unit(entries []Entry, kind Kind, name, unit, user, home string) []Entry {
	data, ok := f.read(name, maxFile)
	if !ok {
		return entries
	}
	e := Entry{Kind: kind, Path: name, Unit: unit, User: user, Packaged: f.packaged(name)}
	if ext := path.Ext(unit); ext != ".service" {
		e.Starts = strings.TrimSuffix(unit, ext) + ".service"
	}
	// A backslash at the end of a line joins it with the next.
	text := strings.ReplaceAll(string(data), "\\\n", " ")
	s := &shell{home: home, vars: make(map[string][]string)}
	var lines []string
	for line := range strings.Lines(text) {
		key, value, found := strings.Cut(strings.TrimSpace(line), "=")
		if !found || strings.HasPrefix(key, "#") || strings.HasPrefix(key, ";") {
			continue
		}
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		switch {
		case strings.HasPrefix(key, "Exec"):
			lines = append(lines, strings.TrimLeft(value, "@-:+!|"))
		case key == "WorkingDirectory":
			s.cwd = s.expand(strings.TrimPrefix(value, "-"))[0]
		case key == "Environment":
			s.run(value, 0)
		case key == "Unit" && e.Starts != "":
			e.Starts = value
		}
	}
	for _, l := range lines {
		s.run(l, 0)
	}
	e.Commands = f.started(name, s)
	return append(entries, e)
}
