package mitigator

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/cordon-security/cordon/mitigator/store"
	"github.com/cordon-security/cordon/mitigator/store/storetest"
)

// stuck is a store whose updates hang while it is so.
type stuck struct {
	store.Store
	gate chan struct{}
}

// Update implements store.Store.
func (s *stuck) Update(ctx context.Context, fn func(store.Tx) error) error {
	<-s.gate
	return s.Store.Update(ctx, fn)
}

// fullUp is a store on a full disk.
type fullUp struct{ store.Store }

// Update implements store.Store.
func (fullUp) Update(context.Context, func(store.Tx) error) error { return store.ErrFull }

// TestHealthAsksTheWriter holds that the watchdog hears of a store that can be
// read and takes nothing any more: no alert, order or answer would come through,
// and nobody would restart it. A full disk is no reason to restart.
func TestHealthAsksTheWriter(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir, testConfig(dir))
	if !r.Healthy() {
		t.Fatal("not healthy from the start")
	}
	real := r.store
	gate := make(chan struct{})
	r.writer.limit = time.Millisecond
	r.store = &stuck{real, gate}
	storetest.Eventually(t, "a stuck writer is unhealthy", func() bool { return !r.Healthy() })
	close(gate)
	storetest.Eventually(t, "it is healthy again", r.Healthy)
	r.store = fullUp{real}
	r.Healthy()
	storetest.Eventually(t, "a full disk is healthy", r.Healthy)
	r.store = real
}

// TestStateIsNobodyElses holds that a state directory which others could look into
// is closed to them: the events and the endpoints lie in it.
func TestStateIsNobodyElses(t *testing.T) {
	dir := t.TempDir()
	c := testConfig(dir)
	if err := os.Mkdir(c.StateDir, 0o755); err != nil {
		t.Fatal(err)
	}
	start(t, dir, c)
	info, err := os.Stat(c.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	if mode := info.Mode().Perm(); mode != 0o700 {
		t.Errorf("the state directory has mode %#o", mode)
	}
}
