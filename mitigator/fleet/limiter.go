package fleet

import (
	"net/netip"
	"sync"
	"time"
)

const (
	// failureBurst is how many failed enrolments one source has at once, and
	// failureRefill how long it takes to earn one back. Only failures count, so
	// that a whole fleet can enrol through one address.
	failureBurst  = 10
	failureRefill = 6 * time.Second
	// maxSources bounds memory; beyond it, new sources share one account.
	maxSources = 4096
)

// limiter counts failed enrolments by source: an IPv4 address, or an IPv6 /64.
type limiter struct {
	now func() time.Time

	mu       sync.Mutex
	accounts map[netip.Prefix]account
	swept    time.Time
}

// account holds failures that decay: used is what they were at the time at.
type account struct {
	used float64
	at   time.Time
}

func (a account) usedAt(now time.Time) float64 {
	elapsed := max(0, now.Sub(a.at))
	return max(0, a.used-float64(elapsed)/float64(failureRefill))
}

// allowed says whether the source may try.
func (l *limiter) allowed(source netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.accounts[l.key(source)].usedAt(l.now()) <= failureBurst-1
}

// failed records a failure.
func (l *limiter) failed(source netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.accounts == nil {
		l.accounts = make(map[netip.Prefix]account)
	}
	now := l.now()
	if len(l.accounts) >= maxSources && now.Sub(l.swept) >= failureRefill {
		l.forget(now)
		l.swept = now
	}
	key := l.key(source)
	l.accounts[key] = account{used: l.accounts[key].usedAt(now) + 1, at: now}
}

// forget drops the accounts that have decayed to nothing.
func (l *limiter) forget(now time.Time) {
	for key, a := range l.accounts {
		if a.usedAt(now) == 0 {
			delete(l.accounts, key)
		}
	}
}

func (l *limiter) key(source netip.Addr) netip.Prefix {
	bits := 32
	if source.Is6() {
		bits = 64
	}
	key, err := source.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	if _, ok := l.accounts[key]; !ok && len(l.accounts) >= maxSources {
		return netip.Prefix{}
	}
	return key
}
