package api

import (
	"context"
	"time"

	"github.com/cordon-security/cordon/mitigator/store"
	"github.com/cordon-security/cordon/mitigator/threat"
)

const (
	// settleLimit is how long an administrator's order waits for the device's
	// word. It is answered without it then: the order is durable by itself.
	settleLimit = 2 * time.Second
	// settleLook is how often it is looked at. A device has read an order back
	// within milliseconds.
	settleLook = 5 * time.Millisecond
)

// settled is a quarantine that was ordered or released just now, as the device
// says that it is, so that the administrator is told what happened instead of
// what was asked for. With no device connected it does not wait.
func (a *API) settled(ctx context.Context, q threat.Quarantine) threat.Quarantine {
	for _, d := range a.Devices {
		if d.State().Connected {
			return settle(ctx, q, settleLimit, func() (now threat.Quarantine, err error) {
				err = a.Store.View(ctx, func(v store.View) error {
					now, err = v.Quarantine(q.ID)
					return err
				})
				return now, err
			})
		}
	}
	return q
}

// settle reads a quarantine again until no device's word is due, or the limit.
func settle(ctx context.Context, q threat.Quarantine, limit time.Duration, read func() (threat.Quarantine, error)) threat.Quarantine {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	look := time.NewTicker(settleLook)
	defer look.Stop()
	for q.State == threat.QuarantineOrdered || q.State == threat.QuarantineReleasing {
		select {
		case <-ctx.Done():
			return q
		case <-look.C:
		}
		now, err := read()
		if err != nil {
			return q
		}
		q = now
	}
	return q
}
