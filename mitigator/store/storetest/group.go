package storetest

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/cordon-security/cordon/mitigator/store"
)

// groupError holds the writer up until others wait behind it, so that they share
// a commit, one of them with an error.
func groupError(t *testing.T, open func() store.Store) {
	s := open()
	defer s.Close()
	running, release := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Update(context.Background(), func(store.Tx) error {
			close(running)
			<-release
			return nil
		}); err != nil {
			t.Error(err)
		}
	})
	<-running
	failed := errors.New("no")
	var started sync.WaitGroup
	for n := range byte(30) {
		started.Add(1)
		wg.Go(func() {
			started.Done()
			err := s.Update(context.Background(), func(tx store.Tx) error {
				e, err := addEndpoint(tx, n)
				if err != nil {
					return err
				}
				if n == 7 {
					return failed
				}
				// What this one wrote, and nothing of the failed one, is seen by itself.
				if _, err := tx.Endpoint(e.ID); err != nil {
					return err
				}
				return tx.SetCursor("eve", []byte{n})
			})
			if (n == 7) != errors.Is(err, failed) || (n != 7 && err != nil) {
				t.Errorf("update %d: %v", n, err)
			}
		})
	}
	started.Wait()
	close(release)
	wg.Wait()
	view(t, s, func(v store.View) error {
		all, err := v.Endpoints(0, 100)
		if err != nil || len(all) != 29 {
			t.Errorf("%d endpoints, %v; want all but the failed one's", len(all), err)
		}
		if _, ok, err := v.EndpointByMAC(mac(7)); ok || err != nil {
			t.Errorf("the failed one's endpoint is there: %v %v", ok, err)
		}
		return nil
	})
}
