package storetest

import (
	"context"
	"errors"
	"testing"

	"github.com/cordon-security/cordon/mitigator/endpoint"
	"github.com/cordon-security/cordon/mitigator/fleet"
	"github.com/cordon-security/cordon/mitigator/store"
	"github.com/cordon-security/cordon/mitigator/threat"
)

func missing(t *testing.T, open func() store.Store) {
	s := open()
	defer s.Close()
	view(t, s, func(v store.View) error {
		for name, get := range map[string]func() error{
			"Threat":     func() error { _, err := v.Threat(9); return err },
			"Task":       func() error { _, err := v.Task("x"); return err },
			"Quarantine": func() error { _, err := v.Quarantine("x"); return err },
			"Endpoint":   func() error { _, err := v.Endpoint(9); return err },
			"Agent":      func() error { _, err := v.Agent("x"); return err },
			"Token":      func() error { _, err := v.Token([32]byte{9}); return err },
		} {
			if err := get(); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("%s: %v, want ErrNotFound", name, err)
			}
		}
		return nil
	})
	for name, set := range map[string]func(store.Tx) error{
		"SetThreat":          func(tx store.Tx) error { return tx.SetThreat(threat.Threat{ID: 9}) },
		"SetTask":            func(tx store.Tx) error { return tx.SetTask(threat.Task{ID: "x"}) },
		"SetQuarantine":      func(tx store.Tx) error { return tx.SetQuarantine(threat.Quarantine{ID: "x"}) },
		"AddOrder":           func(tx store.Tx) error { _, err := tx.AddOrder("x"); return err },
		"SetEndpoint":        func(tx store.Tx) error { return tx.SetEndpoint(endpoint.Endpoint{ID: 9}) },
		"MergeEndpoint from": func(tx store.Tx) error { return mergeWith(tx, func(id int64) (int64, int64) { return 9, id }) },
		"MergeEndpoint into": func(tx store.Tx) error { return mergeWith(tx, func(id int64) (int64, int64) { return id, 9 }) },
		"SetAgent":           func(tx store.Tx) error { return tx.SetAgent(fleet.Agent{ID: "x"}) },
		"RevokeAgent":        func(tx store.Tx) error { return tx.RevokeAgent("x", t0, "eve", "") },
		"SetToken":           func(tx store.Tx) error { return tx.SetToken(fleet.Token{Hash: [32]byte{9}}) },
	} {
		if err := s.Update(context.Background(), set); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s: %v, want ErrNotFound", name, err)
		}
	}
	view(t, s, func(v store.View) error {
		all, err := v.Endpoints(0, 0)
		if err != nil || len(all) != 0 {
			t.Errorf("what was not found left %v, %v", all, err)
		}
		return nil
	})
}

func mergeWith(tx store.Tx, pick func(int64) (from, into int64)) error {
	e, err := addEndpoint(tx, 1)
	if err != nil {
		return err
	}
	return tx.MergeEndpoint(pick(e.ID))
}
