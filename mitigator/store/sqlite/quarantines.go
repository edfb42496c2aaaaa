package sqlite

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/cordon-security/cordon/mitigator/store"
	"github.com/cordon-security/cordon/mitigator/threat"
)

const quarantineColumns = `q.id, q.endpoint_id, q.threat_id, q.macs, q.access, q.reason, q.actor, q.created_at,
	q.expires_at, q.state, q.detail, q.in_force_at, q.ended_at, q.ended_by, q.confirmation`

func quarantineFields(q *threat.Quarantine, macs *[]byte) []any {
	return []any{&q.ID, &q.EndpointID, &q.ThreatID, macs, &q.Access, &q.Reason, &q.Actor, asTime(&q.CreatedAt),
		asTime(&q.ExpiresAt), &q.State, &q.Detail, asTime(&q.InForceAt), asTime(&q.EndedAt), &q.EndedBy, &q.Confirmation}
}

func scanQuarantine(r row) (threat.Quarantine, error) {
	var q threat.Quarantine
	var macs []byte
	err := r.Scan(quarantineFields(&q, &macs)...)
	q.MACs = unpackMACs(macs)
	return q, err
}

// Quarantine implements store.View.
func (s *session) Quarantine(id string) (threat.Quarantine, error) {
	return one(s, scanQuarantine, `SELECT `+quarantineColumns+` FROM quarantine q WHERE id = ?`, id)
}

// ActiveQuarantine implements store.View.
func (s *session) ActiveQuarantine(endpointID int64) (threat.Quarantine, bool, error) {
	return find(s, scanQuarantine, `SELECT `+quarantineColumns+` FROM quarantine q
		WHERE endpoint_id = ? AND active = 1`, endpointID)
}

// Quarantines implements store.View.
func (s *session) Quarantines(activeOnly bool, limit int) ([]threat.Quarantine, error) {
	// Two statements, so that each has an index to walk.
	where := ""
	if activeOnly {
		where = "WHERE active = 1"
	}
	return list(s, scanQuarantine, `SELECT `+quarantineColumns+` FROM quarantine q `+where+`
		ORDER BY created_at DESC, id LIMIT ?`, limitOr(limit))
}

// QuarantinesIn implements store.View.
func (s *session) QuarantinesIn(state threat.QuarantineState, limit int) ([]threat.Quarantine, error) {
	return list(s, scanQuarantine, `SELECT `+quarantineColumns+` FROM quarantine q
		WHERE state = ? ORDER BY created_at, id LIMIT ?`, string(state), limitOr(limit))
}

// CountQuarantinesIn implements store.View.
func (s *session) CountQuarantinesIn(state threat.QuarantineState) (int, error) {
	n, err := one(s, scanInt, `SELECT count(*) FROM quarantine WHERE state = ?`, string(state))
	return int(n), err
}

// QuarantinesDue implements store.View.
func (s *session) QuarantinesDue(now time.Time, limit int) ([]threat.Quarantine, error) {
	return list(s, scanQuarantine, `SELECT `+quarantineColumns+` FROM quarantine q
		WHERE active = 1 AND expires_at > 0 AND expires_at <= ? ORDER BY expires_at LIMIT ?`, micros(now), limitOr(limit))
}

// QuarantineTimes implements store.View.
func (s *session) QuarantineTimes(since time.Time) ([]time.Time, error) {
	return list(s, scanTime, `SELECT created_at FROM quarantine WHERE created_at >= ? AND state NOT IN (?, ?)
		ORDER BY created_at`, micros(since), string(threat.QuarantineObserved), string(threat.QuarantineHeld))
}

// CountOrderedQuarantines implements store.View.
func (s *session) CountOrderedQuarantines(limit int) (int, error) {
	n, err := one(s, scanInt, `SELECT count(*) FROM (SELECT 1 FROM quarantine WHERE ordered = 1 LIMIT ?)`, limit)
	return int(n), err
}

// AddQuarantine implements store.Tx.
func (s *session) AddQuarantine(q threat.Quarantine) error {
	_, err := s.exec(`INSERT INTO quarantine (id, endpoint_id, threat_id, macs, access, reason, actor, created_at,
		expires_at, state, ordered, active, detail, in_force_at, ended_at, ended_by, confirmation)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, q.ID, q.EndpointID, q.ThreatID, packMACs(q.MACs),
		string(q.Access), q.Reason, q.Actor, micros(q.CreatedAt), micros(q.ExpiresAt), string(q.State),
		q.State.Ordered(), q.State.Active(), q.Detail, micros(q.InForceAt), micros(q.EndedAt), q.EndedBy, q.Confirmation)
	if err != nil {
		return fmt.Errorf("add quarantine %s: %w", q.ID, err)
	}
	return nil
}

// SetQuarantine implements store.Tx.
func (s *session) SetQuarantine(q threat.Quarantine) error {
	return s.change("set quarantine "+q.ID, `UPDATE quarantine SET endpoint_id = ?, threat_id = ?, macs = ?, access = ?,
		reason = ?, created_at = ?, expires_at = ?, state = ?, ordered = ?, active = ?, detail = ?, in_force_at = ?, ended_at = ?,
		ended_by = ?, confirmation = ? WHERE id = ?`, q.EndpointID, q.ThreatID, packMACs(q.MACs), string(q.Access),
		q.Reason, micros(q.CreatedAt), micros(q.ExpiresAt), string(q.State), q.State.Ordered(), q.State.Active(), q.Detail,
		micros(q.InForceAt), micros(q.EndedAt), q.EndedBy, q.Confirmation, q.ID)
}

// AddOrder implements store.Tx.
func (s *session) AddOrder(quarantineID string) (uint64, error) {
	res, err := s.exec(`INSERT INTO device_order (quarantine_id) SELECT id FROM quarantine WHERE id = ?`, quarantineID)
	if err != nil {
		return 0, fmt.Errorf("order quarantine %s: %w", quarantineID, err)
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return 0, fmt.Errorf("order quarantine %s: %w", quarantineID, errors.Join(store.ErrNotFound, err))
	}
	rev, err := res.LastInsertId()
	if err != nil {
		return 0, err
	}
	if rev%1000 != 0 {
		return uint64(rev), nil
	}
	if _, err := s.exec(`DELETE FROM device_order WHERE revision <= ?`, rev-store.MaxOrders); err != nil {
		return 0, fmt.Errorf("prune the log of orders: %w", err)
	}
	return uint64(rev), nil
}

func (s *session) head() (uint64, error) {
	n, err := one(s, scanInt, `SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'device_order'`)
	return uint64(n), err
}

// Orders implements store.View.
func (s *session) Orders(after uint64, limit int) ([]store.Order, uint64, bool, error) {
	head, err := s.head()
	if err != nil {
		return nil, 0, false, err
	}
	if after >= head {
		return nil, head, after == head, nil
	}
	first, err := one(s, scanInt, `SELECT coalesce(min(revision), 0) FROM device_order`)
	if err != nil || first == 0 || uint64(first) > after+1 {
		return nil, head, false, err
	}
	// The quarantines of the next limit revisions, each as it stands now.
	to := min(head, after+uint64(limitOr(limit)))
	scan := func(r row) (o store.Order, err error) {
		var macs []byte
		err = r.Scan(append([]any{&o.Revision}, quarantineFields(&o.Quarantine, &macs)...)...)
		o.Quarantine.MACs = unpackMACs(macs)
		return o, err
	}
	orders, err := list(s, scan, `SELECT o.revision, `+quarantineColumns+` FROM
		(SELECT max(revision) AS revision, quarantine_id FROM device_order
			WHERE revision > ? AND revision <= ? GROUP BY quarantine_id) o
		JOIN quarantine q ON q.id = o.quarantine_id ORDER BY o.revision`, int64(after), int64(to))
	return orders, to, err == nil, err
}

// Snapshot implements store.View.
func (s *session) Snapshot() ([]threat.Quarantine, uint64, error) {
	head, err := s.head()
	if err != nil {
		return nil, 0, err
	}
	qs, err := list(s, scanQuarantine, `SELECT `+quarantineColumns+` FROM quarantine q WHERE ordered = 1 ORDER BY id`)
	return qs, head, err
}

// Epoch implements store.View.
func (s *session) Epoch() (uint64, error) {
	v, err := one(s, scanString, `SELECT value FROM setting WHERE name = 'epoch'`)
	if err != nil {
		return 0, fmt.Errorf("epoch: %w", err)
	}
	return strconv.ParseUint(v, 10, 64)
}

// BeginEpoch implements store.Tx.
func (s *session) BeginEpoch(above uint64) (uint64, error) {
	now, err := s.Epoch()
	if err != nil {
		return 0, err
	}
	next := max(now, above) + 1
	if next == 0 {
		return 0, errors.New("begin an epoch: there is none above the last")
	}
	err = s.change("begin an epoch", `UPDATE setting SET value = ? WHERE name = 'epoch'`, strconv.FormatUint(next, 10))
	return next, err
}
