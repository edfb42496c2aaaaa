package device

import "fmt"

// Summary is one line about the device, for `systemctl status`. It costs the
// same however many quarantines there are.
func (d *Device) Summary() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := fmt.Sprintf("%d quarantines ordered", d.store.Len())
	switch missing := len(d.unsettled); {
	case d.suspended:
		s += ", all lifted: BREAK GLASS by " + d.broken.Actor
	case missing > 0:
		s += fmt.Sprintf(", %d of their addresses not in force yet", missing)
	}
	for _, alarm := range []string{d.alarm(), d.fault} {
		if alarm != "" {
			s += "; ALARM: " + alarm
		}
	}
	return s
}
