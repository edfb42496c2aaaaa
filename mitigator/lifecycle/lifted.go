package lifecycle

import "sync"

// lifted remembers which devices said that they hold a quarantine no longer, for
// those that not all have answered for: a release is at its end with the last of
// them. It is safe for concurrent use. What it knows ends with the process; a
// device is asked again for what is being released whenever it connects.
type lifted struct {
	devices []string

	mu sync.Mutex
	by map[string]map[string]bool
}

// said notes a device's word, and reports whether it was the last that was needed.
func (l *lifted) said(device, quarantineID string) bool {
	if len(l.devices) < 2 {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.by == nil {
		l.by = map[string]map[string]bool{}
	}
	if l.by[quarantineID] == nil {
		l.by[quarantineID] = map[string]bool{}
	}
	l.by[quarantineID][device] = true
	for _, name := range l.devices {
		if !l.by[quarantineID][name] {
			return false
		}
	}
	return true
}

// forget drops what was said of a quarantine that has ended.
func (l *lifted) forget(quarantineID string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.by, quarantineID)
}
