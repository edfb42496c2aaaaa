package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cordon-security/cordon/mitigator/fleet"
	"github.com/cordon-security/cordon/mitigator/store"
)

func agents(t *testing.T, open func() store.Store) {
	s := open()
	a := fleet.Agent{ID: "a", Hostname: "alice", Version: "1", Observer: "bpf", Serial: "01", EnrolledAt: t0, LastSeen: t0, CertExpires: t0.Add(time.Hour)}
	b := a
	b.ID, b.EnrolledAt = "b", t0.Add(time.Minute)
	update(t, s, func(tx store.Tx) error { return errors.Join(tx.AddAgent(b), tx.AddAgent(a)) })
	if err := s.Update(context.Background(), func(tx store.Tx) error { return tx.AddAgent(a) }); err == nil {
		t.Error("one agent was added twice")
	}
	a.Version, a.LastSeen, a.Serial = "2", t0.Add(time.Minute), "02"
	update(t, s, func(tx store.Tx) error { return tx.SetAgent(a) })
	revoked := t0.Add(time.Hour)
	update(t, s, func(tx store.Tx) error { return tx.RevokeAgent("a", revoked, "admin:eve", "stolen") })
	update(t, s, func(tx store.Tx) error {
		alive := a
		alive.LastSeen = t0.Add(2 * time.Hour) // a late sign of life does not bring it back
		return errors.Join(tx.SetAgent(alive), tx.RevokeAgent("a", revoked.Add(time.Hour), "admin:bob", "again"))
	})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open()
	defer s.Close()
	view(t, s, func(v store.View) error {
		want := a
		want.RevokedAt, want.LastSeen = revoked, t0.Add(2*time.Hour)
		all, err := v.Agents()
		if err != nil || len(all) != 2 || fmt.Sprint(all[0]) != fmt.Sprint(want) || fmt.Sprint(all[1]) != fmt.Sprint(b) {
			t.Errorf("agents: %v %v\nwant %v and %v", all, err, want, b)
		}
		return nil
	})
}

func tokens(t *testing.T, open func() store.Store) {
	s := open()
	want := fleet.Token{Hash: [32]byte{1, 31: 2}, Comment: "bob's laptop", CreatedBy: "eve", CreatedAt: t0, ExpiresAt: t0.Add(time.Hour)}
	update(t, s, func(tx store.Tx) error { return tx.AddToken(want) })
	if err := s.Update(context.Background(), func(tx store.Tx) error { return tx.AddToken(want) }); err == nil {
		t.Error("one token was added twice")
	}
	used := errors.New("used already")
	var wg sync.WaitGroup
	var winners atomic.Int64
	for n := range 20 {
		wg.Go(func() {
			err := s.Update(context.Background(), func(tx store.Tx) error {
				tok, err := tx.Token(want.Hash)
				if err != nil {
					return err
				}
				if !tok.UsedAt.IsZero() {
					return used
				}
				tok.UsedAt, tok.UsedBy = t0.Add(time.Minute), fmt.Sprintf("agent-%d", n)
				return tx.SetToken(tok)
			})
			if err == nil {
				winners.Add(1)
			} else if !errors.Is(err, used) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if winners.Load() != 1 {
		t.Errorf("one token served %d agents", winners.Load())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open()
	defer s.Close()
	view(t, s, func(v store.View) error {
		got, err := v.Token(want.Hash)
		if err != nil || !got.UsedAt.Equal(t0.Add(time.Minute)) || got.UsedBy == "" {
			t.Errorf("the token after a restart: %+v %v", got, err)
		}
		got.UsedAt, got.UsedBy = time.Time{}, ""
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("the token is %v, want %v", got, want)
		}
		return nil
	})
}
