// Package admin keeps the mitigator's administrators: who may use the API and
// the console, each by one token of which only a hash is stored.
//
// They live in one small file of their own beside the database, so that the
// first administrator can be made before the mitigator runs, and one who lost
// the token can be given another while it does: the running mitigator notices a
// changed file by itself.
package admin

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cordon-security/cordon/internal/dirlock"
	"github.com/cordon-security/cordon/internal/durablefile"
	"github.com/cordon-security/cordon/internal/pki"
)

// Errors of Add and Remove.
var (
	ErrExists  = errors.New("there is an administrator of that name already")
	ErrUnknown = errors.New("there is no administrator of that name")
	ErrName    = errors.New("a name is 1 to 32 of a-z, 0-9, '.', '_' and '-'")
)

// maxAdmins bounds the file; maxFile is far above what that many take.
const (
	maxAdmins = 1000
	maxFile   = 1 << 20
)

// Admin is one administrator.
type Admin struct {
	Name string `json:"name"`
	// Hash is the SHA-256 of the token's secret, in hexadecimal.
	Hash      string    `json:"hash"`
	CreatedAt time.Time `json:"created_at"`
}

// Admins is the file of administrators. It is safe for concurrent use, also by
// several processes.
type Admins struct {
	path string

	mu     sync.Mutex
	stamp  stamp
	byHash map[[sha256.Size]byte]string
}

// stamp tells whether the file is the one that was read last: each change is a
// new file that is renamed into place.
type stamp struct {
	modified time.Time
	size     int64
	file     fs.FileInfo
}

// New returns the administrators that the directory's file admins.json lists.
// The directory must exist; the file need not.
func New(dir string) (*Admins, error) {
	a := &Admins{path: filepath.Join(dir, "admins.json")}
	if _, err := a.List(); err != nil {
		return nil, err
	}
	return a, nil
}

// Authenticate returns whose token it is. It takes the whole token or its
// secret part alone. A file that cannot be read lets nobody in.
func (a *Admins) Authenticate(token string) (name string, ok bool) {
	secret, err := secretOf(token)
	if err != nil {
		return "", false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.refresh(); err != nil {
		return "", false
	}
	name, ok = a.byHash[secret.Hash()]
	return name, ok
}

func secretOf(token string) (pki.Secret, error) {
	token = strings.TrimSpace(token)
	if !strings.Contains(token, "-") {
		return pki.ParseSecret(token)
	}
	t, err := pki.ParseAdminToken(token)
	return t.Secret, err
}

// refresh reads the file again when it is another one than last time.
func (a *Admins) refresh() error {
	info, err := os.Stat(a.path)
	if errors.Is(err, fs.ErrNotExist) {
		a.stamp, a.byHash = stamp{}, nil
		return nil
	}
	if err != nil {
		return err
	}
	if a.stamp.file != nil && os.SameFile(a.stamp.file, info) && a.stamp.modified.Equal(info.ModTime()) && a.stamp.size == info.Size() {
		return nil
	}
	all, err := a.List()
	if err != nil {
		return err
	}
	a.byHash = make(map[[sha256.Size]byte]string, len(all))
	for _, one := range all {
		hash, err := one.hash()
		if err != nil {
			return err
		}
		a.byHash[hash] = one.Name
	}
	a.stamp = stamp{modified: info.ModTime(), size: info.Size(), file: info}
	return nil
}

func (a Admin) hash() (out [sha256.Size]byte, err error) {
	b, err := hex.DecodeString(a.Hash)
	if err != nil || len(b) != len(out) {
		return out, fmt.Errorf("hash of administrator %q is not %d bytes in hexadecimal", a.Name, len(out))
	}
	return [sha256.Size]byte(b), nil
}

// List returns the administrators in order of their names.
func (a *Admins) List() ([]Admin, error) {
	info, err := os.Stat(a.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("administrators: %w", err)
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("administrators: %s has %d bytes, at most %d are read", a.path, info.Size(), maxFile)
	}
	data, err := os.ReadFile(a.path)
	if err != nil {
		return nil, fmt.Errorf("administrators: %w", err)
	}
	var all []Admin
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, fmt.Errorf("administrators: %s is damaged (%w); put a backup back, or remove it and add the administrators anew", a.path, err)
	}
	return all, nil
}

// Add makes an administrator and returns the token, whose text (Reveal) is to be
// shown once. server is the "HOST:PORT" that the token carries, or empty.
func (a *Admins) Add(name, server string, ca pki.Fingerprint, now time.Time) (pki.Token, error) {
	if !validName(name) {
		return pki.Token{}, fmt.Errorf("%q: %w", name, ErrName)
	}
	token, err := pki.NewAdminToken(ca, server)
	if err != nil {
		return pki.Token{}, err
	}
	hash := token.Secret.Hash()
	return token, a.change(func(all []Admin) ([]Admin, error) {
		if i := find(all, name); i >= 0 {
			return nil, fmt.Errorf("%q: %w", name, ErrExists)
		}
		if len(all) >= maxAdmins {
			return nil, fmt.Errorf("there are %d administrators, no more are taken", len(all))
		}
		return append(all, Admin{Name: name, Hash: hex.EncodeToString(hash[:]), CreatedAt: now.UTC()}), nil
	})
}

// Remove takes an administrator's access away; it counts from the next call on,
// and for the console's sessions as well.
func (a *Admins) Remove(name string) error {
	return a.change(func(all []Admin) ([]Admin, error) {
		i := find(all, name)
		if i < 0 {
			return nil, fmt.Errorf("%q: %w", name, ErrUnknown)
		}
		return slices.Delete(all, i, i+1), nil
	})
}

func find(all []Admin, name string) int {
	return slices.IndexFunc(all, func(one Admin) bool { return one.Name == name })
}

// change writes the file anew, under a lock that other processes respect.
func (a *Admins) change(fn func([]Admin) ([]Admin, error)) (err error) {
	lockDir := a.path + ".lock"
	if err := os.Mkdir(lockDir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("administrators: %w", err)
	}
	lock, err := dirlock.Wait(lockDir)
	if err != nil {
		return fmt.Errorf("administrators: %w", err)
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	all, err := a.List()
	if err != nil {
		return err
	}
	if all, err = fn(all); err != nil {
		return err
	}
	slices.SortFunc(all, func(x, y Admin) int { return strings.Compare(x.Name, y.Name) })
	data, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	if err := durablefile.Write(a.path, append(data, '\n')); err != nil {
		return fmt.Errorf("administrators: %w", err)
	}
	return nil
}

func validName(name string) bool {
	if name == "" || len(name) > 32 {
		return false
	}
	for _, r := range name {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '.' && r != '_' && r != '-' {
			return false
		}
	}
	return true
}
