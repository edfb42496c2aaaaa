package persistence

import (
	"fmt"
	"slices"
)

// Kind is what sort of thing an entry is.
type Kind string

// Kinds of entries.
const (
	// CronLine is one line of a crontab.
	CronLine Kind = "cron-line"
	// CronFile is a whole file in cron.daily and its like.
	CronFile Kind = "cron-file"
	// Unit is a systemd unit file, UnitDropIn one that adds to another unit.
	Unit       Kind = "systemd-unit"
	UnitDropIn Kind = "systemd-drop-in"
)

// Entry is one thing that starts programs. Paths are those of the host, without
// the root directory of the Finder.
type Entry struct {
	Kind Kind   `json:"kind"`
	Path string `json:"path"`
	// Line counts from 1, for CronLine.
	Line int `json:"line,omitempty"`
	// Text is the line itself.
	Text string `json:"text,omitempty"`
	// Unit is the name of the systemd unit.
	Unit string `json:"unit,omitempty"`
	// User owns the unit when it is one of a user's own manager.
	User string `json:"user,omitempty"`
	// Links are the symbolic links that enable the unit.
	Links []string `json:"links,omitempty"`
	// Starts is the unit that a timer, socket or path unit starts.
	Starts string `json:"starts,omitempty"`
	// Commands are the programs and scripts that it starts.
	Commands []string `json:"commands,omitempty"`
	// Wrappers are scripts that the commands name, with what those name.
	Wrappers []Wrapper `json:"wrappers,omitempty"`
	// Packaged is true when the file is unchanged from a package.
	Packaged bool `json:"packaged,omitempty"`
}

// Wrapper is a script between an entry and a program.
type Wrapper struct {
	Path  string   `json:"path"`
	Names []string `json:"names"`
}

// Name is what a person reads.
func (e Entry) Name() string {
	switch e.Kind {
	case CronLine:
		return fmt.Sprintf("cron %s line %d", e.Path, e.Line)
	case CronFile:
		return "cron " + e.Path
	default:
		return "systemd " + e.Path
	}
}

// Key names the entry among all.
func (e Entry) Key() string { return string(e.Kind) + "\x00" + e.Path + "\x00" + e.Text }

// Starting tells whether the entry starts one of the files, and through which
// wrapper, "" when directly.
func (e Entry) Starting(files []string) (file, wrapper string, ok bool) {
	for _, f := range files {
		if slices.Contains(e.Commands, f) {
			return f, "", true
		}
		for _, w := range e.Wrappers {
			if slices.Contains(w.Names, f) {
				return f, w.Path, true
			}
		}
		if e.Kind == CronFile && e.Path == f {
			return f, "", true
		}
	}
	return "", "", false
}
