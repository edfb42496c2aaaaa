package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/cordon-security/cordon/mitigator/intake"
	"github.com/cordon-security/cordon/mitigator/store"
	"github.com/cordon-security/cordon/mitigator/threat"

	root "github.com/cordon-security/cordon/mitigator"
)

// victimEnv makes this test binary a mitigator that ends itself.
const victimEnv = "CORDON_E2E_VICTIM"

// victim says what kind of.
type victim struct {
	Dir, Note, Scenario string
	Death               death
}

// playVictim runs the mitigator until it is told to end, or ends itself.
func playVictim(text string) error {
	var v victim
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return err
	}
	c := root.DefaultConfig()
	c.StateDir = filepath.Join(v.Dir, "mitigator")
	c.Agents.Listen = endpointAddr.String() + ":" + agentPort
	c.Admin.Listen = endpointAddr.String() + ":" + adminPort
	c.HomeNetworks.Include = []netip.Prefix{netip.PrefixFrom(endpointAddr, 24).Masked()}
	c.Sources = []intake.SourceConfig{{Name: "eve", Kind: intake.KindSuricataFile, Path: filepath.Join(v.Dir, "eve.json")}}
	c.Devices = []root.DeviceConfig{{Name: "gate", Socket: filepath.Join(v.Dir, "gate.sock")}}
	c.Policy.Mode = threat.Enforce
	for _, s := range scenarios {
		if s.name == v.Scenario && s.policy != nil {
			s.policy(&c.Policy)
		}
	}
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("CORDON_E2E_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	m, err := root.New(ctx, root.Options{Config: c, Version: "victim", Log: log,
		WrapStore: func(s store.Store) store.Store { return &killer{Store: s, death: v.Death, note: v.Note} }})
	if err != nil {
		return err
	}
	if err := m.Run(ctx, func() {}); err != nil {
		return err
	}
	return m.Close()
}

// death says where the mitigator dies: at a commit, by its number from 1, or at
// the commit of a transition; inside the transaction, when all is written and
// nothing committed, or right after the commit, before anybody learns of it.
// The zero value lets it live.
type death struct {
	Commit int
	Step   string
	Inside bool
}

// String names the place.
func (d death) String() string {
	side := "after"
	if d.Inside {
		side = "inside"
	}
	switch {
	case d.Step != "":
		return fmt.Sprintf("killed %s the commit of %s", side, d.Step)
	case d.Commit > 0:
		return fmt.Sprintf("killed %s commit %d", side, d.Commit)
	}
	return "not killed"
}

// killer is a store that ends the process by SIGKILL.
type killer struct {
	store.Store
	death death
	note  string
	count atomic.Int64
}

// Update implements store.Store.
func (k *killer) Update(ctx context.Context, fn func(store.Tx) error) error {
	number := int(k.count.Add(1))
	var steps []string
	err := k.Store.Update(ctx, func(tx store.Tx) error {
		steps = nil
		err := fn(recorder{tx, &steps})
		if err == nil && k.death.Inside {
			k.dieAt(number, steps)
		}
		return err
	})
	if err == nil && !k.death.Inside {
		k.dieAt(number, steps)
	}
	return err
}

func (k *killer) dieAt(number int, steps []string) {
	if number != k.death.Commit && !slices.Contains(steps, k.death.Step) {
		return
	}
	if err := os.WriteFile(k.note, []byte(strings.Join(steps, " ")), 0o600); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// recorder notes which transitions a transaction makes.
type recorder struct {
	store.Tx
	steps *[]string
}

// AddTransition implements store.Tx.
func (r recorder) AddTransition(t threat.Transition) error {
	if t.From != t.To {
		*r.steps = append(*r.steps, fmt.Sprintf("%s→%s", t.From, t.To))
	}
	return r.Tx.AddTransition(t)
}
