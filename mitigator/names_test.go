package mitigator

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
	"github.com/cordon-security/cordon/mitigator/endpoint"
	"github.com/cordon-security/cordon/mitigator/store"
)

// TestEndpointNames holds by what an administrator may call an endpoint, and that
// a name which fits two machines cuts off neither.
func TestEndpointNames(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir, testConfig(dir))
	other := endpoint.MAC{2, 0, 0, 0, 0, 10}
	r.binding(t, "10.9.0.20", printer)
	r.binding(t, "10.9.0.30", other)
	err := r.store.Update(t.Context(), func(tx store.Tx) error {
		for i, m := range []endpoint.MAC{printer, other} {
			ep, _, err := tx.EndpointByMAC(m)
			if err != nil {
				return err
			}
			ep.Hostname = []string{"printer", "twin"}[i]
			if err := tx.SetEndpoint(ep); err != nil {
				return err
			}
		}
		twin := endpoint.Endpoint{Hostname: "twin", MACs: []endpoint.MAC{{2, 0, 0, 0, 0, 11}}, FirstSeen: time.Now(), LastSeen: time.Now()}
		return tx.AddEndpoint(&twin)
	})
	if err != nil {
		t.Fatal(err)
	}
	order := func(name string) (*wirev1.QuarantineInfo, error) {
		got, err := r.client.QuarantineEndpoint(t.Context(), connect.NewRequest(&wirev1.QuarantineEndpointRequest{Endpoint: name, Reason: "x"}))
		if err != nil {
			return nil, err
		}
		return got.Msg.GetQuarantine(), nil
	}
	var id int64
	for _, name := range []string{"printer", "10.9.0.20", "::ffff:10.9.0.20", "02:00:00:00:00:09", "02-00-00-00-00-09", "0200.0000.0009", " printer "} {
		q, err := order(name)
		if err != nil || q.GetMacs()[0] != printer.String() {
			t.Errorf("%q: %v, %v", name, q, err)
			continue
		}
		id = q.GetEndpointId()
		_, err = r.client.ReleaseEndpoint(t.Context(), connect.NewRequest(&wirev1.ReleaseEndpointRequest{Endpoint: name, ThreatIsGone: true}))
		if err != nil {
			t.Errorf("release %q: %v", name, err)
		}
		r.gone(t, q.GetId())
	}
	if q, err := order(fmt.Sprint(id)); err != nil || q.GetMacs()[0] != printer.String() {
		t.Errorf("by its id %d: %v, %v", id, q, err)
	}
	_, err = order("twin")
	wantCode(t, "a name that two have", err, connect.CodeInvalidArgument, "name one by its id or MAC")
	for _, name := range []string{"", "nobody", "999", "10.9.0.99", "'; DROP TABLE endpoint; --", strings.Repeat("x", 300)} {
		if q, err := order(name); err == nil {
			t.Errorf("%q: %v", name, q)
		}
	}
	_, err = order(strings.Repeat("x", maxAPIRequest+1))
	wantCode(t, "a message that is too large", err, connect.CodeResourceExhausted, "larger than")
}

// maxAPIRequest is more than the API reads of one request.
const maxAPIRequest = 64 << 10

// gone plays the device's answer that the quarantine was lifted.
func (r *running) gone(t *testing.T, id string) {
	t.Helper()
	err := r.engine.DeviceStatus(t.Context(), "built-in", []*wirev1.QuarantineStatus{
		{QuarantineId: id, State: wirev1.EnforcementState_ENFORCEMENT_STATE_REMOVED},
	})
	if err != nil {
		t.Fatal(err)
	}
}
