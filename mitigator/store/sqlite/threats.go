package sqlite

import (
	"encoding/json"
	"fmt"

	"github.com/cordon-security/cordon/mitigator/threat"
)

const threatColumns = `id, endpoint_id, kind, signature, severity, role, role_reason, containable, spoofable,
	state, flows, event_count, first_seen, last_seen, opened_at, updated_at, ended_at, quarantine_id, waiting_for`

func scanThreat(r row) (threat.Threat, error) {
	var t threat.Threat
	var flows, severity, role string
	err := r.Scan(&t.ID, &t.EndpointID, &t.Kind, &t.Signature, &severity, &role, &t.RoleReason,
		&t.Containable, &t.Spoofable, &t.State, &flows, &t.EventCount, asTime(&t.FirstSeen), asTime(&t.LastSeen),
		asTime(&t.OpenedAt), asTime(&t.UpdatedAt), asTime(&t.EndedAt), &t.QuarantineID, &t.WaitingFor)
	if err != nil {
		return t, err
	}
	if err := t.Severity.UnmarshalText([]byte(severity)); err != nil {
		return t, fmt.Errorf("threat %d: %w", t.ID, err)
	}
	if err := t.Role.UnmarshalText([]byte(role)); err != nil {
		return t, fmt.Errorf("threat %d: %w", t.ID, err)
	}
	if err := json.Unmarshal([]byte(flows), &t.Flows); err != nil {
		return t, fmt.Errorf("flows of threat %d: %w", t.ID, err)
	}
	return t, nil
}

func threatValues(t threat.Threat) ([]any, error) {
	flows, err := json.Marshal(t.Flows)
	if err != nil {
		return nil, fmt.Errorf("flows of threat %d: %w", t.ID, err)
	}
	return []any{t.EndpointID, t.Kind, t.Signature, t.Severity.String(), t.Role.String(), t.RoleReason,
		t.Containable, t.Spoofable, string(t.State), string(flows), t.EventCount, micros(t.FirstSeen), micros(t.LastSeen),
		micros(t.OpenedAt), micros(t.UpdatedAt), micros(t.EndedAt), t.QuarantineID, t.WaitingFor}, nil
}

// Threat implements store.View.
func (s *session) Threat(id int64) (threat.Threat, error) {
	return one(s, scanThreat, `SELECT `+threatColumns+` FROM threat WHERE id = ?`, id)
}

// LastThreat implements store.View.
func (s *session) LastThreat(endpointID int64, kind string) (threat.Threat, bool, error) {
	return find(s, scanThreat, `SELECT `+threatColumns+` FROM threat
		WHERE endpoint_id = ? AND kind = ? ORDER BY id DESC LIMIT 1`, endpointID, kind)
}

// Threats implements store.View.
func (s *session) Threats(openOnly bool, beforeID int64, limit int) ([]threat.Threat, error) {
	return list(s, scanThreat, `SELECT `+threatColumns+` FROM threat
		WHERE (? = 0 OR id < ?) AND (NOT ? OR ended_at = 0) ORDER BY id DESC LIMIT ?`,
		beforeID, beforeID, openOnly, limitOr(limit))
}

// ThreatsOfEndpoint implements store.View.
func (s *session) ThreatsOfEndpoint(endpointID int64) ([]threat.Threat, error) {
	return list(s, scanThreat, `SELECT `+threatColumns+` FROM threat
		WHERE endpoint_id = ? AND ended_at = 0 ORDER BY id`, endpointID)
}

// CountThreats implements store.View.
func (s *session) CountThreats() (open, waiting int, err error) {
	st, err := s.stmt(`SELECT count(*), count(nullif(waiting_for, '')) FROM threat WHERE ended_at = 0`)
	if err != nil {
		return 0, 0, err
	}
	return open, waiting, st.QueryRowContext(s.ctx).Scan(&open, &waiting)
}

// CountWaitingFor implements store.View.
func (s *session) CountWaitingFor(who string) (int, error) {
	n, err := one(s, scanInt, `SELECT count(*) FROM threat WHERE ended_at = 0 AND substr(waiting_for, 1, length(?)) = ?`, who, who)
	return int(n), err
}

// AddThreat implements store.Tx.
func (s *session) AddThreat(t *threat.Threat) error {
	values, err := threatValues(*t)
	if err != nil {
		return err
	}
	res, err := s.exec(`INSERT INTO threat (endpoint_id, kind, signature, severity, role, role_reason, containable, spoofable,
		state, flows, event_count, first_seen, last_seen, opened_at, updated_at, ended_at, quarantine_id, waiting_for)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, values...)
	if err != nil {
		return fmt.Errorf("add threat: %w", err)
	}
	t.ID, err = res.LastInsertId()
	return err
}

// SetThreat implements store.Tx.
func (s *session) SetThreat(t threat.Threat) error {
	values, err := threatValues(t)
	if err != nil {
		return err
	}
	return s.change(fmt.Sprintf("set threat %d", t.ID), `UPDATE threat SET endpoint_id = ?, kind = ?, signature = ?,
		severity = ?, role = ?, role_reason = ?, containable = ?, spoofable = ?, state = ?, flows = ?, event_count = ?,
		first_seen = ?, last_seen = ?, opened_at = ?, updated_at = ?, ended_at = ?, quarantine_id = ?, waiting_for = ?
		WHERE id = ?`, append(values, t.ID)...)
}

// AddTransition implements store.Tx.
func (s *session) AddTransition(t threat.Transition) error {
	_, err := s.exec(`INSERT INTO transition (threat_id, from_state, to_state, at, cause, actor) VALUES (?, ?, ?, ?, ?, ?)`,
		t.ThreatID, string(t.From), string(t.To), micros(t.At), t.Cause, t.Actor)
	if err != nil {
		return fmt.Errorf("add transition of threat %d: %w", t.ThreatID, err)
	}
	return nil
}

// Timeline implements store.View.
func (s *session) Timeline(threatID int64) ([]threat.Transition, error) {
	scan := func(r row) (t threat.Transition, err error) {
		return t, r.Scan(&t.ThreatID, &t.From, &t.To, asTime(&t.At), &t.Cause, &t.Actor)
	}
	return list(s, scan, `SELECT threat_id, from_state, to_state, at, cause, actor FROM transition
		WHERE threat_id = ? ORDER BY id`, threatID)
}
