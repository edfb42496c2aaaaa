package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/cordon-security/cordon/mitigator/store"
)

// maxGroup is how many updates share one commit at the most: past about a
// hundred the commit's share of each is lost in the statements.
const maxGroup = 128

// update is one caller's transaction, waiting for its group's commit.
type update struct {
	ctx  context.Context
	fn   func(store.Tx) error
	err  error
	done chan struct{}
}

// Update implements store.Store.
func (s *Store) Update(ctx context.Context, fn func(store.Tx) error) error {
	u := &update{ctx: ctx, fn: fn, done: make(chan struct{})}
	select {
	case s.queue <- u:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.stop:
		return errClosed
	}
	// Past this point the outcome is the writer's alone: to leave early would
	// say "failed" of what may be durable a moment later.
	select {
	case <-u.done:
		return u.err
	case <-s.done:
		select {
		case <-u.done:
			return u.err
		default:
			return errClosed
		}
	}
}

var errClosed = errors.New("the store is closed")

// write is the single writer: it takes what waits, runs it in one transaction
// and tells everybody of the commit.
func (s *Store) write() {
	defer close(s.done)
	for {
		select {
		case u := <-s.queue:
			s.commit(s.gather(u))
		case <-s.stop:
			return
		}
	}
}

func (s *Store) gather(first *update) []*update {
	group := []*update{first}
	for len(group) < maxGroup {
		select {
		case u := <-s.queue:
			group = append(group, u)
		default:
			return group
		}
	}
	return group
}

func (s *Store) commit(group []*update) {
	missed := map[string]bool{}
	err := mapError(s.runGroup(group, missed))
	for _, u := range group {
		if err != nil {
			u.err = err
		}
		close(u.done)
	}
	s.writeStmts.warm(context.Background(), missed)
}

func (s *Store) runGroup(group []*update, missed map[string]bool) error {
	ctx := context.Background()
	tx, err := s.writeDB.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin to write: %w", err)
	}
	defer tx.Rollback()
	for _, u := range group {
		if err := runOne(ctx, tx, u, &s.writeStmts, missed); err != nil {
			return err
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// runOne runs one caller's function under a savepoint, so that its error undoes
// only its own writes. The error it returns is the group's.
func runOne(ctx context.Context, tx *sql.Tx, u *update, stmts *stmtCache, missed map[string]bool) error {
	if err := u.ctx.Err(); err != nil {
		u.err = err
		return nil
	}
	if _, err := tx.ExecContext(ctx, "SAVEPOINT one"); err != nil {
		return fmt.Errorf("set savepoint: %w", err)
	}
	u.err = mapError(u.fn(&session{ctx: ctx, tx: tx, stmts: stmts, missed: missed}))
	if errors.Is(u.err, store.ErrFull) {
		return u.err // the engine may have rolled the whole transaction back
	}
	if u.err != nil {
		if _, err := tx.ExecContext(ctx, "ROLLBACK TO one"); err != nil {
			return fmt.Errorf("roll back to savepoint: %w", err)
		}
	}
	if _, err := tx.ExecContext(ctx, "RELEASE one"); err != nil {
		return fmt.Errorf("release savepoint: %w", err)
	}
	return nil
}
