package sqlite

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/cordon-security/cordon/mitigator/endpoint"
	"github.com/cordon-security/cordon/mitigator/store"
)

// The MACs come as one blob: group_concat over hex keeps them in one row.
const endpointColumns = `e.id, e.hostname, e.address, e.agent_id, e.first_seen, e.last_seen,
	(SELECT coalesce(group_concat(hex(mac), ''), '') FROM endpoint_mac m WHERE m.endpoint_id = e.id)`

func scanEndpoint(r row) (endpoint.Endpoint, error) {
	var e endpoint.Endpoint
	var macs string
	err := r.Scan(&e.ID, &e.Hostname, addrColumn{&e.Address}, &e.AgentID, asTime(&e.FirstSeen), asTime(&e.LastSeen), &macs)
	if err != nil {
		return e, err
	}
	var b []byte
	if _, err := fmt.Sscanf(macs, "%X", &b); macs != "" && err != nil {
		return e, fmt.Errorf("MACs of endpoint %d: %w", e.ID, err)
	}
	e.MACs = unpackMACs(b)
	sortMACs(e.MACs)
	return e, nil
}

// Endpoint implements store.View.
func (s *session) Endpoint(id int64) (endpoint.Endpoint, error) {
	return one(s, scanEndpoint, `SELECT `+endpointColumns+` FROM endpoint e WHERE e.id = ?`, id)
}

// EndpointByMAC implements store.View.
func (s *session) EndpointByMAC(m endpoint.MAC) (endpoint.Endpoint, bool, error) {
	return find(s, scanEndpoint, `SELECT `+endpointColumns+` FROM endpoint e
		WHERE e.id = (SELECT endpoint_id FROM endpoint_mac WHERE mac = ?)`, m[:])
}

// EndpointByAgent implements store.View.
func (s *session) EndpointByAgent(agentID string) (endpoint.Endpoint, bool, error) {
	return find(s, scanEndpoint, `SELECT `+endpointColumns+` FROM endpoint e
		WHERE e.agent_id = ? AND e.agent_id <> ''`, agentID)
}

// EndpointByAddress implements store.View.
func (s *session) EndpointByAddress(a netip.Addr) (endpoint.Endpoint, bool, error) {
	return find(s, scanEndpoint, `SELECT `+endpointColumns+` FROM endpoint e
		WHERE e.address = ? AND e.address <> ''`, addrText(a))
}

// CountUnknown implements store.View.
func (s *session) CountUnknown(limit int) (int, error) {
	n, err := one(s, scanInt, `SELECT count(*) FROM (SELECT 1 FROM endpoint WHERE address <> '' AND agent_id = '' LIMIT ?)`, limit)
	return int(n), err
}

// CountEndpoints implements store.View.
func (s *session) CountEndpoints() (int, error) {
	n, err := one(s, scanInt, `SELECT (SELECT count(*) FROM endpoint) + (SELECT count(*) FROM binding b WHERE b.ended = 0
		AND NOT EXISTS (SELECT 1 FROM endpoint_mac m WHERE m.mac = b.mac))`)
	return int(n), err
}

// EndpointsByHostname implements store.View.
func (s *session) EndpointsByHostname(name string) ([]endpoint.Endpoint, error) {
	return list(s, scanEndpoint, `SELECT `+endpointColumns+` FROM endpoint e
		WHERE e.hostname = ? AND e.hostname <> '' ORDER BY e.id`, name)
}

// Endpoints implements store.View.
func (s *session) Endpoints(afterID int64, limit int) ([]endpoint.Endpoint, error) {
	return list(s, scanEndpoint, `SELECT `+endpointColumns+` FROM endpoint e WHERE e.id > ? ORDER BY e.id LIMIT ?`,
		afterID, limitOr(limit))
}

// AddEndpoint implements store.Tx.
func (s *session) AddEndpoint(e *endpoint.Endpoint) error {
	res, err := s.exec(`INSERT INTO endpoint (hostname, address, agent_id, first_seen, last_seen) VALUES (?, ?, ?, ?, ?)`,
		e.Hostname, addrText(e.Address), e.AgentID, micros(e.FirstSeen), micros(e.LastSeen))
	if err != nil {
		return fmt.Errorf("add endpoint %s: %w", e.Name(), err)
	}
	if e.ID, err = res.LastInsertId(); err != nil {
		return err
	}
	return s.setMACs(*e)
}

// SetEndpoint implements store.Tx.
func (s *session) SetEndpoint(e endpoint.Endpoint) error {
	err := s.change(fmt.Sprintf("set endpoint %d", e.ID), `UPDATE endpoint SET hostname = ?, address = ?, agent_id = ?,
		first_seen = ?, last_seen = ? WHERE id = ?`, e.Hostname, addrText(e.Address), e.AgentID,
		micros(e.FirstSeen), micros(e.LastSeen), e.ID)
	if err != nil {
		return err
	}
	if _, err := s.exec(`DELETE FROM endpoint_mac WHERE endpoint_id = ?`, e.ID); err != nil {
		return fmt.Errorf("set MACs of endpoint %d: %w", e.ID, err)
	}
	return s.setMACs(e)
}

func (s *session) setMACs(e endpoint.Endpoint) error {
	for _, m := range e.MACs {
		_, err := s.exec(`INSERT INTO endpoint_mac (mac, endpoint_id) VALUES (?, ?)
			ON CONFLICT (mac) DO UPDATE SET endpoint_id = excluded.endpoint_id`, m[:], e.ID)
		if err != nil {
			return fmt.Errorf("set MAC %s of endpoint %d: %w", m, e.ID, err)
		}
	}
	return nil
}

// MergeEndpoint implements store.Tx.
func (s *session) MergeEndpoint(from, into int64) error {
	if from == into {
		return fmt.Errorf("merge endpoint %d into itself", from)
	}
	for _, id := range []int64{from, into} {
		if _, err := s.Endpoint(id); err != nil {
			return fmt.Errorf("merge endpoint %d into %d: endpoint %d: %w", from, into, id, err)
		}
	}
	for _, query := range []string{
		`UPDATE threat SET endpoint_id = ? WHERE endpoint_id = ?`,
		`UPDATE quarantine SET endpoint_id = ? WHERE endpoint_id = ?`,
		`UPDATE endpoint_mac SET endpoint_id = ? WHERE endpoint_id = ?`,
	} {
		if _, err := s.exec(query, into, from); err != nil {
			return fmt.Errorf("merge endpoint %d into %d: %w", from, into, err)
		}
	}
	if _, err := s.exec(`DELETE FROM endpoint WHERE id = ?`, from); err != nil {
		return fmt.Errorf("remove endpoint %d: %w", from, err)
	}
	return nil
}

func scanBinding(r row) (b endpoint.Binding, err error) {
	return b, r.Scan(addrColumn{&b.Addr}, macColumn{&b.MAC}, asTime(&b.From), asTime(&b.Until), asTime(&b.LastSeen), &b.Source)
}

const bindingColumns = `address, mac, began, ended, last_seen, source`

// Bindings implements store.View.
func (s *session) Bindings(a netip.Addr) ([]endpoint.Binding, error) {
	return list(s, scanBinding, `SELECT `+bindingColumns+` FROM binding WHERE address = ?
		ORDER BY began DESC, id DESC LIMIT 64`, addrText(a))
}

// BindingsOfMAC implements store.View.
func (s *session) BindingsOfMAC(m endpoint.MAC) ([]endpoint.Binding, error) {
	return list(s, scanBinding, `SELECT `+bindingColumns+` FROM binding WHERE mac = ? AND ended = 0
		ORDER BY began DESC, id DESC LIMIT 256`, m[:])
}

// OpenBinding implements store.Tx.
func (s *session) OpenBinding(b endpoint.Binding) error {
	res, err := s.exec(`UPDATE binding SET last_seen = max(last_seen, ?),
		source = CASE WHEN ? THEN ? ELSE source END WHERE address = ? AND mac = ? AND ended = 0`,
		micros(b.LastSeen), b.ByDevice(), b.Source, addrText(b.Addr), b.MAC[:])
	if err != nil {
		return fmt.Errorf("confirm binding of %s: %w", b.Addr, err)
	}
	if n, err := res.RowsAffected(); err != nil || n > 0 {
		return err
	}
	// Whoever held the address before holds it no longer.
	_, err = s.exec(`UPDATE binding SET ended = ? WHERE address = ? AND ended = 0`, micros(b.From), addrText(b.Addr))
	if err != nil {
		return fmt.Errorf("end earlier binding of %s: %w", b.Addr, err)
	}
	_, err = s.exec(`INSERT INTO binding (address, mac, began, ended, last_seen, source) VALUES (?, ?, ?, 0, ?, ?)`,
		addrText(b.Addr), b.MAC[:], micros(b.From), micros(b.LastSeen), b.Source)
	if err != nil {
		return fmt.Errorf("bind %s to %s: %w", b.Addr, b.MAC, err)
	}
	return s.boundBindings(b)
}

// boundBindings keeps what one MAC and one address have in bindings within bounds.
func (s *session) boundBindings(b endpoint.Binding) error {
	for _, step := range []struct {
		query string
		args  []any
	}{
		{`UPDATE binding SET ended = max(last_seen, began) WHERE id IN (SELECT id FROM binding WHERE mac = ? AND ended = 0
			ORDER BY last_seen DESC, id DESC LIMIT -1 OFFSET ?)`, []any{b.MAC[:], store.MaxBindingsOfMAC}},
		{`DELETE FROM binding WHERE id IN (SELECT id FROM binding WHERE mac = ? AND ended > 0
			ORDER BY last_seen DESC, id DESC LIMIT -1 OFFSET ?)`, []any{b.MAC[:], store.MaxPastBindings}},
		{`DELETE FROM binding WHERE id IN (SELECT id FROM binding WHERE address = ? AND ended > 0
			ORDER BY began DESC, id DESC LIMIT -1 OFFSET ?)`, []any{addrText(b.Addr), store.MaxPastBindings}},
	} {
		if _, err := s.exec(step.query, step.args...); err != nil {
			return fmt.Errorf("bound the bindings of %s and %s: %w", b.MAC, b.Addr, err)
		}
	}
	return nil
}

// CloseBinding implements store.Tx.
func (s *session) CloseBinding(a netip.Addr, m endpoint.MAC, at time.Time) error {
	_, err := s.exec(`UPDATE binding SET ended = ?, last_seen = max(last_seen, ?) WHERE address = ? AND mac = ? AND ended = 0`,
		micros(at), micros(at), addrText(a), m[:])
	if err != nil {
		return fmt.Errorf("end binding of %s: %w", a, err)
	}
	return nil
}

func sortMACs(macs []endpoint.MAC) {
	slices.SortFunc(macs, func(a, b endpoint.MAC) int { return bytes.Compare(a[:], b[:]) })
}
