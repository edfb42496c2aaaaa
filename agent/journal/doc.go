// Package journal keeps on disk, by task, what the agent found and did, so that
// a repeated task does nothing twice and one that was interrupted goes on where
// it stopped.
package journal
