package sqlite

import (
	"fmt"
	"time"

	"github.com/cordon-security/cordon/mitigator/fleet"
)

const agentColumns = `id, hostname, version, observer, serial, enrolled_at, last_seen, cert_expires, revoked_at`

func scanAgent(r row) (a fleet.Agent, err error) {
	return a, r.Scan(&a.ID, &a.Hostname, &a.Version, &a.Observer, &a.Serial, asTime(&a.EnrolledAt), asTime(&a.LastSeen),
		asTime(&a.CertExpires), asTime(&a.RevokedAt))
}

// Agent implements store.View.
func (s *session) Agent(id string) (fleet.Agent, error) {
	return one(s, scanAgent, `SELECT `+agentColumns+` FROM agent WHERE id = ?`, id)
}

// Agents implements store.View.
func (s *session) Agents() ([]fleet.Agent, error) {
	return list(s, scanAgent, `SELECT `+agentColumns+` FROM agent ORDER BY enrolled_at, id`)
}

// AddAgent implements store.Tx.
func (s *session) AddAgent(a fleet.Agent) error {
	_, err := s.exec(`INSERT INTO agent (id, hostname, version, observer, serial, enrolled_at, last_seen, cert_expires,
		revoked_at, revoked_by, revoke_reason) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, '', '')`, a.ID, a.Hostname, a.Version,
		a.Observer, a.Serial, micros(a.EnrolledAt), micros(a.LastSeen), micros(a.CertExpires), micros(a.RevokedAt))
	if err != nil {
		return fmt.Errorf("add agent %s: %w", a.ID, err)
	}
	return nil
}

// SetAgent implements store.Tx.
func (s *session) SetAgent(a fleet.Agent) error {
	return s.change("set agent "+a.ID, `UPDATE agent SET hostname = ?, version = ?, observer = ?, serial = ?,
		last_seen = ?, cert_expires = ? WHERE id = ?`, a.Hostname,
		a.Version, a.Observer, a.Serial, micros(a.LastSeen), micros(a.CertExpires), a.ID)
}

// RevokeAgent implements store.Tx.
func (s *session) RevokeAgent(id string, at time.Time, by, reason string) error {
	if _, err := s.Agent(id); err != nil {
		return fmt.Errorf("revoke agent %s: %w", id, err)
	}
	_, err := s.exec(`UPDATE agent SET revoked_at = ?, revoked_by = ?, revoke_reason = ? WHERE id = ? AND revoked_at = 0`,
		micros(at), by, reason, id)
	if err != nil {
		return fmt.Errorf("revoke agent %s: %w", id, err)
	}
	return nil
}

// Token implements store.View.
func (s *session) Token(hash [32]byte) (fleet.Token, error) {
	scan := func(r row) (t fleet.Token, err error) {
		t.Hash = hash
		return t, r.Scan(&t.Comment, &t.CreatedBy, asTime(&t.CreatedAt), asTime(&t.ExpiresAt), asTime(&t.UsedAt), &t.UsedBy)
	}
	return one(s, scan, `SELECT comment, created_by, created_at, expires_at, used_at, used_by FROM token WHERE hash = ?`, hash[:])
}

// AddToken implements store.Tx.
func (s *session) AddToken(t fleet.Token) error {
	_, err := s.exec(`INSERT INTO token (hash, comment, created_by, created_at, expires_at, used_at, used_by)
		VALUES (?, ?, ?, ?, ?, ?, ?)`, t.Hash[:], t.Comment, t.CreatedBy, micros(t.CreatedAt), micros(t.ExpiresAt),
		micros(t.UsedAt), t.UsedBy)
	if err != nil {
		return fmt.Errorf("add enrolment token: %w", err)
	}
	return nil
}

// SetToken implements store.Tx.
func (s *session) SetToken(t fleet.Token) error {
	return s.change("set enrolment token", `UPDATE token SET used_at = ?, used_by = ? WHERE hash = ?`,
		micros(t.UsedAt), t.UsedBy, t.Hash[:])
}
