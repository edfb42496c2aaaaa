package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cordon-security/cordon/mitigator/endpoint"
	"github.com/cordon-security/cordon/mitigator/store"
)

// session is one transaction: a store.Tx, used as a store.View by readers.
type session struct {
	ctx    context.Context
	tx     *sql.Tx
	stmts  *stmtCache
	missed map[string]bool
}

var _ store.Tx = (*session)(nil)

// row is what both *sql.Row and *sql.Rows scan from.
type row interface{ Scan(...any) error }

func (s *session) stmt(query string) (*sql.Stmt, error) {
	st, kept, err := s.stmts.bind(s.ctx, s.tx, query)
	if err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	if !kept {
		s.missed[query] = true
	}
	return st, nil
}

func (s *session) exec(query string, args ...any) (sql.Result, error) {
	st, err := s.stmt(query)
	if err != nil {
		return nil, err
	}
	return st.ExecContext(s.ctx, args...)
}

// change runs a statement that must touch exactly one row.
func (s *session) change(what, query string, args ...any) error {
	res, err := s.exec(query, args...)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return fmt.Errorf("%s: %w", what, errors.Join(store.ErrNotFound, err))
	}
	return nil
}

// one scans a single row, or gives store.ErrNotFound.
func one[T any](s *session, scan func(row) (T, error), query string, args ...any) (T, error) {
	var zero T
	st, err := s.stmt(query)
	if err != nil {
		return zero, err
	}
	v, err := scan(st.QueryRowContext(s.ctx, args...))
	if errors.Is(err, sql.ErrNoRows) {
		return zero, store.ErrNotFound
	}
	return v, err
}

// find is one with the absence as a value.
func find[T any](s *session, scan func(row) (T, error), query string, args ...any) (T, bool, error) {
	v, err := one(s, scan, query, args...)
	if errors.Is(err, store.ErrNotFound) {
		return v, false, nil
	}
	return v, err == nil, err
}

// list scans all rows.
func list[T any](s *session, scan func(row) (T, error), query string, args ...any) ([]T, error) {
	st, err := s.stmt(query)
	if err != nil {
		return nil, err
	}
	rows, err := st.QueryContext(s.ctx, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

func scanInt(r row) (n int64, err error)      { return n, r.Scan(&n) }
func scanBytes(r row) (b []byte, err error)   { return b, r.Scan(&b) }
func scanString(r row) (v string, err error)  { return v, r.Scan(&v) }
func scanTime(r row) (t time.Time, err error) { return t, r.Scan(asTime(&t)) }

func limitOr(n int) int {
	if n <= 0 {
		return store.DefaultLimit
	}
	return n
}

// micros is a time's column form.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// timeColumn scans a time from its column form.
type timeColumn struct{ t *time.Time }

func asTime(t *time.Time) timeColumn { return timeColumn{t} }

// Scan implements sql.Scanner.
func (c timeColumn) Scan(v any) error {
	n, ok := v.(int64)
	if !ok {
		return fmt.Errorf("time column holds %T: want an integer", v)
	}
	*c.t = time.Time{}
	if n != 0 {
		*c.t = time.UnixMicro(n).UTC()
	}
	return nil
}

// addrColumn scans an address from text; empty is the zero address.
type addrColumn struct{ a *netip.Addr }

// Scan implements sql.Scanner.
func (c addrColumn) Scan(v any) error {
	text, ok := v.(string)
	if !ok {
		return fmt.Errorf("address column holds %T: want text", v)
	}
	*c.a = netip.Addr{}
	if text == "" {
		return nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return fmt.Errorf("address column: %w", err)
	}
	*c.a = a
	return nil
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// macColumn scans one MAC from its 6 bytes.
type macColumn struct{ m *endpoint.MAC }

// Scan implements sql.Scanner.
func (c macColumn) Scan(v any) error {
	b, ok := v.([]byte)
	if !ok {
		return fmt.Errorf("MAC column holds %T: want a blob", v)
	}
	m, err := endpoint.MACFrom(b)
	if err != nil {
		return err
	}
	*c.m = m
	return nil
}

func packMACs(macs []endpoint.MAC) []byte {
	b := make([]byte, 0, 6*len(macs))
	for _, m := range macs {
		b = append(b, m[:]...)
	}
	return b
}

func unpackMACs(b []byte) []endpoint.MAC {
	var macs []endpoint.MAC
	for len(b) >= 6 {
		macs = append(macs, endpoint.MAC(b[:6]))
		b = b[6:]
	}
	return macs
}
