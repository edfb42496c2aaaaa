package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

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
	err := s.reserve.fill(time.Now())
	if !s.reserve.whole() {
		// What the reserve gave up is for urgent updates alone.
		group = finishOrdinary(group, fmt.Errorf("%w in %s: make room there: the reserve is not whole: %w", store.ErrFull, s.dir, err))
	}
	err = s.tryGroup(group, missed)
	if errors.Is(err, store.ErrFull) {
		group = finishOrdinary(group, err)
	}
	for len(group) > 0 && errors.Is(err, store.ErrFull) && s.reserve.spend() {
		err = s.tryGroup(group, missed)
	}
	finish(group, err)
	s.writeStmts.warm(context.Background(), missed)
}

// finishOrdinary tells those that are not urgent of an error and returns the others.
func finishOrdinary(group []*update, err error) (urgent []*update) {
	var ordinary []*update
	for _, u := range group {
		if store.IsUrgent(u.ctx) {
			urgent = append(urgent, u)
		} else {
			ordinary = append(ordinary, u)
		}
	}
	finish(ordinary, err)
	return urgent
}

// finish tells each of its own outcome, or all of an error that was the commit's.
func finish(group []*update, err error) {
	for _, u := range group {
		if err != nil {
			u.err = err
		}
		close(u.done)
	}
}

func (s *Store) tryGroup(group []*update, missed map[string]bool) error {
	if len(group) == 0 {
		return nil
	}
	return mapError(s.dir, s.runGroup(group, missed))
}

func (s *Store) runGroup(group []*update, missed map[string]bool) error {
	ctx := context.Background()
	tx, err := s.writeDB.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin to write: %w", err)
	}
	defer tx.Rollback()
	for _, u := range group {
		if err := s.runOne(ctx, tx, u, missed); err != nil {
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
func (s *Store) runOne(ctx context.Context, tx *sql.Tx, u *update, missed map[string]bool) error {
	if err := u.ctx.Err(); err != nil {
		u.err = err
		return nil
	}
	if _, err := tx.ExecContext(ctx, "SAVEPOINT one"); err != nil {
		return fmt.Errorf("set savepoint: %w", err)
	}
	u.err = mapError(s.dir, u.fn(&session{ctx: ctx, tx: tx, stmts: &s.writeStmts, missed: missed}))
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
