package mitigator

import (
	"testing"

	"connectrpc.com/connect"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
	"github.com/cordon-security/cordon/mitigator/endpoint"
)

// TestClaimedAddressReleasesNobody holds that a quarantined machine which claims
// the address of another quarantined one is not released in its stead.
func TestClaimedAddressReleasesNobody(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir, testConfig(dir))
	attacker := endpoint.MAC{2, 0, 0, 0, 0, 0x66}
	const address = "10.9.0.20"
	r.binding(t, address, printer)
	r.binding(t, "10.9.0.66", attacker)
	for _, m := range []endpoint.MAC{printer, attacker} {
		_, err := r.client.QuarantineEndpoint(t.Context(), connect.NewRequest(&wirev1.QuarantineEndpointRequest{Endpoint: m.String(), Reason: "x"}))
		if err != nil {
			t.Fatal(err)
		}
	}
	release := func(name string) (string, error) {
		got, err := r.client.ReleaseEndpoint(t.Context(), connect.NewRequest(&wirev1.ReleaseEndpointRequest{Endpoint: name, ThreatIsGone: true}))
		if err != nil {
			return "", err
		}
		return got.Msg.GetQuarantines()[0].GetMacs()[0], nil
	}
	r.binding(t, address, attacker)
	got, err := release(address)
	if err == nil {
		t.Fatalf("who claimed the address is released: %s", got)
	}
	wantCode(t, "a claimed address", err, connect.CodeInvalidArgument, "name one by its MAC")
	if got, err = release(printer.String()); err != nil || got != printer.String() {
		t.Errorf("by its MAC: %s, %v", got, err)
	}
}
