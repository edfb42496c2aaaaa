// Package durablefile writes small files that outlive a crash and a power loss:
// after it the old file or the new one is there, whole.
package durablefile
