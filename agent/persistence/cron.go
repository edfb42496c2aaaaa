package persistence

import (
	"path"
	"strings"
)

// cron reads every place of cron(8) as Debian has it, and anacron's.
func (f *Finder) cron() []Entry {
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
func (f *Finder) crontab(name, home string) []Entry {
	data, ok := f.read(name, maxFile)
	if !ok {
		return nil
	}
	packaged := f.packaged(name)
	var entries []Entry
	number := 0
	for line := range strings.Lines(string(data)) {
		number++
		text := strings.TrimSuffix(line, "\n")
		if t := strings.TrimSpace(text); t == "" || t[0] == '#' {
			continue
		}
		entries = append(entries, Entry{
			Kind: CronLine, Path: name, Line: number, Text: text, Commands: words(text, home), Packaged: packaged,
		})
	}
	return entries
}

func (f *Finder) cronFile(name string) (Entry, bool) {
	data, ok := f.read(name, maxFile)
	if !ok {
		return Entry{}, false
	}
	return Entry{Kind: CronFile, Path: name, Commands: words(uncommented(string(data)), ""), Packaged: f.packaged(name)}, true
}

// uncommented drops the lines of a script that are comments.
func uncommented(script string) string {
	var kept strings.Builder
	for line := range strings.Lines(script) {
		if !strings.HasPrefix(strings.TrimSpace(line), "#") {
			kept.WriteString(line)
		}
	}
	return kept.String()
}
