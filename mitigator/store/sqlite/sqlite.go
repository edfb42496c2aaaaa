// Package sqlite is the embedded store: one SQLite database in WAL mode with
// synchronous=FULL, one writer with group commit, and a pool of readers beside
// it. See store.Store for the contract.
package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlitelib "modernc.org/sqlite/lib"

	"github.com/cordon-security/cordon/mitigator/store"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Store is a store.Store in one file.
type Store struct {
	writeDB *sql.DB
	readDB  *sql.DB

	writeStmts stmtCache
	readStmts  stmtCache
	dir        string
	reserve    *reserve

	queue chan *update
	stop  chan struct{}
	done  chan struct{}
	once  sync.Once
}

// Options are what a Store may be told.
type Options struct {
	// Reserve is how much room is kept for urgent updates on a full disk, in
	// bytes; 0 for none.
	Reserve int64
}

// Open opens the database file with DefaultReserve, makes it if it is absent,
// and brings its schema up to date.
func Open(ctx context.Context, path string) (*Store, error) {
	return OpenWith(ctx, path, Options{Reserve: DefaultReserve})
}

// OpenWith is Open with options. On a full disk it uses up the reserve as far as
// it must: the quarantines that stand need a mitigator that releases them.
func OpenWith(ctx context.Context, path string, o Options) (*Store, error) {
	r := newReserve(path, o.Reserve)
	for {
		s, err := openOnce(ctx, path, r)
		if errors.Is(err, store.ErrFull) && r.spend() {
			continue
		}
		return s, err
	}
}

func openOnce(ctx context.Context, path string, r *reserve) (*Store, error) {
	dir := filepath.Dir(path)
	writeDB, err := open(path, 1)
	if err != nil {
		return nil, err
	}
	if err := migrate(ctx, writeDB); err != nil {
		err = mapError(dir, err)
		writeDB.Close()
		return nil, fmt.Errorf("bring schema of %s up to date: %w", path, err)
	}
	readDB, err := open(path, 4)
	if err != nil {
		writeDB.Close()
		return nil, err
	}
	s := &Store{
		writeDB: writeDB, readDB: readDB, dir: dir, reserve: r,
		writeStmts: stmtCache{db: writeDB}, readStmts: stmtCache{db: readDB},
		queue: make(chan *update, maxGroup), stop: make(chan struct{}), done: make(chan struct{}),
	}
	if err := r.fill(time.Now()); err != nil && !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		return nil, errors.Join(err, writeDB.Close(), readDB.Close())
	}
	go s.write()
	return s, nil
}

func open(path string, conns int) (*sql.DB, error) {
	q := url.Values{}
	q.Set("_txlock", "immediate")
	if conns > 1 {
		q.Set("_txlock", "deferred")
	}
	for _, p := range []string{
		"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(ON)", "cache_size(-16000)",
		"temp_store(MEMORY)", // no file elsewhere whose disk could be full
	} {
		q.Add("_pragma", p)
	}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+q.Encode())
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}

func migrate(ctx context.Context, db *sql.DB) error {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, dir)
	if err != nil {
		return err
	}
	_, err = p.Up(ctx)
	return err
}

// Close waits for the updates under way and closes the database.
func (s *Store) Close() error {
	s.once.Do(func() { close(s.stop) })
	<-s.done
	return errors.Join(s.writeDB.Close(), s.readDB.Close())
}

// View implements store.Store.
func (s *Store) View(ctx context.Context, fn func(store.View) error) error {
	missed := map[string]bool{}
	err := mapError(s.dir, s.view(ctx, fn, missed))
	s.readStmts.warm(ctx, missed)
	return err
}

func (s *Store) view(ctx context.Context, fn func(store.View) error, missed map[string]bool) error {
	tx, err := s.readDB.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return fmt.Errorf("begin to read: %w", err)
	}
	defer tx.Rollback()
	return fn(&session{ctx: ctx, tx: tx, stmts: &s.readStmts, missed: missed})
}

// stmtCache keeps the prepared form of each query: parsing one costs more than
// most of them take to run.
type stmtCache struct {
	db    *sql.DB
	mu    sync.Mutex
	stmts map[string]*sql.Stmt
}

// bind gives the query prepared for the transaction's own connection, and
// whether it was kept from before.
func (c *stmtCache) bind(ctx context.Context, tx *sql.Tx, query string) (*sql.Stmt, bool, error) {
	c.mu.Lock()
	st := c.stmts[query]
	c.mu.Unlock()
	if st != nil {
		return tx.StmtContext(ctx, st), true, nil
	}
	st, err := tx.PrepareContext(ctx, query)
	return st, false, err
}

// warm prepares queries for later transactions. It must run outside any: the
// writer has one connection, and would wait for itself. A query that cannot be
// kept is prepared again each time: slower, not wrong.
func (c *stmtCache) warm(ctx context.Context, queries map[string]bool) {
	for query := range queries {
		st, err := c.db.PrepareContext(ctx, query)
		if err != nil {
			return
		}
		c.keep(query, st)
	}
}

func (c *stmtCache) keep(query string, st *sql.Stmt) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stmts == nil {
		c.stmts = map[string]*sql.Stmt{}
	}
	if c.stmts[query] != nil {
		st.Close()
		return
	}
	c.stmts[query] = st
}

// mapError turns the engine's codes into the contract's errors. dir is where the
// database lies.
func mapError(dir string, err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) || errors.Is(err, store.ErrFull) {
		return err
	}
	switch e.Code() & 0xff {
	case sqlitelib.SQLITE_FULL:
	case sqlitelib.SQLITE_IOERR, sqlitelib.SQLITE_CANTOPEN:
		if !noRoom(dir) {
			return err
		}
	default:
		return err
	}
	return fmt.Errorf("%w in %s: make room there: %w", store.ErrFull, dir, err)
}

// Reserve implements store.Store.
func (s *Store) Reserve() (left, whole int64) { return s.reserve.left.Load(), s.reserve.size }
