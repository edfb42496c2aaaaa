package mitigator

import "fmt"

// Summary is one line about the mitigator, for `systemctl status`.
func (m *Mitigator) Summary() string {
	devices, sources := 0, 0
	for _, l := range m.links {
		if l.State().Connected {
			devices++
		}
	}
	all := m.intake.Statuses()
	for _, s := range all {
		if s.Healthy {
			sources++
		}
	}
	return fmt.Sprintf("%s mode; %d agents connected; %d of %d devices connected; %d of %d data sources healthy",
		m.config.Policy.Mode, m.fleet.ConnectedCount(), devices, len(m.links), sources, len(all))
}
