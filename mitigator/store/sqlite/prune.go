package sqlite

import (
	"fmt"
	"time"

	"github.com/cordon-security/cordon/mitigator/store"
	"github.com/cordon-security/cordon/mitigator/threat"
)

// pruner is one call of Prune.
type pruner struct {
	*session
	store.Cutoffs
	store.Pruned
	// budget is how many rows may still be looked at.
	budget int
	// evidence is each open threat's last event that is kept as evidence.
	evidence map[int64]int64
}

// minPrune is the least that a call can get anything done with.
const minPrune = 16

// Prune implements store.Tx.
func (s *session) Prune(c store.Cutoffs, limit int) (store.Pruned, error) {
	p := &pruner{session: s, Cutoffs: c, budget: max(limitOr(limit), minPrune), evidence: map[int64]int64{}}
	p.Next = c.From
	for _, step := range []struct {
		what string
		on   bool
		run  func() error
	}{
		{"events", !c.Events.IsZero() || c.MaxEvents > 0, p.events},
		{"bindings", !c.Bindings.IsZero(), p.bindings},
		{"quarantines", !c.Threats.IsZero(), p.quarantines},
		{"threats", !c.Threats.IsZero(), p.threats},
		{"endpoints", !c.Endpoints.IsZero(), p.endpoints},
		{"strangers", !c.Endpoints.IsZero(), p.strangers},
	} {
		if !step.on {
			continue
		}
		if err := step.run(); err != nil {
			return store.Pruned{}, fmt.Errorf("prune %s: %w", step.what, err)
		}
		if p.budget <= 0 {
			p.More = true
			break
		}
	}
	return p.Pruned, nil
}

// remove runs a statement that removes rows, and counts them.
func (p *pruner) remove(query string, args ...any) (int, error) {
	res, err := p.exec(query, args...)
	if err != nil {
		return 0, err
	}
	n, err := res.RowsAffected()
	p.budget -= int(n)
	return int(n), err
}

type eventAge struct {
	id       int64
	received time.Time
}

func scanEventAge(r row) (e eventAge, err error) { return e, r.Scan(&e.id, asTime(&e.received)) }

// events walks from the oldest and stops at the first that is to stay; events
// are stored in the order in which they were received.
func (p *pruner) events() error {
	newest, err := one(p.session, scanInt, `SELECT coalesce(max(id), 0) FROM event`)
	if err != nil {
		return err
	}
	window, err := list(p.session, scanEventAge, `SELECT id, received_at FROM event WHERE id > ? ORDER BY id LIMIT ?`,
		p.Next.Event, p.budget)
	if err != nil {
		return err
	}
	for _, e := range window {
		if !e.received.Before(p.Cutoffs.Events) && (p.MaxEvents == 0 || newest-e.id < p.MaxEvents) {
			return nil
		}
		p.budget--
		p.Next.Event = e.id
		needed, err := p.isEvidence(e.id)
		if err != nil {
			return err
		}
		if needed {
			continue
		}
		for _, query := range []string{`DELETE FROM event_threat WHERE event_id = ?`, `DELETE FROM event WHERE id = ?`} {
			if _, err := p.exec(query, e.id); err != nil {
				return err
			}
		}
		p.Pruned.Events++
	}
	return nil
}

// isEvidence reports whether an open threat needs the event.
func (p *pruner) isEvidence(eventID int64) (bool, error) {
	open, err := list(p.session, scanInt, `SELECT x.threat_id FROM event_threat x JOIN threat t ON t.id = x.threat_id
		WHERE x.event_id = ? AND t.ended_at = 0`, eventID)
	if err != nil {
		return false, err
	}
	for _, id := range open {
		last, known := p.evidence[id]
		if !known {
			last, err = one(p.session, scanInt, `SELECT coalesce(max(event_id), 0) FROM (SELECT event_id FROM event_threat
				WHERE threat_id = ? ORDER BY event_id LIMIT ?)`, id, store.EvidenceEvents)
			if err != nil {
				return false, err
			}
			p.evidence[id] = last
		}
		if eventID <= last {
			return true, nil
		}
	}
	return false, nil
}

func (p *pruner) bindings() (err error) {
	p.Pruned.Bindings, err = p.remove(`DELETE FROM binding WHERE id IN (SELECT id FROM binding
		WHERE ended > 0 AND ended < ? ORDER BY ended LIMIT ?)`, micros(p.Cutoffs.Bindings), p.budget)
	return err
}

// quarantines removes those that ended, when every threat that they stood for
// goes too and no device can still have to be told of their end.
func (p *pruner) quarantines() error {
	before := micros(p.Cutoffs.Threats)
	ids, err := list(p.session, scanString, `SELECT q.id FROM quarantine q
		WHERE q.state IN (?, ?) AND q.created_at < ? AND q.ended_at < ?
		AND NOT EXISTS (SELECT 1 FROM threat t WHERE t.quarantine_id = q.id AND t.quarantine_id <> ''
			AND (t.ended_at = 0 OR t.ended_at >= ?))
		AND NOT EXISTS (SELECT 1 FROM threat t WHERE t.id = q.threat_id AND (t.ended_at = 0 OR t.ended_at >= ?))
		ORDER BY q.created_at LIMIT ?`, string(threat.QuarantineEnded), string(threat.QuarantineObserved), before, before, before, before, p.budget)
	if err != nil {
		return err
	}
	for _, id := range ids {
		last, err := one(p.session, scanInt, `SELECT coalesce(max(revision), 0) FROM device_order WHERE quarantine_id = ?`, id)
		if err != nil {
			return err
		}
		if _, err := p.remove(`DELETE FROM device_order WHERE revision IN (SELECT revision FROM device_order
			WHERE revision <= ? ORDER BY revision LIMIT ?)`, last, p.budget); err != nil || p.budget <= 0 {
			return err
		}
		if _, err := p.remove(`DELETE FROM quarantine WHERE id = ?`, id); err != nil {
			return err
		}
		if p.Pruned.Quarantines++; p.budget <= 0 {
			return nil
		}
	}
	return nil
}

// threats removes those that ended, their rows first, so that one with a long
// timeline may take several calls.
func (p *pruner) threats() error {
	ids, err := list(p.session, scanInt, `SELECT t.id FROM threat t WHERE t.ended_at > 0 AND t.ended_at < ?
		AND NOT EXISTS (SELECT 1 FROM quarantine q WHERE q.threat_id = t.id)
		AND NOT EXISTS (SELECT 1 FROM quarantine q WHERE q.id = t.quarantine_id)
		AND NOT EXISTS (SELECT 1 FROM task k WHERE k.threat_id = t.id AND k.ended_at = 0)
		ORDER BY t.ended_at LIMIT ?`, micros(p.Cutoffs.Threats), p.budget)
	if err != nil {
		return err
	}
	for _, id := range ids {
		for _, query := range []string{
			`DELETE FROM transition WHERE id IN (SELECT id FROM transition WHERE threat_id = ? LIMIT ?)`,
			`DELETE FROM task WHERE rowid IN (SELECT rowid FROM task WHERE threat_id = ? LIMIT ?)`,
			`DELETE FROM event_threat WHERE (event_id, threat_id) IN (SELECT event_id, threat_id FROM event_threat
				WHERE threat_id = ? LIMIT ?)`,
		} {
			if _, err := p.remove(query, id, p.budget); err != nil || p.budget <= 0 {
				return err
			}
		}
		if _, err := p.remove(`DELETE FROM threat WHERE id = ?`, id); err != nil {
			return err
		}
		if p.Pruned.Threats++; p.budget <= 0 {
			return nil
		}
	}
	return nil
}

type use struct {
	id     int64
	unused bool
}

func scanUse(r row) (e use, err error) { return e, r.Scan(&e.id, &e.unused) }

// endpoints walks by number. When a machine was last seen is what its bindings say.
func (p *pruner) endpoints() error {
	before := micros(p.Cutoffs.Endpoints)
	window, err := list(p.session, scanUse, `SELECT e.id, e.agent_id = '' AND e.last_seen < ?
		AND NOT EXISTS (SELECT 1 FROM threat t WHERE t.endpoint_id = e.id)
		AND NOT EXISTS (SELECT 1 FROM quarantine q WHERE q.endpoint_id = e.id)
		AND NOT EXISTS (SELECT 1 FROM endpoint_mac m JOIN binding b ON b.mac = m.mac
			WHERE m.endpoint_id = e.id AND b.last_seen >= ?)
		FROM endpoint e WHERE e.id > ? ORDER BY e.id LIMIT ?`, before, before, p.Next.Endpoint, p.budget)
	if err != nil {
		return err
	}
	for _, e := range window {
		if p.budget--; e.unused {
			if err := p.removeEndpoint(e.id); err != nil {
				return err
			}
		}
		if p.budget <= 0 && e.unused {
			return nil // it may have rows left: looked at again
		}
		p.Next.Endpoint = e.id
	}
	return nil
}

func (p *pruner) removeEndpoint(id int64) error {
	n, err := p.remove(`DELETE FROM binding WHERE id IN (SELECT b.id FROM endpoint_mac m JOIN binding b ON b.mac = m.mac
		WHERE m.endpoint_id = ? LIMIT ?)`, id, max(p.budget, 1))
	p.Pruned.Bindings += n
	if err != nil || p.budget <= 0 {
		return err
	}
	if _, err := p.remove(`DELETE FROM endpoint_mac WHERE endpoint_id = ?`, id); err != nil {
		return err
	}
	if _, err := p.remove(`DELETE FROM endpoint WHERE id = ?`, id); err != nil {
		return err
	}
	p.Pruned.Endpoints++
	return nil
}

// strangers removes bindings that hold of MACs which are no endpoint's, such as
// neighbours outside the home networks: anybody can make them up.
func (p *pruner) strangers() error {
	window, err := list(p.session, scanUse, `SELECT b.id, b.ended = 0 AND b.last_seen < ?
		AND NOT EXISTS (SELECT 1 FROM endpoint_mac m WHERE m.mac = b.mac)
		FROM binding b WHERE b.id > ? ORDER BY b.id LIMIT ?`, micros(p.Cutoffs.Endpoints), p.Next.Binding, p.budget)
	if err != nil {
		return err
	}
	for _, b := range window {
		p.budget--
		p.Next.Binding = b.id
		if !b.unused {
			continue
		}
		if _, err := p.exec(`DELETE FROM binding WHERE id = ?`, b.id); err != nil {
			return err
		}
		p.Pruned.Bindings++
	}
	return nil
}
