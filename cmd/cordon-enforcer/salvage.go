package main

import (
	"path/filepath"
	"strings"
)

// salvage takes the paths out of a configuration file that is faulty elsewhere,
// line by line: break glass must find the device all the same.
func salvage(content []byte) Config {
	cfg := defaults()
	for line := range strings.Lines(string(content)) {
		if path, ok := pathOf(line, "state_dir:"); ok {
			cfg.StateDir = path
		}
		if path, ok := pathOf(line, "socket:"); ok {
			cfg.Socket = path
		}
	}
	return cfg
}

// pathOf is the absolute path that a line gives a top-level key.
func pathOf(line, key string) (string, bool) {
	value, ok := strings.CutPrefix(strings.TrimRight(line, "\r\n"), key)
	if !ok {
		return "", false
	}
	value = strings.TrimSpace(value)
	for _, quote := range []string{`"`, "'"} {
		if rest, ok := strings.CutPrefix(value, quote); ok {
			value, _, ok = strings.Cut(rest, quote)
			return value, ok && filepath.IsAbs(value)
		}
	}
	value, _, _ = strings.Cut(value, " #")
	value = strings.TrimSpace(value)
	return value, filepath.IsAbs(value)
}
