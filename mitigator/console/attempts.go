package console

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

const (
	// burst failed log-ins are free, then one more every refill.
	burst  = 10
	refill = 6 * time.Second
	// buckets is a fixed number: whoever comes from many addresses costs no
	// memory and resets nobody's count.
	buckets = 4096
)

// attempts limits failed log-ins per source address: a token bucket each, in a
// table of fixed size. Which addresses share a bucket is keyed per process.
type attempts struct {
	seed maphash.Seed

	mu    sync.Mutex
	table [buckets]bucket
}

// bucket is kept as the time at which it is full again; the zero value is full.
type bucket struct{ full time.Time }

func newAttempts() *attempts { return &attempts{seed: maphash.MakeSeed()} }

// take counts one attempt from addr. When none is left it says how long to wait.
func (a *attempts) take(addr netip.Addr, now time.Time) (wait time.Duration, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	b := a.bucket(addr)
	full := b.full
	if full.Before(now) {
		full = now
	}
	if full = full.Add(refill); full.Sub(now) > burst*refill {
		return full.Sub(now) - burst*refill, false
	}
	b.full = full
	return 0, true
}

// giveBack takes an attempt off the count: it was a good one.
func (a *attempts) giveBack(addr netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	b := a.bucket(addr)
	b.full = b.full.Add(-refill)
}

func (a *attempts) bucket(addr netip.Addr) *bucket {
	return &a.table[maphash.Comparable(a.seed, source(addr))%buckets]
}

// source is what counts as one source: an IPv4 address, or an IPv6 /64, which a
// single machine has to itself.
func source(addr netip.Addr) netip.Addr {
	addr = addr.Unmap().WithZone("")
	if addr.Is6() {
		if p, err := addr.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return addr
}
