package sqlite

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cordon-security/cordon/mitigator/event"
	"github.com/cordon-security/cordon/mitigator/store"
)

const eventColumns = `e.id, e.source, e.key, e.at, e.received_at, e.signature, e.category, e.severity, e.protocol,
	e.src, e.dst, e.disposition, e.reason, e.raw,
	(SELECT coalesce(min(threat_id), 0) FROM event_threat t WHERE t.event_id = e.id)`

func scanEvent(r row) (event.Record, error) {
	var e event.Record
	var key []byte
	var severity, src, dst string
	err := r.Scan(&e.ID, &e.Event.Source, &key, asTime(&e.Event.Time), asTime(&e.Event.Received), &e.Event.Signature, &e.Event.Category,
		&severity, &e.Event.Proto, &src, &dst, &e.Disposition, &e.Reason, &e.Event.Raw, &e.ThreatID)
	if err != nil {
		return e, err
	}
	if len(key) != len(e.Event.Key) {
		return e, fmt.Errorf("key of event %d has %d bytes", e.ID, len(key))
	}
	e.Event.Key = event.Key(key)
	if err := e.Event.Severity.UnmarshalText([]byte(severity)); err != nil {
		return e, fmt.Errorf("event %d: %w", e.ID, err)
	}
	e.Event.Src, e.Event.Dst = parseSide(src), parseSide(dst)
	return e, nil
}

// sideText is a side's column form; empty where the record named none.
func sideText(a netip.AddrPort) string {
	if !a.Addr().IsValid() {
		return ""
	}
	return a.String()
}

func parseSide(text string) netip.AddrPort {
	a, err := netip.ParseAddrPort(text)
	if err != nil {
		return netip.AddrPort{} // only sideText writes the column, so this is its empty form
	}
	return a
}

// Events implements store.View.
func (s *session) Events(beforeID int64, limit int) ([]event.Record, error) {
	return list(s, scanEvent, `SELECT `+eventColumns+` FROM event e WHERE (? = 0 OR e.id < ?) ORDER BY e.id DESC LIMIT ?`,
		beforeID, beforeID, limitOr(limit))
}

// EventsOfThreat implements store.View.
func (s *session) EventsOfThreat(threatID int64, limit int) ([]event.Record, error) {
	return list(s, scanEvent, `SELECT `+eventColumns+` FROM event_threat x JOIN event e ON e.id = x.event_id
		WHERE x.threat_id = ? ORDER BY x.event_id LIMIT ?`, threatID, limitOr(limit))
}

// AddEvent implements store.Tx.
func (s *session) AddEvent(r *event.Record) (bool, error) {
	e := r.Event
	res, err := s.exec(`INSERT INTO event (source, key, at, received_at, signature, category, severity, protocol, src, dst,
		disposition, reason, raw) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (source, key) DO NOTHING`,
		e.Source, e.Key[:], micros(e.Time), micros(e.Received), e.Signature, e.Category, e.Severity.String(), e.Proto,
		sideText(e.Src), sideText(e.Dst), string(r.Disposition), r.Reason, notNil(e.Raw))
	if err != nil {
		return false, fmt.Errorf("add event of %s: %w", e.Source, err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return false, err
	}
	if r.ID, err = res.LastInsertId(); err != nil {
		return false, err
	}
	_, err = s.count(e.Source, 1, 0)
	return err == nil, err
}

// SetEventThreat implements store.Tx.
func (s *session) SetEventThreat(eventID, threatID int64) error {
	_, err := s.exec(`INSERT INTO event_threat (event_id, threat_id) VALUES (?, ?) ON CONFLICT DO NOTHING`, eventID, threatID)
	if err != nil {
		return fmt.Errorf("note threat of event %d: %w", eventID, err)
	}
	return nil
}

// AddReject implements store.Tx.
func (s *session) AddReject(r event.Reject, source string) error {
	_, err := s.exec(`INSERT INTO reject (source, key, at, reason, raw, size) VALUES (?, ?, ?, ?, ?, ?)`,
		source, r.Key[:], micros(r.Received), r.Reason, notNil(r.Raw), r.Size)
	if err != nil {
		return fmt.Errorf("keep unreadable record of %s aside: %w", source, err)
	}
	ever, err := s.count(source, 0, 1)
	if err != nil || ever%rejectStep != 0 {
		return err
	}
	_, err = s.exec(`DELETE FROM reject WHERE source = ? AND id <= (SELECT id FROM reject WHERE source = ?
		ORDER BY id DESC LIMIT 1 OFFSET ?)`, source, source, store.MaxRejects-rejectStep)
	if err != nil {
		return fmt.Errorf("drop oldest unreadable records of %s: %w", source, err)
	}
	return nil
}

// rejectStep is how many unreadable records are dropped at a time: finding the
// oldest costs a walk over all that are kept.
const rejectStep = 50

func scanReject(r row) (store.Reject, error) {
	var v store.Reject
	var key []byte
	err := r.Scan(&v.ID, &v.Source, &key, asTime(&v.Received), &v.Reason, &v.Raw, &v.Size)
	copy(v.Key[:], key)
	return v, err
}

// Rejects implements store.View.
func (s *session) Rejects(source string, limit int) ([]store.Reject, error) {
	const columns = `SELECT id, source, key, at, reason, raw, size FROM reject`
	// Two statements, so that each has an index to walk.
	if source == "" {
		return list(s, scanReject, columns+` ORDER BY id DESC LIMIT ?`, limitOr(limit))
	}
	return list(s, scanReject, columns+` WHERE source = ? ORDER BY id DESC LIMIT ?`, source, limitOr(limit))
}

// count counts what a source delivered, and returns its rejects ever.
func (s *session) count(source string, events, rejects int) (int64, error) {
	ever, err := one(s, scanInt, `INSERT INTO source (name, events, rejects) VALUES (?, ?, ?)
		ON CONFLICT (name) DO UPDATE SET events = events + excluded.events, rejects = rejects + excluded.rejects
		RETURNING rejects`, source, events, rejects)
	if err != nil {
		return 0, fmt.Errorf("count records of %s: %w", source, err)
	}
	return ever, nil
}

// Cursor implements store.View.
func (s *session) Cursor(source string) ([]byte, error) {
	c, err := one(s, scanBytes, `SELECT cursor FROM source WHERE name = ?`, source)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	return c, err
}

// SetCursor implements store.Tx.
func (s *session) SetCursor(source string, cursor []byte) error {
	_, err := s.exec(`INSERT INTO source (name, cursor) VALUES (?, ?)
		ON CONFLICT (name) DO UPDATE SET cursor = excluded.cursor`, source, cursor)
	if err != nil {
		return fmt.Errorf("set cursor of %s: %w", source, err)
	}
	return nil
}

// SourceCounts implements store.View.
func (s *session) SourceCounts(source string) (events, rejects uint64, err error) {
	scan := func(r row) (v [2]uint64, err error) { return v, r.Scan(&v[0], &v[1]) }
	v, _, err := find(s, scan, `SELECT events, rejects FROM source WHERE name = ?`, source)
	return v[0], v[1], err
}

// notNil keeps an empty record from becoming NULL.
func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
