package agent

import (
	"errors"
	"fmt"

	"github.com/cordon-security/cordon/internal/dirlock"
)

// claim makes the state directory this agent's alone, and clears up what an
// earlier one left. The commands beside a running agent do neither.
func (a *Agent) claim() (*dirlock.Lock, error) {
	held, err := dirlock.Try(a.o.Config.StateDir)
	if errors.Is(err, dirlock.ErrInUse) {
		return nil, fmt.Errorf("another cordon-agent runs with this state directory; stop it first: %w", err)
	}
	if err != nil {
		return nil, err
	}
	if err := a.journal.Prune(); err != nil {
		return nil, errors.Join(err, held.Release())
	}
	return held, nil
}
