package event

import (
	"fmt"
	"strings"
)

// Severity orders events by how bad they are for the endpoint.
type Severity int

// The severities, ascending. The zero value is Info.
const (
	Info Severity = iota
	Low
	Medium
	High
	Critical
)

var severityNames = [...]string{"info", "low", "medium", "high", "critical"}

// String is the lower-case name.
func (s Severity) String() string {
	if s < 0 || int(s) >= len(severityNames) {
		return fmt.Sprintf("severity(%d)", int(s))
	}
	return severityNames[s]
}

// MarshalText is the lower-case name.
func (s Severity) MarshalText() ([]byte, error) {
	if s < 0 || int(s) >= len(severityNames) {
		return nil, fmt.Errorf("severity %d does not exist", int(s))
	}
	return []byte(s.String()), nil
}

// UnmarshalText reads one of the names, in any case.
func (s *Severity) UnmarshalText(text []byte) error {
	for i, name := range severityNames {
		if strings.EqualFold(name, string(text)) {
			*s = Severity(i)
			return nil
		}
	}
	return fmt.Errorf("severity %q: use one of %s", text, strings.Join(severityNames[:], ", "))
}
