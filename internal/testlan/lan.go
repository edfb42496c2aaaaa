package testlan

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"sync/atomic"
	"time"
)

// closeTimeout bounds how long Close and Down wait for killed processes to go.
const closeTimeout = 20 * time.Second

// ErrExists is returned by New when a LAN of that name is up.
var ErrExists = errors.New("a LAN of that name is up")

var (
	validName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)
	unnamed   atomic.Int64
)

// Options says how a LAN is made. The zero value is fine for a test.
type Options struct {
	// Name is the LAN's name on this machine: small letters, digits and
	// hyphens. Empty: one is made up from the process id.
	Name string
	// Keep leaves the LAN up when the process that made it ends; Down removes
	// it then. Otherwise every host dies with the process, even by SIGKILL.
	Keep bool
	// Payload is the path of a built internal/testlan/payload program. Empty:
	// it is built with the go command when it is first asked for.
	Payload string
	// Log gets what the LAN does. Nil: nothing is logged.
	Log *slog.Logger
}

// LAN is a network of hosts. Close removes it.
type LAN struct {
	name    string
	dir     string
	keep    bool
	log     *slog.Logger
	spawner *thread
	payload payloadBinary

	mu     sync.Mutex
	hosts  []*Host
	state  state
	closed bool
}

// New makes an empty LAN. It returns an error that wraps ErrExists when a LAN
// of that name is up; one left behind by a process that died is removed first.
func New(ctx context.Context, o Options) (*LAN, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("a test LAN needs root: run as root")
	}
	if o.Name == "" {
		o.Name = fmt.Sprintf("p%d-%d", os.Getpid(), unnamed.Add(1))
	}
	if !validName.MatchString(o.Name) {
		return nil, fmt.Errorf("LAN name %q: use up to 32 small letters, digits and hyphens", o.Name)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := clearStale(o.Name); err != nil {
		return nil, err
	}
	spawner, err := newThread(func() error { return nil })
	if err != nil {
		return nil, err
	}
	l := &LAN{
		name:    o.Name,
		dir:     filepath.Join(stateRoot, o.Name),
		keep:    o.Keep,
		log:     o.Log.With("lan", o.Name),
		spawner: spawner,
		payload: payloadBinary{path: o.Payload},
		state:   state{Name: o.Name, Owner: identify(os.Getpid()), Kept: o.Keep, Since: time.Now().UTC()},
	}
	if err := os.MkdirAll(filepath.Join(l.dir, scratchDir), 0o700); err != nil {
		spawner.close()
		return nil, fmt.Errorf("make LAN: %w", err)
	}
	if err := l.state.save(l.dir); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Name returns the LAN's name, which Down takes.
func (l *LAN) Name() string { return l.name }

// Dir returns a directory of the machine that is removed with the LAN.
func (l *LAN) Dir() string { return l.dir }

// Host returns the host of that name, or nil.
func (l *LAN) Host(name string) *Host {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range l.hosts {
		if h.name == name {
			return h
		}
	}
	return nil
}

// record changes the state file under the lock.
func (l *LAN) record(change func(*state)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return errThreadClosed
	}
	change(&l.state)
	return l.state.save(l.dir)
}

// Close kills every process of the LAN and removes all that it made. It may be
// called at any time and more than once.
func (l *LAN) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	hosts, st := l.hosts, l.state
	l.mu.Unlock()

	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	err := st.remove(ctx)
	for _, h := range hosts {
		h.release()
	}
	l.spawner.close()
	l.log.Debug("LAN removed")
	return err
}

// Detach forgets a LAN made with Options.Keep without removing it: its hosts
// run on after this process ends.
func (l *LAN) Detach() error {
	if !l.keep {
		return errors.New("detach: the LAN was made without Options.Keep, its hosts die with this process")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	return nil
}
