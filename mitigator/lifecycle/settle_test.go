package lifecycle

import (
	"context"
	"testing"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
	"github.com/cordon-security/cordon/mitigator/endpoint"
	"github.com/cordon-security/cordon/mitigator/event"
	"github.com/cordon-security/cordon/mitigator/store"
	"github.com/cordon-security/cordon/mitigator/store/storetest"
	"github.com/cordon-security/cordon/mitigator/threat"
)

// onView does something once, before a store is read.
type onView struct {
	store.Store
	do func()
}

// View implements store.Store.
func (s *onView) View(ctx context.Context, fn func(store.View) error) error {
	if do := s.do; do != nil {
		s.do = nil
		do()
	}
	return s.Store.View(ctx, fn)
}

// TestLastToQueueIsNotForgotten holds that a batch which queues behind others just
// when the last of them is stored, and the disk counts as well again, is stored
// too: nobody would look at it, and all later ones of its source would wait behind
// it for ever.
func TestLastToQueueIsNotForgotten(t *testing.T) {
	w := newWorld(t, nil)
	w.backlog.heed(store.ErrFull, w.clock)
	<-w.backlog.wake // the watch of the disk is at work
	w.must(w.backlog.add(w.batch(0, 1, 10)))
	w.clock = w.clock.Add(2 * fullFor)
	w.store = &onView{Store: w.store, do: func() {
		if !w.catchUp(t.Context()) {
			t.Error("the disk does not count as well again")
		}
	}}
	w.must(w.Deliver(t.Context(), w.batch(1, 1, 10)))

	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { w.watchDisk(ctx); close(ended) }()
	defer func() { cancel(); <-ended }()
	storetest.Eventually(t, "the last batch is stored", func() bool { return w.events() == 2 })
	w.cursor("2")
}

// TestLateBindingsAndStatusesAreCarriedOut is the same of what devices say.
func TestLateBindingsAndStatusesAreCarriedOut(t *testing.T) {
	w := newWorld(t, nil)
	th := w.alert(printer, event.Attacker, true)
	w.must(w.backlog.addStatuses("local", []*wirev1.QuarantineStatus{{QuarantineId: th.QuarantineID, State: inForce}}))
	w.backlog.addBindings([]seen{{Binding: endpoint.Binding{Addr: dock, MAC: dockMAC, From: w.clock, LastSeen: w.clock, Source: "device:local"}, present: true}})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { w.watchDisk(ctx); close(ended) }()
	defer func() { cancel(); <-ended }()
	storetest.Eventually(t, "the device's word is taken in", func() bool {
		return w.quarantine(th.QuarantineID).State == threat.QuarantineInForce
	})
	storetest.Eventually(t, "what the device saw is taken in", func() bool { return len(w.endpointOf(dock).MACs) == 1 })
}
