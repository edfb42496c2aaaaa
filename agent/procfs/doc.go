// Package procfs reads the process table from proc(5).
//
// A process is known by its pid and its start time together (ID), so that a
// pid that was given to somebody else is never taken for the first.
package procfs
