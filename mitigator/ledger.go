package mitigator

import (
	"context"
	"errors"
	"time"

	"github.com/cordon-security/cordon/mitigator/fleet"
	"github.com/cordon-security/cordon/mitigator/store"
)

// ledger keeps the agent channel's agents and tokens in the store.
type ledger struct {
	store store.Store
}

var _ fleet.Store = ledger{}

// CreateToken implements fleet.Store.
func (l ledger) CreateToken(ctx context.Context, t fleet.Token) error {
	return l.store.Update(ctx, func(tx store.Tx) error { return tx.AddToken(t) })
}

// EnrollAgent implements fleet.Store.
func (l ledger) EnrollAgent(ctx context.Context, tokenHash [32]byte, now time.Time, a fleet.Agent) error {
	return l.store.Update(ctx, func(tx store.Tx) error {
		token, err := tx.Token(tokenHash)
		if errors.Is(err, store.ErrNotFound) {
			return fleet.ErrTokenUnknown
		}
		if err != nil {
			return err
		}
		old, err := tx.Agent(a.ID)
		known := err == nil
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		switch {
		case !token.UsedAt.IsZero() && token.UsedBy != a.ID, known && !old.RevokedAt.IsZero():
			return fleet.ErrTokenUsed
		case !now.Before(token.ExpiresAt):
			return fleet.ErrTokenExpired
		}
		token.UsedAt, token.UsedBy = now, a.ID
		if err := tx.SetToken(token); err != nil {
			return err
		}
		if !known {
			return tx.AddAgent(a)
		}
		if !old.EnrolledAt.IsZero() {
			a.EnrolledAt = old.EnrolledAt
		}
		return tx.SetAgent(a)
	})
}

// Agent implements fleet.Store.
func (l ledger) Agent(ctx context.Context, id string) (a fleet.Agent, err error) {
	err = l.store.View(ctx, func(v store.View) (err error) {
		a, err = v.Agent(id)
		return unknown(err)
	})
	return a, err
}

// Agents implements fleet.Store.
func (l ledger) Agents(ctx context.Context) (all []fleet.Agent, err error) {
	err = l.store.View(ctx, func(v store.View) (err error) {
		all, err = v.Agents()
		return err
	})
	return all, err
}

// TouchAgent implements fleet.Store.
func (l ledger) TouchAgent(ctx context.Context, id string, seen time.Time, version, observer string) error {
	return l.change(ctx, id, func(a *fleet.Agent) {
		a.LastSeen = seen
		if version != "" {
			a.Version = version
		}
		if observer != "" {
			a.Observer = observer
		}
	})
}

// SetCertificate implements fleet.Store.
func (l ledger) SetCertificate(ctx context.Context, id, serial string, expires time.Time) error {
	return l.change(ctx, id, func(a *fleet.Agent) { a.Serial, a.CertExpires = serial, expires })
}

// RevokeAgent implements fleet.Store.
func (l ledger) RevokeAgent(ctx context.Context, id string, at time.Time, by, reason string) error {
	// A stolen agent must be shut out on a full disk too.
	return l.store.Update(store.Urgent(ctx), func(tx store.Tx) error { return unknown(tx.RevokeAgent(id, at, by, reason)) })
}

func (l ledger) change(ctx context.Context, id string, fn func(*fleet.Agent)) error {
	return l.store.Update(ctx, func(tx store.Tx) error {
		a, err := tx.Agent(id)
		if err != nil {
			return unknown(err)
		}
		fn(&a)
		return tx.SetAgent(a)
	})
}

func unknown(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return fleet.ErrAgentUnknown
	}
	return err
}
