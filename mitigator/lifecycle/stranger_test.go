package lifecycle

import (
	"net/netip"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
	"github.com/cordon-security/cordon/mitigator/endpoint"
	"github.com/cordon-security/cordon/mitigator/store"
)

// strangers are neighbours outside the home networks, each with a MAC and an
// address of its own, as anybody on the LAN can make up.
func (w *world) strangers(n int) (addrs []netip.Addr) {
	w.t.Helper()
	var made []*wirev1.AddressBinding
	for i := range n {
		a := netip.AddrFrom16([16]byte{0xfe, 0x80, 14: byte(i >> 8), 15: byte(i)})
		addrs = append(addrs, a)
		made = append(made, &wirev1.AddressBinding{Address: a.AsSlice(), Mac: []byte{2, 8, 0, 0, byte(i >> 8), byte(i)},
			SeenAt: timestamppb.New(w.clock), Present: true})
	}
	w.must(w.DeviceBindings(w.t.Context(), "local", made))
	return addrs
}

func (w *world) bound(addrs []netip.Addr) (n int) {
	w.t.Helper()
	w.must(w.store.View(w.t.Context(), func(v store.View) error {
		for _, a := range addrs {
			bs, err := v.Bindings(a)
			if err != nil {
				return err
			}
			n += len(bs)
		}
		return nil
	}))
	return n
}

// TestStrangersDoNotStay holds that neighbours which are no endpoints, and which
// anybody can make up at will, do not fill the store: they go when they were not
// seen for as long as an endpoint, and before their time when there are too many.
func TestStrangersDoNotStay(t *testing.T) {
	for name, c := range map[string]struct {
		most  int
		after time.Duration
	}{
		"in time":           {0, 31 * 24 * time.Hour},
		"before their time": {100, 2 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.retaining(func(r *store.Retention) { r.MaxEndpoints = c.most })
			w.home.Include = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
			all := w.strangers(1000)
			if w.bound(all) != len(all) {
				t.Fatal("they are not known at all")
			}
			w.must(w.retain(t.Context(), true))
			w.clock = w.clock.Add(c.after)
			w.neighbor(printer, printMAC)
			router := netip.MustParseAddr("198.51.100.1")
			w.neighbor(router, endpoint.MAC{2, 7, 0, 0, 0, 1}) // seen now
			w.must(w.retain(t.Context(), true))
			if n := w.bound(all); n != 0 {
				t.Errorf("%d of %d stay", n, len(all))
			}
			if n := w.bound([]netip.Addr{router, printer}); n != 2 {
				t.Errorf("%d of two that were seen of late stay", n)
			}
		})
	}
}
