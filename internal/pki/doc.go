// Package pki is the appliance's certificate authority: it says who speaks on
// Cordon's wire, and nothing else. What may be run on an endpoint is signed
// with offline keys that this package never sees.
//
// One CA (ECDSA P-256) is made at the mitigator's first start and lives in one
// directory of the mitigator. It signs three kinds of certificates, told apart
// by a URI name "cordon:ROLE:ID" and by their extended key usage:
//
//   - the mitigator's server certificate (ServerAuth, role "mitigator"),
//   - agents' client certificates (ClientAuth, role "agent"),
//   - enforcement devices' client certificates (ClientAuth, role "device").
//
// An agent that is not enrolled yet knows the CA by its fingerprint, which its
// enrolment token carries (see Token): it checks the mitigator against the
// fingerprint before it sends the token's secret.
package pki
