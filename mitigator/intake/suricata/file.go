package suricata

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/cordon-security/cordon/mitigator/intake"
)

// lookAgain is how often the file is looked at when nothing was notified: the
// safety net under inotify, which network file systems do not serve.
const lookAgain = time.Second

// idleCursor is after how many bytes without an alert the cursor is stored, so
// that a restart does not read all of a quiet day again.
const idleCursor = 4 << 20

// FileOptions are what a File needs.
type FileOptions struct {
	// Name is the source's configured name.
	Name string
	// Path is absolute: Suricata's eve.json.
	Path string
	// Logger gets what a person should know once (a truncation, a lost file); nil
	// for slog.Default.
	Logger *slog.Logger
	// Now is the clock; nil for time.Now.
	Now func() time.Time
}

// File follows the EVE file of a Suricata. It reads on after rotations
// (rename and create, or copytruncate), also those that happened while it did
// not run, and resumes at the record behind the last durable one. Without a
// cursor it begins at the file's beginning.
type File struct {
	o FileOptions
}

// NewFile checks the options; it opens nothing.
func NewFile(o FileOptions) (*File, error) {
	if o.Name == "" {
		return nil, errors.New("a file source needs a name")
	}
	if !filepath.IsAbs(o.Path) {
		return nil, fmt.Errorf("source %s: path %q must be absolute", o.Name, o.Path)
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &File{o: o}, nil
}

// Name is the configured name.
func (s *File) Name() string { return s.o.Name }

// Kind is "suricata-file".
func (s *File) Kind() string { return intake.KindSuricataFile }

// Target is the path.
func (s *File) Target() string { return s.o.Path }

// Run follows the file until ctx ends. It may be called again afterwards, not
// at the same time.
func (s *File) Run(ctx context.Context, feed intake.Feed) error {
	watch, err := newWatcher()
	if err != nil {
		return err
	}
	defer watch.close()
	t := &tail{File: s, feed: feed, watch: watch, collect: collector{source: s.o.Name, now: s.o.Now}}
	defer t.drop()
	if err := t.begin(ctx); err != nil {
		return quiet(ctx, err)
	}
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		if err := t.pump(ctx); err != nil {
			return quiet(ctx, err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-watch.wake:
		case <-tick.C:
		}
	}
}

// quiet is nil when the error only says that ctx ended.
func quiet(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// tail is one run over the file and its successors.
type tail struct {
	*File
	feed    intake.Feed
	watch   *watcher
	collect collector
	// stored is what the last durable cursor said; nil for none.
	stored *cursor
	// open is nil while there is no file.
	open *openFile
}

// begin reads where the last run stopped.
func (t *tail) begin(ctx context.Context) error {
	raw, err := t.feed.Cursor(ctx)
	if err != nil {
		return fmt.Errorf("read the cursor of source %s: %w", t.o.Name, err)
	}
	if raw == nil {
		return nil
	}
	c, err := decodeCursor(raw)
	if err != nil {
		// Nothing better is left than the file's beginning; keys keep what was
		// stored from being stored twice.
		t.o.Logger.Error("source starts anew", "source", t.o.Name, "error", err)
		return nil
	}
	t.stored = &c
	return nil
}

// pump reads everything that is there, over all rotations.
func (t *tail) pump(ctx context.Context) error {
	// Set again each time: the directory may have been made or replaced since.
	// Where it cannot be watched, the clock serves.
	_ = t.watch.names(t.o.Path)
	for ctx.Err() == nil {
		if t.open == nil {
			if err := t.find(); err != nil {
				t.feed.Unhealthy(err)
				return nil
			}
		}
		err := t.mark(ctx)
		if err == nil {
			err = t.drain(ctx)
		}
		if errors.Is(err, errTruncated) {
			if err := t.cut(); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		more, err := t.advance(ctx)
		if err != nil || !more {
			return err
		}
	}
	return ctx.Err()
}

// find opens the file that the cursor points into, else the one at the path.
func (t *tail) find() error {
	f, err := t.locate()
	if err != nil {
		return err
	}
	t.use(f)
	return nil
}

func (t *tail) locate() (*openFile, error) {
	current, err := openRegular(t.o.Path)
	if t.stored == nil || t.stored.Inode == 0 {
		return current, err
	}
	c := *t.stored
	if err == nil {
		size, _, statErr := current.stat()
		if statErr == nil && c.isFile(current, size) {
			return current, current.resume(c.Offset)
		}
	}
	if rest := findRest(t.o.Path, c); rest != nil {
		if current != nil {
			current.close()
		}
		return rest, rest.resume(c.Offset)
	}
	if err != nil {
		return nil, err
	}
	if c.Offset > 0 {
		t.o.Logger.Warn("source starts at the beginning of a new file", "source", t.o.Name, "path", t.o.Path, "error", errNoRest)
	}
	return current, nil
}

// use makes f the file that is read.
func (t *tail) use(f *openFile) {
	t.drop()
	t.open = f
	// Without a watch (fs.inotify.max_user_watches) the clock serves.
	_ = t.watch.contents(f.file)
	t.feed.Healthy()
}

func (t *tail) drop() {
	if t.open != nil {
		t.open.close()
		t.open = nil
	}
}

// mark stores that a file is begun, so that its predecessor is not missed when
// it is compressed or deleted.
func (t *tail) mark(ctx context.Context) error {
	if t.open.offset > 0 || (t.stored != nil && t.stored.Inode == t.open.inode && t.stored.Offset == 0) {
		return nil
	}
	c := t.open.cursor()
	if err := t.feed.Deliver(ctx, intake.Arrival{Cursor: c.encode()}); err != nil {
		return err
	}
	t.stored = &c
	return nil
}

// drain reads to the end of the open file. A last line without an end waits.
func (t *tail) drain(ctx context.Context) error {
	for ctx.Err() == nil {
		more, err := t.open.fill()
		if err != nil {
			return err
		}
		if err := t.lines(ctx); err != nil {
			return err
		}
		if !more {
			return nil
		}
	}
	return ctx.Err()
}

// lines delivers the whole lines that were read: alone when one came alone, in
// batches when more did.
func (t *tail) lines(ctx context.Context) error {
	for {
		l, key, ok := t.open.next(t.o.Name)
		if !ok {
			return t.flush(ctx)
		}
		if l.long {
			t.collect.tooLong(l.raw, l.size, key)
		} else {
			t.collect.add(l.raw, key)
		}
		if t.collect.full() {
			if err := t.flush(ctx); err != nil {
				return err
			}
		}
	}
}

// flush makes what was collected durable, with the place behind it.
func (t *tail) flush(ctx context.Context) error {
	quietBytes := t.open.offset
	if t.stored != nil && t.stored.Inode == t.open.inode {
		quietBytes -= t.stored.Offset
	}
	if t.collect.empty() && quietBytes < idleCursor {
		return t.feed.Deliver(ctx, t.collect.take())
	}
	c := t.open.cursor()
	a := t.collect.take()
	a.Cursor = c.encode()
	if err := t.feed.Deliver(ctx, a); err != nil {
		return err
	}
	t.stored = &c
	return nil
}

// advance goes to the successor of a file that was read to its end; more is
// false when there is nothing further to read now.
func (t *tail) advance(ctx context.Context) (more bool, err error) {
	next, err := after(t.o.Path, t.open)
	if next == nil && err == nil && t.watch.next(t.o.Path) {
		// Looked at again: it may have been written to before it was watched.
		next, err = after(t.o.Path, t.open)
	}
	if err != nil {
		t.feed.Unhealthy(err)
		return false, nil
	}
	t.feed.Healthy()
	if next == nil {
		return false, nil
	}
	// The successor is in use, so nothing more is appended to this one: what came
	// until now is the last of it.
	err = t.drain(ctx)
	if err == nil {
		err = t.finish(ctx)
	}
	if err != nil {
		next.close()
		if errors.Is(err, errTruncated) {
			return true, t.cut()
		}
		return false, err
	}
	t.use(next)
	return true, nil
}

// finish delivers a last line that will never get its end, and notes that the
// file is done.
func (t *tail) finish(ctx context.Context) error {
	l, key, ok := t.open.rest(t.o.Name)
	if !ok {
		return nil
	}
	if l.long {
		t.collect.tooLong(l.raw, l.size, key)
	} else {
		t.collect.add(l.raw, key)
	}
	return t.flush(ctx)
}

// cut deals with a file that was truncated: the rest is in the copy that
// copytruncate made, else it is lost; then the file is read from its beginning.
func (t *tail) cut() error {
	c := t.open.cursor()
	t.drop()
	rest := findRest(t.o.Path, c)
	if rest == nil {
		t.o.Logger.Warn("source was truncated without a copy: records that were not read by then are lost",
			"source", t.o.Name, "path", t.o.Path, "offset", c.Offset)
		// The file is found by its path now, and marked as begun.
		t.stored = &cursor{}
		return nil
	}
	if err := rest.resume(c.Offset); err != nil {
		rest.close()
		return err
	}
	t.use(rest)
	return nil
}
