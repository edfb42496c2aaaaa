package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cordon-security/cordon/internal/testlan"
	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
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
	deaf   *deaf
}

// deaf loses what the device says while it is on, as a full disk or a crash
// between the device's answer and its record does.
type deaf struct {
	*lifecycle.Engine
	on   atomic.Bool
	lost atomic.Int32
}

func (d *deaf) DeviceStatus(ctx context.Context, device string, s []*wirev1.QuarantineStatus) error {
	if d.on.Load() && len(s) > 0 {
		d.lost.Add(1)
		return errors.New("the store is full")
	}
	return d.Engine.DeviceStatus(ctx, device, s)
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
	m.deaf = &deaf{Engine: m.engine}
	m.link, err = device.New(device.Options{
		Name: "gate", Socket: r.host.Path(socket), Store: s, Lifecycle: m.deaf, Log: slog.New(slog.DiscardHandler),
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

// TestLostAnswerOfARelease loses the device's word that a quarantine is lifted:
// the device keeps no trace of it, so the mitigator must ask again.
func TestLostAnswerOfARelease(t *testing.T) {
	lan, r := standard(t, bridged)
	m := newMitigator(t, r)
	r.reaches(lan.Printer, true, testlan.WebIPv4) // through the appliance, which learns its MAC
	r.eventually("the quarantine is in force", func() error {
		q, err := m.byHand(t.Context(), lan)
		if err == nil && q.State != threat.QuarantineInForce {
			err = fmt.Errorf("it is %s", q.State)
		}
		return err
	})
	q, err := m.byHand(t.Context(), lan)
	if err != nil {
		t.Fatal(err)
	}
	m.deaf.on.Store(true)
	if _, err := m.engine.ReleaseByPerson(t.Context(), q.EndpointID, "eve", "clean"); err != nil {
		t.Fatal(err)
	}
	r.eventually("the answer is lost", func() error {
		if m.deaf.lost.Load() == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	r.reaches(lan.Printer, true, testlan.AliceIPv4)
	m.deaf.on.Store(false)
	r.eventually("the release ends", func() error {
		return m.store.View(t.Context(), func(v store.View) error {
			now, err := v.Quarantine(q.ID)
			if err == nil && now.State != threat.QuarantineEnded {
				err = fmt.Errorf("it is %s; the device: %+v", now.State, m.link.State())
			}
			return err
		})
	})
}

// byHand quarantines the printer, once its MAC is known, and returns what stands.
func (m *mitigator) byHand(ctx context.Context, lan *testlan.Standard) (q threat.Quarantine, err error) {
	hw, err := lan.Printer.MAC(testlan.Port)
	if err != nil {
		return q, err
	}
	mac, err := endpoint.MACFrom(hw)
	if err != nil {
		return q, err
	}
	var ep endpoint.Endpoint
	var stands bool
	err = m.store.View(ctx, func(v store.View) error {
		var known bool
		if ep, known, err = v.EndpointByMAC(mac); err != nil || !known {
			return errors.Join(err, errors.New("the printer is not known yet"))
		}
		q, stands, err = v.ActiveQuarantine(ep.ID)
		return err
	})
	if err != nil || stands {
		return q, err
	}
	return m.engine.QuarantineByPerson(ctx, ep.ID, threat.AccessLimited, "test", "eve", 0)
}
