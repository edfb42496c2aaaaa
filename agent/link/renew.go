package link

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"connectrpc.com/connect"

	"github.com/cordon-security/cordon/internal/pki"
	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

const (
	renewRetryCap = time.Hour
	// maxSleep bounds one sleep, since a suspended machine's timers lag.
	maxSleep = 15 * time.Minute
)

var errNoConnection = errors.New("no connection to the mitigator")

// renewLoop renews the certificate at two thirds of its life, and at once when
// that time has passed already.
func (l *Link) renewLoop(ctx context.Context) {
	for ctx.Err() == nil {
		if !l.sleepUntil(ctx, renewalTime(l.identity.Load())) {
			return
		}
		if !l.renewRetrying(ctx) {
			return
		}
		// Where our clock runs ahead, the new certificate looks due as well.
		if !sleep(ctx, lifetime(l.identity.Load())/20) {
			return
		}
	}
}

func lifetime(id *identity) time.Duration { return id.leaf().NotAfter.Sub(id.leaf().NotBefore) }

// renewalTime adds up to a twentieth of the certificate's life, so that a fleet
// that enrolled together does not renew together.
func renewalTime(id *identity) time.Time {
	life := lifetime(id)
	return id.leaf().NotBefore.Add(life*2/3 + rand.N(life/20+1))
}

func (l *Link) sleepUntil(ctx context.Context, at time.Time) bool {
	for {
		left := at.Sub(l.options.Now())
		if left <= 0 {
			return true
		}
		if !sleep(ctx, min(left, maxSleep)) {
			return false
		}
	}
}

func (l *Link) renewRetrying(ctx context.Context) bool {
	wait := backoff{base: l.options.BackoffBase, cap: renewRetryCap}
	for {
		err := l.renew(ctx)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		pause := wait.next()
		if errors.Is(err, errNoConnection) {
			pause = min(pause, l.options.BackoffCap)
		} else {
			l.log.Error("certificate not renewed", "expires", l.identity.Load().leaf().NotAfter, "error", err, "retry_in", pause)
		}
		if !sleep(ctx, pause) {
			return false
		}
	}
}

// renew gets a certificate for a new key, keeps both, and has the connection
// made anew with them.
func (l *Link) renew(ctx context.Context) error {
	c := l.current.Load()
	if c == nil {
		return errNoConnection
	}
	key, err := newKey()
	if err != nil {
		return err
	}
	csr, err := newRequest(key)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	response, err := c.Renew(ctx, connect.NewRequest(&wirev1.RenewRequest{Csr: csr}))
	if err != nil {
		return fmt.Errorf("ask for a new certificate: %w", err)
	}
	old := l.identity.Load()
	id := &identity{agentID: old.agentID, server: old.server, key: key}
	id.chain, err = parseChain(response.Msg.GetChain(), key, pki.FingerprintOf(old.chain[1]))
	if err != nil {
		return err
	}
	if err := id.check(); err != nil {
		return err
	}
	if err := id.store(l.options.StateDir); err != nil {
		return err
	}
	l.identity.Store(id)
	signal(l.renewed)
	l.log.Info("certificate renewed", "expires", id.leaf().NotAfter)
	return nil
}
