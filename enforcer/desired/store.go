// Package desired is the durable desired set of an enforcement device: which
// endpoints it was ordered to quarantine, up to which revision, what its guard
// let in, and which addresses the quarantined MACs have. It lives in one
// append-only journal, which is rewritten when it grew to twice its content.
package desired

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cordon-security/cordon/internal/durablefile"
)

const (
	journalName = "desired.journal"
	// slack is how much a journal may grow before it is worth rewriting.
	slack = 1 << 20
	// maxRecord is from what size on an order is made durable by rewriting the
	// journal, in records of baseChunk, instead of as one record.
	maxRecord = 8 << 20
	// baseChunk is about how large the records of the compacted set are.
	baseChunk = 1 << 16
	// retryEvery is how often a disk that failed is tried again.
	retryEvery = 3 * time.Second
)

// unseen is why a new journal cannot be trusted to be whole, until the device saw
// that nothing is in force.
const unseen = "there was no desired set when the device started; what was in force stays until a snapshot of the orders comes"

// ErrNotDurable says that a change holds in memory only, because the disk did
// not take it. Tend tries it again.
var ErrNotDurable = errors.New("not durable: the state directory cannot be written")

// Store is the desired set and its journal. It is not safe for concurrent use.
type Store struct {
	*State
	path string
	log  *slog.Logger
	file *os.File
	lock *os.File
	size int64
	base int64
	// pending counts the operations that are in memory only.
	pending int
	broken  error
	retryAt time.Time
	dirty   bool
	buf     []byte
}

// Open reads the desired set in dir, which must exist, and locks it against a
// second device. A damaged journal is put aside, and what could be read of it
// holds, with Degraded saying so: damage never releases anybody.
func Open(dir string, log *slog.Logger) (*Store, error) {
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil && !errors.Is(err, unix.ENOSPC) {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if err == nil {
		if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			_ = lock.Close()
			return nil, fmt.Errorf("state directory %s is in use by another cordon-enforcer: %w", dir, err)
		}
	}
	s := &Store{State: newState(), path: filepath.Join(dir, journalName), log: log, lock: lock}
	if err := s.read(); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Store) read() error {
	f, err := os.OpenFile(s.path, os.O_RDWR, 0o600)
	if errors.Is(err, os.ErrNotExist) {
		s.degraded = unseen
		s.rewrite()
		return nil
	}
	if err != nil {
		return fmt.Errorf("open the desired set: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return fmt.Errorf("open the desired set: %w", err)
	}
	l, err := load(f, info.Size())
	s.State = l.state
	if err != nil {
		_ = f.Close()
		return s.putAside(err)
	}
	s.file, s.size, s.base = f, l.good, l.base
	if l.torn > 0 {
		s.log.Warn("dropped an unfinished last record of the desired set, which no order was acknowledged for", "bytes", l.torn)
		if err := f.Truncate(l.good); err != nil {
			return fmt.Errorf("cut the unfinished record off %s: %w", s.path, err)
		}
	}
	return nil
}

// putAside keeps a damaged journal for a person and begins a new one with what
// could be read of it.
func (s *Store) putAside(damage error) error {
	aside := s.path + ".damaged-" + time.Now().UTC().Format("20060102T150405Z")
	if err := os.Rename(s.path, aside); err != nil {
		return fmt.Errorf("%w; and it cannot be put aside: %w", damage, err)
	}
	s.degraded = fmt.Sprintf("%v; it was put aside as %s; what was in force stays until a snapshot of the orders comes", damage, aside)
	s.revision = Revision{}
	s.log.Error("the desired set is damaged", "err", damage, "put_aside", aside, "read", s.Len())
	s.rewrite()
	return nil
}

// Fresh reports whether there was no journal, and nobody has looked since what
// is in force: the set is degraded until it is seen that nothing is.
func (s *Store) Fresh() bool { return s.degraded == unseen }

// Alarm says in words what is wrong with the store itself; empty when nothing.
func (s *Store) Alarm() string {
	if s.broken != nil {
		return fmt.Sprintf("orders are held in memory only and would be lost by a restart: %v; free space in or repair %s",
			s.broken, filepath.Dir(s.path))
	}
	return s.degraded
}

// Commit makes changes durable, all or none, and then applies them. When the
// disk does not take them they are applied all the same, and the error is
// ErrNotDurable.
func (s *Store) Commit(ops ...Operation) error {
	return s.commit(true, ops)
}

// Note is Commit without the wait for the disk: a power cut may lose it.
func (s *Store) Note(ops ...Operation) error {
	return s.commit(false, ops)
}

func (s *Store) commit(sync bool, ops []Operation) error {
	for _, op := range ops {
		s.apply(op)
	}
	if s.broken != nil {
		s.pending += len(ops)
		return fmt.Errorf("%w: %w", ErrNotDurable, s.broken)
	}
	if err := s.write(sync, ops); err != nil {
		s.pending += len(ops)
		return s.fail(err)
	}
	return nil
}

func (s *Store) write(sync bool, ops []Operation) error {
	if s.file == nil {
		return errors.New("no journal is open")
	}
	b := append(s.buf[:0], make([]byte, frameLen)...)
	for _, op := range ops {
		if b = op.append(b); len(b) > maxRecord {
			return s.replace()
		}
	}
	b = seal(b)
	if cap(b) <= baseChunk {
		s.buf = b
	}
	if _, err := s.file.WriteAt(b, s.size); err != nil {
		return err
	}
	if sync {
		if err := unix.Fdatasync(int(s.file.Fd())); err != nil {
			return fmt.Errorf("fdatasync %s: %w", s.path, err)
		}
	}
	s.dirty = !sync
	s.size += int64(len(b))
	return nil
}

// fail cuts off what was half written, and raises the alarm once.
func (s *Store) fail(err error) error {
	if s.file != nil {
		_ = s.file.Truncate(s.size)
	}
	if s.broken == nil {
		s.log.Error("the desired set cannot be written; orders are carried out and held in memory", "err", err)
	}
	s.broken, s.retryAt = err, time.Now().Add(retryEvery)
	return fmt.Errorf("%w: %w", ErrNotDurable, err)
}

// Tend does what is due besides orders: it writes what the disk did not take,
// syncs what was noted, and rewrites a journal that grew. Call it every second
// or so.
func (s *Store) Tend() {
	switch {
	case s.broken != nil && time.Now().Before(s.retryAt):
	case s.broken != nil || s.size > 2*s.base+slack:
		s.rewrite()
	case s.dirty:
		if err := unix.Fdatasync(int(s.file.Fd())); err != nil {
			_ = s.fail(err)
			return
		}
		s.dirty = false
	}
}

// rewrite replaces the journal, and raises the alarm when that fails.
func (s *Store) rewrite() {
	if err := s.replace(); err != nil {
		_ = s.fail(err)
	}
}

// replace replaces the journal by one that holds the present set.
func (s *Store) replace() error {
	f, size, err := s.compact()
	if err != nil {
		return err
	}
	if s.file != nil {
		_ = s.file.Close()
	}
	if s.broken != nil {
		s.log.Info("the desired set is durable again", "pending", s.pending)
	}
	s.file, s.size, s.base, s.dirty = f, size, size, false
	s.broken, s.pending = nil, 0
	return nil
}

func (s *Store) compact() (*os.File, int64, error) {
	temp := s.path + ".new"
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return nil, 0, err
	}
	size, err := s.writeBase(f)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(temp, s.path)
	}
	if err == nil {
		err = durablefile.SyncDir(filepath.Dir(s.path))
	}
	if err != nil {
		_ = f.Close()
		_ = os.Remove(temp)
		return nil, 0, fmt.Errorf("rewrite the desired set: %w", err)
	}
	return f, size, nil
}

func (s *Store) writeBase(f *os.File) (size int64, err error) {
	w := chunks{f: f, b: make([]byte, frameLen, baseChunk+4096)}
	w.raw([]byte(header))
	for _, op := range []Operation{SetRevision(s.revision), Degrade(s.degraded)} {
		w.add(op)
	}
	for m, at := range s.begun {
		w.add(Operation{kind: kindBegun, mac: m, at: at})
	}
	s.Each(func(q *Quarantine) { w.add(Put(q)) })
	for m, sub := range s.subjects {
		for _, b := range sub.addresses {
			w.add(Operation{kind: kindBind, mac: m, address: b.address, at: b.seen})
		}
	}
	s.EachClaim(func(c Claim) { w.add(Dispute(c)) })
	w.add(Operation{kind: kindBase})
	w.flush()
	return w.size, w.err
}

// chunks writes operations as records of about baseChunk bytes.
type chunks struct {
	f    *os.File
	b    []byte
	size int64
	err  error
}

func (w *chunks) add(op Operation) {
	w.b = op.append(w.b)
	if len(w.b) >= baseChunk {
		w.flush()
	}
}

func (w *chunks) flush() {
	if w.err == nil && len(w.b)-frameLen > maxPayload {
		w.err = fmt.Errorf("a record of %d bytes is more than a journal holds", len(w.b))
	}
	w.raw(seal(w.b))
	w.b = w.b[:frameLen]
}

func (w *chunks) raw(b []byte) {
	if w.err != nil {
		return
	}
	n, err := w.f.Write(b)
	w.size, w.err = w.size+int64(n), err
}

// Close closes the journal and gives up the lock.
func (s *Store) Close() error {
	var err error
	if s.file != nil {
		s.Tend()
		err = s.file.Close()
	}
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
	}
	return err
}
