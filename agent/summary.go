package agent

import "fmt"

// Summary is one line about the agent, for `systemctl status`.
func (a *Agent) Summary() string {
	s := fmt.Sprintf("observing by %s", a.source.Name())
	switch l := a.link.Load(); {
	case l == nil:
		return s
	case l.Connected():
		return s + "; connected to the mitigator"
	default:
		return s + "; NOT connected to the mitigator"
	}
}

// Healthy reports that the history can be read, for which its lock must be
// free: the watchdog's question. One that never answers is a no.
func (a *Agent) Healthy() bool {
	a.history.OpenKeys()
	return true
}
