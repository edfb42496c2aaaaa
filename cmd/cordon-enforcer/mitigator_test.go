package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/cordon-security/cordon/internal/testlan"
	"github.com/cordon-security/cordon/mitigator/device"
	"github.com/cordon-security/cordon/mitigator/endpoint"
	"github.com/cordon-security/cordon/mitigator/event"
	"github.com/cordon-security/cordon/mitigator/intake"
	"github.com/cordon-security/cordon/mitigator/lifecycle"
	"github.com/cordon-security/cordon/mitigator/store"
	"github.com/cordon-security/cordon/mitigator/store/sqlite"
	"github.com/cordon-security/cordon/mitigator/threat"
)

// nobodyProtected is a mitigator's guard without rules; the device keeps its own.
type nobodyProtected struct{}

func (nobodyProtected) Check(time.Time, endpoint.Endpoint, []endpoint.Binding, []time.Time, int) error {
	return nil
}
func (nobodyProtected) AtCap(error) bool      { return false }
func (nobodyProtected) Window() time.Duration { return time.Hour }
func (nobodyProtected) AtOnce() int           { return 0 }

// mitigator is the life cycle and its link to the device, without the rest.
type mitigator struct {
	store  store.Store
	engine *lifecycle.Engine
	link   *device.Link
}

func newMitigator(t *testing.T, r *rig) *mitigator {
	s, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "cordon.db"))
	if err != nil {
		t.Fatal(err)
	}
	m := &mitigator{store: s}
	p := threat.DefaultPolicy()
	p.Mode = threat.Enforce
	m.engine, err = lifecycle.New(lifecycle.Options{
		Store: s, Policy: p, Guard: nobodyProtected{}, Log: slog.New(slog.DiscardHandler),
		WakeAgent: func(string) {}, WakeDevices: func() { m.link.Wake() },
	})
	if err != nil {
		t.Fatal(err)
	}
	m.link, err = device.New(device.Options{
		Name: "gate", Socket: r.host.Path(socket), Store: s, Lifecycle: m.engine, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.link.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, s.Close()); err != nil {
			t.Error(err)
		}
	})
	return m
}

// alert is an established connection of the address to the C2.
func (m *mitigator) alert(ctx context.Context, a netip.Addr) error {
	now := time.Now().UTC()
	l := event.Local{Addr: a, Port: 4711, Remote: netip.AddrPortFrom(testlan.C2IPv4, testlan.C2Port), Outbound: true,
		Role: event.Attacker, RoleReason: "it called out", Established: true, Proto: event.ProtoTCP}
	ev := event.Event{Source: "eve", Key: event.Key{1}, Time: now, Received: now, Kind: "suricata:1:1", Signature: "C2",
		Severity: event.High, Proto: event.ProtoTCP, Src: netip.AddrPortFrom(a, 4711), Dst: l.Remote, Raw: []byte("{}")}
	return m.engine.Deliver(ctx, intake.Batch{Source: "eve", Cursor: []byte{1},
		Events: []event.Classified{{Event: ev, Disposition: event.Threat, Locals: []event.Local{l}}}})
}

func (m *mitigator) threat(ctx context.Context) (t threat.Threat, q threat.Quarantine, err error) {
	err = m.store.View(ctx, func(v store.View) error {
		all, err := v.Threats(false, 0, 0)
		if err != nil || len(all) != 1 {
			return errors.Join(err, fmt.Errorf("%d threats, want one", len(all)))
		}
		t = all[0]
		if t.QuarantineID != "" {
			q, err = v.Quarantine(t.QuarantineID)
		}
		return err
	})
	return t, q, err
}

func (m *mitigator) reaches(r *rig, want threat.State, and threat.QuarantineState) {
	r.Helper()
	r.eventually(fmt.Sprintf("the threat is %s, its quarantine %s", want, and), func() error {
		t, q, err := m.threat(r.Context())
		if err == nil && (t.State != want || q.State != and) {
			err = fmt.Errorf("the threat is %s (waiting for %q), its quarantine %s (%s), the device %+v", t.State, t.WaitingFor, q.State, q.Detail, m.link.State())
		}
		return err
	})
}

// TestMitigatorAndDevice is the way from an alert to packets that are dropped,
// and back, over the device's real socket.
func TestMitigatorAndDevice(t *testing.T) {
	lan, r := standard(t, bridged)
	m := newMitigator(t, r)
	r.reaches(lan.Printer, true, testlan.AliceIPv4, testlan.WebIPv4)
	r.eventually("the mitigator knows the printer's MAC", func() error {
		return m.store.View(t.Context(), func(v store.View) error {
			b, err := v.Bindings(testlan.PrinterIPv4)
			if err == nil && len(b) == 0 {
				err = errors.New("no binding")
			}
			return err
		})
	})
	if err := m.alert(t.Context(), testlan.PrinterIPv4); err != nil {
		t.Fatal(err)
	}
	m.reaches(r, threat.Quarantined, threat.QuarantineInForce)
	r.reaches(lan.Printer, false, testlan.AliceIPv4, testlan.AliceIPv6, testlan.WebIPv4)
	r.reaches(lan.Printer, true, testlan.ApplianceIPv4)
	r.reaches(lan.Alice, true, testlan.BobIPv4, testlan.WebIPv4)

	// A release while the device is down is carried out when it returns, and not
	// called done before.
	r.kill()
	th, _, err := m.threat(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.engine.ReleaseByPerson(t.Context(), th.EndpointID, "eve", "printer reset"); err != nil {
		t.Fatal(err)
	}
	r.reaches(lan.Printer, false, testlan.AliceIPv4)
	m.reaches(r, threat.Released, threat.QuarantineReleasing)
	r.start()
	m.reaches(r, threat.Released, threat.QuarantineEnded)
	r.reaches(lan.Printer, true, testlan.AliceIPv4, testlan.WebIPv4)
}
