package device

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"testing"

	"connectrpc.com/connect"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
	"github.com/cordon-security/cordon/internal/wire/v1/wirev1connect"
	"github.com/cordon-security/cordon/mitigator/store"
	"github.com/cordon-security/cordon/mitigator/store/sqlite"
)

// strict is a device that refuses what is older than what it holds, as the order
// contract says.
type strict struct {
	script
	held *wirev1.Revision
}

// Apply implements DeviceService.
func (s *strict) Apply(_ context.Context, r *connect.Request[wirev1.ApplyRequest]) (*connect.Response[wirev1.ApplyResponse], error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rev := r.Msg.GetSnapshot().GetRevision()
	if rev == nil || newer(rev, s.held) != rev {
		return connect.NewResponse(&wirev1.ApplyResponse{Held: s.held, NeedSnapshot: true, Detail: "older than what the device holds"}), nil
	}
	s.held, s.applied = rev, append(s.applied, r.Msg)
	return connect.NewResponse(&wirev1.ApplyResponse{Held: rev}), nil
}

// TestDeviceAheadOfTheStore holds that a mitigator whose store was put back from a
// backup, or made anew while its clock was wrong, still has its orders carried
// out: the device holds revisions that it would have to refuse its own for.
func TestDeviceAheadOfTheStore(t *testing.T) {
	for name, ahead := range map[string]func(epoch uint64) *wirev1.Revision{
		"a backup was put back":    func(epoch uint64) *wirev1.Revision { return &wirev1.Revision{Epoch: epoch, Number: 900} },
		"made anew, in the past":   func(epoch uint64) *wirev1.Revision { return &wirev1.Revision{Epoch: epoch + 1e12, Number: 3} },
		"the device is of another": func(uint64) *wirev1.Revision { return &wirev1.Revision{Epoch: 1, Number: 900} },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s, err := sqlite.Open(t.Context(), filepath.Join(dir, "cordon.db"))
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			order(t, s)
			gate := &strict{script: script{say: make(chan *wirev1.WatchResponse)}, held: ahead(epochOf(t, s))}
			listener, err := net.Listen("unix", filepath.Join(dir, "gate.sock"))
			if err != nil {
				t.Fatal(err)
			}
			mux := http.NewServeMux()
			mux.Handle(wirev1connect.NewDeviceServiceHandler(gate))
			server := &http.Server{Handler: mux}
			go func() { _ = server.Serve(listener) }() // it ends with the test
			defer server.Close()
			l, err := New(Options{Name: "gate", Socket: listener.Addr().String(), Store: s, Lifecycle: deaf{}, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- l.Run(ctx) }()
			defer func() { cancel(); <-ended }()
			state := &wirev1.WatchResponse{Event: &wirev1.WatchResponse_State{State: &wirev1.StatusResponse{Held: gate.held}}}
			gate.say <- state
			waitFor(t, "the device takes the orders", func() bool { return gate.orders() == 1 && l.State().Connected })
			waitFor(t, "both are in one epoch", func() bool { return l.State().Held.GetEpoch() == epochOf(t, s) })
		})
	}
}

func epochOf(t *testing.T, s store.Store) (epoch uint64) {
	t.Helper()
	err := s.View(t.Context(), func(v store.View) (err error) {
		epoch, err = v.Epoch()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return epoch
}
