package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

// newRequest makes a key and a PKCS #10 request for it.
func newRequest(t *testing.T) (crypto.Signer, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return key, csr
}

// What the flags say is what the appliance is asked.
func TestRequests(t *testing.T) {
	a := newAppliance(t)
	a.tell()

	a.run("quarantine", "192.0.2.11", "--reason", "odd", "--access", "none", "--for", "1d12h")
	q := last[*wirev1.QuarantineEndpointRequest](t, a, "QuarantineEndpoint")
	if q.GetEndpoint() != "192.0.2.11" || q.GetReason() != "odd" || q.GetAccess() != wirev1.Access_ACCESS_NONE || q.GetDuration().AsDuration() != 36*time.Hour {
		t.Errorf("quarantine: %v", q)
	}
	a.run("quarantine", "bob", "--reason", "odd")
	if q := last[*wirev1.QuarantineEndpointRequest](t, a, "QuarantineEndpoint"); q.GetAccess() != wirev1.Access_ACCESS_UNSPECIFIED || q.Duration != nil {
		t.Errorf("quarantine without flags: %v", q)
	}
	a.run("quarantine", "bob", "--reason", "odd", "--access", "limited")
	if q := last[*wirev1.QuarantineEndpointRequest](t, a, "QuarantineEndpoint"); q.GetAccess() != wirev1.Access_ACCESS_LIMITED {
		t.Errorf("quarantine with limited access: %v", q)
	}
	a.run("release", "bob", "--threat-is-gone", "--note", "reinstalled")
	if r := last[*wirev1.ReleaseEndpointRequest](t, a, "ReleaseEndpoint"); r.GetEndpoint() != "bob" || !r.GetThreatIsGone() || r.GetNote() != "reinstalled" {
		t.Errorf("release: %v", r)
	}
	a.run("agent", "token", "--lifetime", "2h", "--comment", "for bob")
	if r := last[*wirev1.CreateAgentTokenRequest](t, a, "CreateAgentToken"); r.GetLifetime().AsDuration() != 2*time.Hour || r.GetComment() != "for bob" {
		t.Errorf("agent token: %v", r)
	}
	if r := a.run("agent", "token"); strings.Contains(r.err, "agents.address") {
		t.Errorf("the token has an address: %s", r.err)
	}
	a.answers["CreateAgentToken"] = &wirev1.CreateAgentTokenResponse{Token: "cordon1-secret-fingerprint", ExpiresAt: before(-time.Hour)}
	if r := a.run("agent", "token"); r.code != exitOK || !strings.Contains(r.err, "--server HOST:7443") || !strings.Contains(r.err, "agents.address") {
		t.Errorf("the token has no address: %d, %s", r.code, r.err)
	}
	if r := last[*wirev1.CreateAgentTokenRequest](t, a, "CreateAgentToken"); r.GetLifetime().AsDuration() != time.Hour {
		t.Errorf("agent token without flags: %v", r)
	}
	a.run("agent", "revoke", "agent-eve", "--reason", "stolen")
	if r := last[*wirev1.RevokeAgentRequest](t, a, "RevokeAgent"); r.GetAgentId() != "agent-eve" || r.GetReason() != "stolen" {
		t.Errorf("agent revoke: %v", r)
	}
	a.run("threat", "close", "2", "--note", "false alarm")
	if r := last[*wirev1.CloseThreatRequest](t, a, "CloseThreat"); r.GetId() != 2 || r.GetNote() != "false alarm" {
		t.Errorf("threat close: %v", r)
	}
	a.run("quarantines", "--all", "--limit", "5")
	if r := last[*wirev1.ListQuarantinesRequest](t, a, "ListQuarantines"); r.GetActiveOnly() || r.GetLimit() != 5 {
		t.Errorf("quarantines --all: %v", r)
	}
	a.run("rejects", "eve", "--limit", "7")
	if r := last[*wirev1.ListRejectsRequest](t, a, "ListRejects"); r.GetSource() != "eve" || r.GetLimit() != 7 {
		t.Errorf("rejects: %v", r)
	}
}
