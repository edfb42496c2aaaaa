package link

import (
	"math/rand/v2"
	"time"
)

const (
	backoffBase = 500 * time.Millisecond
	backoffCap  = 60 * time.Second
)

// backoff is exponential with full jitter: each wait is drawn evenly from zero
// to a bound that doubles, so that a fleet that lost its mitigator does not
// come back all at once.
type backoff struct {
	base, cap time.Duration
	attempt   int
}

func (b *backoff) next() time.Duration {
	bound := b.cap
	if b.attempt < 30 {
		bound = min(b.cap, b.base<<b.attempt)
	}
	b.attempt++
	return rand.N(bound + 1)
}

func (b *backoff) reset() { b.attempt = 0 }
