package mitigator

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/cordon-security/cordon/internal/config"
	"github.com/cordon-security/cordon/internal/dirlock"
	"github.com/cordon-security/cordon/internal/pki"
	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
	"github.com/cordon-security/cordon/internal/wire/v1/wirev1connect"
	"github.com/cordon-security/cordon/mitigator/admin"
	"github.com/cordon-security/cordon/mitigator/endpoint"
	"github.com/cordon-security/cordon/mitigator/intake"
	"github.com/cordon-security/cordon/mitigator/store"
	"github.com/cordon-security/cordon/mitigator/threat"
)

// running is a mitigator that serves on loopback, and an administrator's client.
type running struct {
	*Mitigator
	eve    string
	client wirev1connect.AdminServiceClient
	token  pki.Token
}

func testConfig(dir string) Config {
	c := DefaultConfig()
	c.StateDir = filepath.Join(dir, "state")
	c.Agents = ListenConfig{Listen: "127.0.0.1:0", Address: "cordon.test:7443"}
	c.Admin = ListenConfig{Listen: "127.0.0.1:0"}
	c.Names = []string{"localhost", "127.0.0.1"}
	c.HomeNetworks.Include = []netip.Prefix{netip.MustParsePrefix("10.9.0.0/24")}
	c.Sources = []intake.SourceConfig{{Name: "eve", Kind: intake.KindSuricataFile, Path: filepath.Join(dir, "eve.json")}}
	c.Devices = []DeviceConfig{{Name: "built-in", Socket: filepath.Join(dir, "enforcer.sock")}}
	c.Policy.Mode = threat.Enforce
	return c
}

func start(t *testing.T, dir string, c Config) *running {
	t.Helper()
	return startWith(t, dir, Options{Config: c})
}

func startWith(t *testing.T, dir string, o Options) *running {
	t.Helper()
	o.Version, o.Log = "test", slog.New(slog.DiscardHandler)
	m, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- m.Run(ctx, func() { close(ready) }) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, m.Close()); err != nil {
			t.Error(err)
		}
	})
	select {
	case <-ready:
	case err := <-ended:
		ended <- nil
		t.Fatal(err)
	}
	r := &running{Mitigator: m, eve: filepath.Join(dir, "eve.json")}
	r.addAdmin(t, "carol")
	return r
}

func (r *running) addAdmin(t *testing.T, name string) {
	t.Helper()
	admins, err := admin.New(r.config.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := OpenCA(r.config.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	if r.token, err = admins.Add(name, "", ca.Fingerprint(), time.Now()); err != nil {
		t.Fatal(err)
	}
	r.client = r.clientWith(r.token.Secret.Reveal(), ca.Fingerprint())
}

func (r *running) clientWith(token string, ca pki.Fingerprint) wirev1connect.AdminServiceClient {
	transport := &http.Transport{TLSClientConfig: &tls.Config{
		MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, VerifyConnection: ca.VerifyMitigator(nil),
	}}
	return wirev1connect.NewAdminServiceClient(&http.Client{Transport: bearer{transport, token}}, "https://"+r.AdminAddr().String())
}

type bearer struct {
	next  http.RoundTripper
	token string
}

// RoundTrip implements http.RoundTripper.
func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	if b.token != "" {
		r.Header.Set("Authorization", "Bearer "+b.token)
	}
	return b.next.RoundTrip(r)
}

// alert appends a record as Suricata writes it: an established connection of the
// address to a command and control server.
func (r *running) alert(t *testing.T, src string, sid int) {
	t.Helper()
	r.alertAt(t, src, sid, time.Now())
}

func (r *running) alertAt(t *testing.T, src string, sid int, at time.Time) {
	t.Helper()
	now := at.UTC().Format("2006-01-02T15:04:05.000000-0700")
	line, err := json.Marshal(map[string]any{
		"timestamp": now, "flow_id": 1_000_000 + sid, "event_type": "alert", "src_ip": src, "src_port": 50000 + sid%1000,
		"dest_ip": "198.51.100.66", "dest_port": 443, "proto": "TCP", "app_proto": "tls", "direction": "to_server",
		"alert": map[string]any{"action": "allowed", "gid": 1, "signature_id": sid, "rev": 1,
			"signature": fmt.Sprintf("TEST MALWARE CnC Beacon %d", sid), "category": "Malware Command and Control Activity Detected", "severity": 1},
		"flow": map[string]any{"pkts_toserver": 12, "pkts_toclient": 10, "bytes_toserver": 2400, "bytes_toclient": 9000, "start": now},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.write(t, string(line)+"\n")
}

func (r *running) write(t *testing.T, text string) {
	t.Helper()
	f, err := os.OpenFile(r.eve, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// binding is what a device would say: the MAC has the address.
func (r *running) binding(t *testing.T, addr string, mac endpoint.MAC) {
	t.Helper()
	err := r.engine.DeviceBindings(t.Context(), "built-in", []*wirev1.AddressBinding{
		{Address: netip.MustParseAddr(addr).AsSlice(), Mac: mac[:], Present: true},
	})
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, fn func() error) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := fn()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not after 30 seconds: %s: %v", what, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (r *running) threats(t *testing.T, want int) []*wirev1.Threat {
	t.Helper()
	var out []*wirev1.Threat
	eventually(t, fmt.Sprintf("%d threats", want), func() error {
		got, err := r.client.ListThreats(t.Context(), connect.NewRequest(&wirev1.ListThreatsRequest{}))
		if err != nil {
			return err
		}
		if out = got.Msg.GetThreats(); len(out) != want {
			return fmt.Errorf("%d threats", len(out))
		}
		return nil
	})
	return out
}

func wantCode(t *testing.T, what string, err error, want connect.Code, words string) {
	t.Helper()
	if connect.CodeOf(err) != want || err == nil || !strings.Contains(err.Error(), words) {
		t.Errorf("%s: %v, want %s with %q", what, err, want, words)
	}
}

var printer = endpoint.MAC{2, 0, 0, 0, 0, 9}

// TestAlertToOrderAndRelease is the way from a line in eve.json to an order for
// the device, and what the administrator sees and decides of it.
func TestAlertToOrderAndRelease(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir, testConfig(dir))
	r.binding(t, "10.9.0.20", printer)
	r.alert(t, "10.9.0.20", 2_000_001)
	r.write(t, "this is no JSON\n")
	th := r.threats(t, 1)[0]
	if th.GetState() != "unresolved" || th.GetEndpointName() != printer.String() || th.GetAddresses()[0] != "10.9.0.20" || th.GetRemote() != "198.51.100.66:443" {
		t.Errorf("threat %v", th)
	}
	show, err := r.client.GetThreat(t.Context(), connect.NewRequest(&wirev1.GetThreatRequest{Id: th.GetId()}))
	if err != nil {
		t.Fatal(err)
	}
	if q := show.Msg.GetQuarantine(); q.GetState() != "ordered" || q.GetMacs()[0] != printer.String() || q.GetActor() != "policy" {
		t.Errorf("quarantine %v", q)
	}
	if n := len(show.Msg.GetTimeline()); n < 2 || len(show.Msg.GetEvents()) != 1 || !json.Valid(show.Msg.GetEvents()[0].GetRaw()) {
		t.Errorf("%d steps, events %v", n, show.Msg.GetEvents())
	}
	eventually(t, "the broken line is counted and kept", func() error {
		rejects, err := r.client.ListRejects(t.Context(), connect.NewRequest(&wirev1.ListRejectsRequest{}))
		if err != nil || len(rejects.Msg.GetRejects()) != 1 || string(rejects.Msg.GetRejects()[0].GetRaw()) != "this is no JSON" {
			return fmt.Errorf("%v, %w", rejects, err)
		}
		return nil
	})
	r.statusIs(t)
	r.release(t, th.GetId())
}

func (r *running) statusIs(t *testing.T) {
	t.Helper()
	got, err := r.client.GetStatus(t.Context(), connect.NewRequest(&wirev1.GetStatusRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	s := got.Msg
	if s.GetMode() != "enforce" || s.GetThreatsOpen() != 1 || len(s.GetDevices()) != 1 || s.GetDevices()[0].GetConnected() {
		t.Errorf("status %v", s)
	}
	if src := s.GetSources()[0]; !src.GetHealthy() || src.GetEvents() != 1 || src.GetRejected() != 1 {
		t.Errorf("source %v", src)
	}
	if !strings.Contains(strings.Join(s.GetAlarms(), "\n"), "device built-in is not connected") {
		t.Errorf("alarms %q", s.GetAlarms())
	}
}

func (r *running) release(t *testing.T, id int64) {
	t.Helper()
	ask := &wirev1.ReleaseEndpointRequest{Endpoint: "10.9.0.20", Note: "reinstalled"}
	preview, err := r.client.ReleaseEndpoint(t.Context(), connect.NewRequest(&wirev1.ReleaseEndpointRequest{Endpoint: "10.9.0.20", Preview: true}))
	if err != nil || preview.Msg.GetQuarantines()[0].GetState() != "ordered" || preview.Msg.GetQuarantines()[0].GetMacs()[0] != printer.String() {
		t.Errorf("preview %v, %v", preview, err)
	}
	_, err = r.client.ReleaseEndpoint(t.Context(), connect.NewRequest(ask))
	wantCode(t, "release without confirmation", err, connect.CodeFailedPrecondition, "confirmation")
	ask.ThreatIsGone = true
	got, err := r.client.ReleaseEndpoint(t.Context(), connect.NewRequest(ask))
	if err != nil {
		t.Fatal(err)
	}
	if q := got.Msg.GetQuarantines()[0]; q.GetState() != "releasing" || q.GetEndedBy() != "admin:carol" || !strings.Contains(q.GetConfirmation(), "reinstalled") {
		t.Errorf("released %v", q)
	}
	_, err = r.client.ReleaseEndpoint(t.Context(), connect.NewRequest(ask))
	if err != nil && connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("released twice: %v", err)
	}
	show, err := r.client.GetThreat(t.Context(), connect.NewRequest(&wirev1.GetThreatRequest{Id: id}))
	if err != nil || show.Msg.GetThreat().GetState() != "released" {
		t.Errorf("threat after the release: %v, %v", show, err)
	}
}

// TestNobodyGetsInWithoutToken holds that every call of the API asks for an
// administrator's token, and that one who was removed is out at once.
func TestNobodyGetsInWithoutToken(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir, testConfig(dir))
	enrol, err := r.client.CreateAgentToken(t.Context(), connect.NewRequest(&wirev1.CreateAgentTokenRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	for what, token := range map[string]string{"none": "", "an enrolment token": enrol.Msg.GetToken(), "nonsense": "x", "the name": "carol"} {
		refusedEverywhere(t, what, r.clientWith(token, r.token.Fingerprint))
	}
	if _, err := r.clientWith(r.token.Reveal(), r.token.Fingerprint).GetStatus(t.Context(), connect.NewRequest(&wirev1.GetStatusRequest{})); err != nil {
		t.Errorf("with the whole token: %v", err)
	}
	_, err = r.clientWith(r.token.Reveal(), pki.Fingerprint{1}).GetStatus(t.Context(), connect.NewRequest(&wirev1.GetStatusRequest{}))
	if !errors.Is(err, pki.ErrWrongCA) {
		t.Errorf("another appliance's fingerprint: %v", err)
	}
	admins, err := admin.New(r.config.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	if err := admins.Remove("carol"); err != nil {
		t.Fatal(err)
	}
	refusedEverywhere(t, "one who was removed", r.client)
}

func refusedEverywhere(t *testing.T, what string, c wirev1connect.AdminServiceClient) {
	t.Helper()
	ctx := t.Context()
	calls := map[string]func() error{}
	call(calls, "GetStatus", func() (any, error) { return c.GetStatus(ctx, connect.NewRequest(&wirev1.GetStatusRequest{})) })
	call(calls, "ListThreats", func() (any, error) { return c.ListThreats(ctx, connect.NewRequest(&wirev1.ListThreatsRequest{})) })
	call(calls, "GetThreat", func() (any, error) { return c.GetThreat(ctx, connect.NewRequest(&wirev1.GetThreatRequest{})) })
	call(calls, "ListEvents", func() (any, error) { return c.ListEvents(ctx, connect.NewRequest(&wirev1.ListEventsRequest{})) })
	call(calls, "ListEndpoints", func() (any, error) {
		return c.ListEndpoints(ctx, connect.NewRequest(&wirev1.ListEndpointsRequest{}))
	})
	call(calls, "ListQuarantines", func() (any, error) {
		return c.ListQuarantines(ctx, connect.NewRequest(&wirev1.ListQuarantinesRequest{}))
	})
	call(calls, "QuarantineEndpoint", func() (any, error) {
		return c.QuarantineEndpoint(ctx, connect.NewRequest(&wirev1.QuarantineEndpointRequest{Endpoint: printer.String(), Reason: "x"}))
	})
	call(calls, "ReleaseEndpoint", func() (any, error) {
		return c.ReleaseEndpoint(ctx, connect.NewRequest(&wirev1.ReleaseEndpointRequest{Endpoint: printer.String(), ThreatIsGone: true}))
	})
	call(calls, "ListAgents", func() (any, error) { return c.ListAgents(ctx, connect.NewRequest(&wirev1.ListAgentsRequest{})) })
	call(calls, "CreateAgentToken", func() (any, error) {
		return c.CreateAgentToken(ctx, connect.NewRequest(&wirev1.CreateAgentTokenRequest{}))
	})
	call(calls, "RevokeAgent", func() (any, error) {
		return c.RevokeAgent(ctx, connect.NewRequest(&wirev1.RevokeAgentRequest{AgentId: "a", Reason: "x"}))
	})
	call(calls, "ListSources", func() (any, error) { return c.ListSources(ctx, connect.NewRequest(&wirev1.ListSourcesRequest{})) })
	call(calls, "ListRejects", func() (any, error) { return c.ListRejects(ctx, connect.NewRequest(&wirev1.ListRejectsRequest{})) })
	call(calls, "CloseThreat", func() (any, error) {
		return c.CloseThreat(ctx, connect.NewRequest(&wirev1.CloseThreatRequest{Id: 1, Note: "x"}))
	})
	if want := wirev1.File_internal_wire_v1_admin_proto.Services().ByName("AdminService").Methods().Len(); len(calls) != want {
		t.Fatalf("%d calls are tried, the service has %d", len(calls), want)
	}
	for name, fn := range calls {
		if err := fn(); connect.CodeOf(err) != connect.CodeUnauthenticated {
			t.Errorf("%s with %s: %v", name, what, err)
		}
	}
}

func call(into map[string]func() error, name string, fn func() (any, error)) {
	into[name] = func() error { _, err := fn(); return err }
}

// TestQuarantineByPerson holds what an administrator may order and what is
// refused, with words that say why.
func TestQuarantineByPerson(t *testing.T) {
	dir := t.TempDir()
	c := testConfig(dir)
	c.Protected.MACs = []config.MAC{{2, 0, 0, 0, 0, 1}}
	c.Cap = CapConfig{MaxAtOnce: 1, MaxNew: 10, Window: time.Hour}
	r := start(t, dir, c)
	order := func(name, reason string) (*wirev1.QuarantineInfo, error) {
		got, err := r.client.QuarantineEndpoint(t.Context(), connect.NewRequest(&wirev1.QuarantineEndpointRequest{
			Endpoint: name, Reason: reason, Access: wirev1.Access_ACCESS_NONE, Duration: durationpb.New(time.Hour),
		}))
		if err != nil {
			return nil, err
		}
		return got.Msg.GetQuarantine(), nil
	}
	_, err := order(printer.String(), " ")
	wantCode(t, "no reason", err, connect.CodeInvalidArgument, "reason")
	_, err = order("10.9.0.99", "x")
	wantCode(t, "an address that nobody has", err, connect.CodeNotFound, "cordon endpoints")
	_, err = order("02:00:00:00:00:01", "x")
	wantCode(t, "a protected MAC", err, connect.CodePermissionDenied, "protected")
	_, err = order("ff:ff:ff:ff:ff:ff", "x")
	wantCode(t, "broadcast", err, connect.CodePermissionDenied, "no machine's MAC")
	q, err := order(printer.String(), "seen scanning")
	if err != nil || q.GetState() != "ordered" || q.GetActor() != "admin:carol" || q.GetAccess() != "none" || q.GetExpiresAt() == nil {
		t.Errorf("never seen before: %v, %v", q, err)
	}
	_, err = order(printer.String(), "again")
	wantCode(t, "twice", err, connect.CodeFailedPrecondition, "already")
	q, err = order("02:00:00:00:00:0a", "one more")
	if err != nil || q.GetState() != "held" || !strings.Contains(q.GetDetail(), "1") {
		t.Errorf("above the cap: %v, %v", q, err)
	}
}

// TestOldAlertsAreLoggedOnly holds that a record of last year, as in a file that
// is read for the first time, cuts nobody off, and that the status says why
// nothing came of it.
func TestOldAlertsAreLoggedOnly(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir, testConfig(dir))
	r.alertAt(t, "10.9.0.20", 2_000_001, time.Now().AddDate(-1, 0, 0))
	eventually(t, "it is in the log, and in no threat", func() error {
		got, err := r.client.ListEvents(t.Context(), connect.NewRequest(&wirev1.ListEventsRequest{}))
		if err != nil || len(got.Msg.GetEvents()) != 1 || got.Msg.GetEvents()[0].GetDisposition() != "filtered" {
			return fmt.Errorf("%v, %w", got, err)
		}
		return nil
	})
	r.threats(t, 0)
	alarms := func() string {
		got, err := r.client.GetStatus(t.Context(), connect.NewRequest(&wirev1.GetStatusRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(got.Msg.GetAlarms(), "\n")
	}
	if got := alarms(); !strings.Contains(got, "detector's clock") {
		t.Errorf("alarms %q", got)
	}
	r.alert(t, "10.9.0.20", 2_000_001)
	r.threats(t, 1)
	if got := alarms(); strings.Contains(got, "detector's clock") {
		t.Errorf("alarms after a fresh one %q", got)
	}
}

// TestEmptyConfiguration holds that a mitigator serves without a single key.
func TestEmptyConfiguration(t *testing.T) {
	dir := t.TempDir()
	c := DefaultConfig()
	c.StateDir, c.Agents.Listen, c.Admin.Listen = filepath.Join(dir, "state"), "127.0.0.1:0", "127.0.0.1:0"
	r := start(t, dir, c)
	got, err := r.client.GetStatus(t.Context(), connect.NewRequest(&wirev1.GetStatusRequest{}))
	if err != nil || got.Msg.GetMode() != "observe" {
		t.Errorf("%v, %v", got, err)
	}
}

// TestUplinkIsNoEndpoint holds that a neighbour outside the home networks, as
// the provider's router, is not listed as an endpoint.
func TestUplinkIsNoEndpoint(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir, testConfig(dir))
	r.binding(t, "198.51.100.1", endpoint.MAC{2, 0, 0, 0, 0, 1})
	r.binding(t, "fe80::1", endpoint.MAC{2, 0, 0, 0, 0, 1})
	r.binding(t, "fe80::9", printer)
	r.binding(t, "10.9.0.20", printer)
	got, err := r.client.ListEndpoints(t.Context(), connect.NewRequest(&wirev1.ListEndpointsRequest{}))
	if err != nil || len(got.Msg.GetEndpoints()) != 1 || len(got.Msg.GetEndpoints()[0].GetAddresses()) != 2 {
		t.Errorf("endpoints %v, %v", got, err)
	}
	_, err = r.client.QuarantineEndpoint(t.Context(), connect.NewRequest(&wirev1.QuarantineEndpointRequest{Endpoint: "198.51.100.1", Reason: "x"}))
	wantCode(t, "quarantine of the uplink by its address", err, connect.CodeNotFound, "known")
}

// TestProtectedAddress holds that a machine with a protected address is not cut
// off, by policy or by a person, whatever other addresses it has; that an
// impostor who claims the address is; and that the timeline says what was refused.
func TestProtectedAddress(t *testing.T) {
	dir := t.TempDir()
	c := testConfig(dir)
	c.Protected.Addresses = []netip.Prefix{netip.MustParsePrefix("10.9.0.16/29")}
	r := start(t, dir, c)
	r.binding(t, "10.9.0.20", printer)
	r.binding(t, "fe80::9", printer)
	r.alert(t, "10.9.0.20", 2_000_001)
	th := r.threats(t, 1)[0]
	if th.GetState() != "unresolved" || th.GetQuarantineId() != "" || !strings.Contains(th.GetWaitingFor(), "10.9.0.20 is protected") {
		t.Errorf("threat %v", th)
	}
	for _, name := range []string{"10.9.0.20", printer.String()} {
		_, err := r.client.QuarantineEndpoint(t.Context(), connect.NewRequest(&wirev1.QuarantineEndpointRequest{Endpoint: name, Reason: "x"}))
		wantCode(t, "quarantine of "+name, err, connect.CodePermissionDenied, "10.9.0.20 is protected")
	}
	impostor := endpoint.MAC{2, 0, 0, 0, 0, 66}
	r.binding(t, "10.9.0.30", impostor)
	err := r.engine.DeviceBindings(t.Context(), "built-in", []*wirev1.AddressBinding{
		{Address: netip.MustParseAddr("10.9.0.20").AsSlice(), Mac: printer[:]},
		{Address: netip.MustParseAddr("10.9.0.20").AsSlice(), Mac: impostor[:], Present: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.alert(t, "10.9.0.30", 2_000_002)
	eventually(t, "the impostor is ordered cut off", func() error {
		got, err := r.client.ListQuarantines(t.Context(), connect.NewRequest(&wirev1.ListQuarantinesRequest{}))
		if err != nil || len(got.Msg.GetQuarantines()) != 1 || got.Msg.GetQuarantines()[0].GetMacs()[0] != impostor.String() {
			return fmt.Errorf("%v, %w", got, err)
		}
		return nil
	})
}

// TestOneProcessOnly holds that a second mitigator does not work in the first
// one's state directory.
func TestOneProcessOnly(t *testing.T) {
	dir := t.TempDir()
	c := testConfig(dir)
	start(t, dir, c)
	if _, err := New(t.Context(), Options{Config: c, Log: slog.New(slog.DiscardHandler)}); !errors.Is(err, dirlock.ErrInUse) {
		t.Errorf("a second one: %v", err)
	}
}

// full is a store whose disk is full while it is on.
type full struct {
	store.Store
	on atomic.Bool
}

// Update implements store.Store.
func (f *full) Update(ctx context.Context, fn func(store.Tx) error) error {
	if f.on.Load() {
		return fmt.Errorf("commit: %w", store.ErrFull)
	}
	return f.Store.Update(ctx, fn)
}

// TestFullDiskIsSaid holds that a person who orders something on a full disk is
// told so and what to do, that looking still works, and that nothing was changed.
func TestFullDiskIsSaid(t *testing.T) {
	dir := t.TempDir()
	disk := &full{}
	r := startWith(t, dir, Options{Config: testConfig(dir), WrapStore: func(s store.Store) store.Store {
		disk.Store = s
		return disk
	}})
	r.binding(t, "10.9.0.20", printer)
	disk.on.Store(true)
	_, err := r.client.QuarantineEndpoint(t.Context(), connect.NewRequest(&wirev1.QuarantineEndpointRequest{Endpoint: "10.9.0.20", Reason: "x"}))
	wantCode(t, "quarantine", err, connect.CodeUnavailable, "make room")
	_, err = r.client.CreateAgentToken(t.Context(), connect.NewRequest(&wirev1.CreateAgentTokenRequest{}))
	wantCode(t, "token", err, connect.CodeUnavailable, "make room")
	got, err := r.client.ListEndpoints(t.Context(), connect.NewRequest(&wirev1.ListEndpointsRequest{}))
	if err != nil || len(got.Msg.GetEndpoints()) != 1 || got.Msg.GetEndpoints()[0].GetQuarantineId() != "" {
		t.Errorf("endpoints %v, %v", got, err)
	}
}

// TestConsoleIsThere holds that a browser without a session is sent to the log-in,
// beside the API on the same port.
func TestConsoleIsThere(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir, testConfig(dir))
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{
		InsecureSkipVerify: true, VerifyConnection: r.token.Fingerprint.VerifyMitigator(nil),
	}}}
	got, err := client.Get("https://" + r.AdminAddr().String() + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	if got.Request.URL.Path != "/login" || got.StatusCode != http.StatusOK {
		t.Errorf("%s from %s", got.Status, got.Request.URL)
	}
}

// TestRejectsOfNobody holds that a source that is not there is said to be so.
func TestRejectsOfNobody(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir, testConfig(dir))
	_, err := r.client.ListRejects(t.Context(), connect.NewRequest(&wirev1.ListRejectsRequest{Source: "eve"}))
	if err != nil {
		t.Errorf("of a source without rejects: %v", err)
	}
	_, err = r.client.ListRejects(t.Context(), connect.NewRequest(&wirev1.ListRejectsRequest{Source: "nobody"}))
	wantCode(t, "of no source", err, connect.CodeNotFound, "nobody")
}
