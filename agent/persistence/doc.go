// Package persistence finds what starts programs on a host, cron and systemd,
// and tells which of it starts a given file.
package persistence
