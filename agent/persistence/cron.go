package persistence

import (
	"maps"
	"path"
	"regexp"
	"strings"
)

// cron reads every place of cron(8) as Debian has it, and anacron's.
func (f *search) cron() []Entry {
	homes := f.homes()
	entries := f.crontab("/etc/crontab", "")
	entries = append(entries, f.crontab("/etc/anacrontab", "")...)
	for _, e := range f.list("/etc/cron.d") {
		if !strings.HasPrefix(e.Name(), ".") {
			entries = append(entries, f.crontab(path.Join("/etc/cron.d", e.Name()), "")...)
		}
	}
	for _, dir := range []string{"/var/spool/cron/crontabs", "/var/spool/cron"} {
		for _, e := range f.list(dir) {
			if !e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
				entries = append(entries, f.crontab(path.Join(dir, e.Name()), homes[e.Name()])...)
			}
		}
	}
	for _, dir := range []string{"hourly", "daily", "weekly", "monthly", "yearly"} {
		dir = "/etc/cron." + dir
		for _, e := range f.list(dir) {
			if strings.HasPrefix(e.Name(), ".") {
				continue
			}
			if entry, ok := f.cronFile(path.Join(dir, e.Name())); ok {
				entries = append(entries, entry)
			}
		}
	}
	return entries
}

// crontab returns an entry for each line that is neither comment nor setting.
func (f *search) crontab(name, home string) []Entry {
	data, ok := f.read(name, maxFile)
	if !ok {
		return nil
	}
	packaged := f.packaged(name)
	var entries []Entry
	vars := make(map[string][]string)
	number := 0
	for line := range strings.Lines(string(data)) {
		number++
		text := strings.TrimSuffix(line, "\n")
		if t := strings.TrimSpace(text); t == "" || t[0] == '#' {
			continue
		}
		if len(entries) == maxLines {
			f.skip("of %s only the first %d lines were looked at", name, maxLines)
			break
		}
		entries = append(entries, Entry{
			Kind: CronLine, Path: name, Line: number, Text: text, Commands: f.started(name, cronLine(text, name, home, vars)), Packaged: packaged,
		})
	}
	return entries
}

func (f *search) cronFile(name string) (Entry, bool) {
	data, ok := f.read(name, maxFile)
	if !ok {
		return Entry{}, false
	}
	s := newShell("", "")
	s.run(string(data), 0)
	return Entry{Kind: CronFile, Path: name, Commands: f.started(name, s), Packaged: f.packaged(name)}, true
}

// cronLine follows a line of a crontab. A setting is kept in vars for the lines
// below it.
func cronLine(line, file, home string, vars map[string][]string) *shell {
	s := &shell{home: home, cwd: home, vars: maps.Clone(vars)}
	if home != "" {
		s.vars["HOME"] = []string{home}
	}
	if m := setting.FindStringSubmatch(line); m != nil {
		vars[m[1]] = s.expand(m[2])
		if m[1] == "SHELL" {
			s.emit(m[2])
		}
		return s
	}
	fields := 5 // Minute to day of the week.
	switch {
	case file == "/etc/anacrontab":
		fields = 3 // Period, delay, name.
	case strings.HasPrefix(strings.TrimSpace(line), "@"):
		fields = 1
	}
	if !strings.HasPrefix(file, "/var/spool/cron/") && file != "/etc/anacrontab" {
		fields++ // The user.
	}
	for range fields {
		line = strings.TrimLeft(line, " \t")
		i := strings.IndexAny(line, " \t")
		if i < 0 {
			return s
		}
		line = line[i:]
	}
	// What follows a % is standard input, crontab(5).
	line = percent.ReplaceAllString(strings.ReplaceAll(line, `\%`, "\x00"), "")
	s.run(strings.ReplaceAll(line, "\x00", "%"), 0)
	return s
}

var (
	setting = regexp.MustCompile(`^\s*([A-Za-z_][A-Za-z0-9_]*)\s*=\s*["']?(.*?)["']?\s*$`)
	percent = regexp.MustCompile(`%.*$`)
)
