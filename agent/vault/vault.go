package vault

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"filippo.io/age"

	"github.com/cordon-security/cordon/internal/dirlock"
	"github.com/cordon-security/cordon/internal/durablefile"
)

// Errors of the vault.
var (
	// ErrUnknown: there is no such item.
	ErrUnknown = errors.New("there is no such item in the vault; `cordon-agent vault list` names them")
	// ErrExists: something stands where an item would be restored to.
	ErrExists = errors.New("something is there already; move it away or use --force")
	// ErrReplaced: the path leads to another file than the evidence.
	ErrReplaced = errors.New("another file is there than the one in evidence")
	// ErrTooLarge: the file is above the vault's bound.
	ErrTooLarge = errors.New("the file is larger than the vault takes (vault_max_file_size)")
	// ErrSpecial: no regular file.
	ErrSpecial = errors.New("it is no regular file")
)

// Options is what a vault needs.
type Options struct {
	// Dir is the vault's folder, made with mode 0700 when it is not there.
	Dir string
	// Root is the host's root directory, "/" but in tests.
	Root string
	// MaxFile bounds one file, in bytes.
	MaxFile int64
	Now     func() time.Time
}

// Vault is a folder of items. It is safe for concurrent use, also by several
// processes.
type Vault struct {
	dir, root string
	maxFile   int64
	now       func() time.Time
	// sync makes a directory of the host durable.
	sync     func(*os.File) error
	identity *age.X25519Identity

	mu sync.Mutex
}

// Open opens a vault and makes its identity when it has none.
func Open(o Options) (*Vault, error) {
	if o.Dir == "" || o.Root == "" || o.MaxFile <= 0 {
		return nil, errors.New("open the vault: folder, root and size bound must be set")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the vault: %w", err)
	}
	v := &Vault{dir: o.Dir, root: o.Root, maxFile: o.MaxFile, now: o.Now, sync: (*os.File).Sync}
	release, err := v.hold()
	if err != nil {
		return nil, fmt.Errorf("open the vault: %w", err)
	}
	defer release()
	if v.identity, err = identity(o.Dir); err != nil {
		return nil, fmt.Errorf("open the vault: %w", err)
	}
	return v, nil
}

// hold keeps every other goroutine and process, as `cordon-agent restore`
// beside the running agent, from changing the vault.
func (v *Vault) hold() (release func(), err error) {
	v.mu.Lock()
	l, err := dirlock.Wait(v.dir)
	if err != nil {
		v.mu.Unlock()
		return nil, err
	}
	return func() {
		_ = l.Release()
		v.mu.Unlock()
	}, nil
}

func identity(dir string) (*age.X25519Identity, error) {
	path := filepath.Join(dir, "identity")
	data, err := os.ReadFile(path)
	if err == nil {
		id, err := age.ParseX25519Identity(strings.TrimSpace(string(data)))
		if err != nil {
			return nil, fmt.Errorf("%s is damaged; what is in the vault cannot be read without it", path)
		}
		return id, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, err
	}
	return id, durablefile.Write(path, []byte(id.String()+"\n"))
}

// List returns the items, oldest first.
func (v *Vault) List() ([]Item, error) {
	entries, err := os.ReadDir(v.dir)
	if err != nil {
		return nil, fmt.Errorf("list the vault: %w", err)
	}
	var items []Item
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		i, err := v.load(e.Name())
		if errors.Is(err, ErrUnknown) {
			continue // A crash before the manifest: nothing was taken.
		}
		if err != nil {
			return nil, err
		}
		items = append(items, i)
	}
	slices.SortFunc(items, func(a, b Item) int { return a.Taken.Compare(b.Taken) })
	return items, nil
}
