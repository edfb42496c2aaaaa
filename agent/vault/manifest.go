package vault

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/cordon-security/cordon/internal/durablefile"
)

// Kind is what an item was.
type Kind string

// Kinds of items.
const (
	File Kind = "file"
	Link Kind = "link"
	Line Kind = "line"
)

// State is how far the vault came with an item.
type State string

// States of an item.
const (
	// Stored: it is in the vault and may still be at its place too.
	Stored State = "stored"
	// Taken: it is in the vault and no longer at its place.
	Taken State = "taken"
	// Restored: it is back at its place.
	Restored State = "restored"
)

// Item is a manifest.
type Item struct {
	ID   string `json:"id"`
	Kind Kind   `json:"kind"`
	// Task took it.
	Task string `json:"task"`
	// Path is where it was. It may hold any byte but zero; the JSON form is
	// base64 so that none is lost.
	Path  []byte    `json:"path"`
	State State     `json:"state"`
	Taken time.Time `json:"taken_at"`
	// Reason says why it was taken, in words.
	Reason string `json:"reason,omitempty"`

	UID    uint32            `json:"uid"`
	GID    uint32            `json:"gid"`
	Mode   uint32            `json:"mode"` // permission and set-id bits
	Access time.Time         `json:"atime"`
	Modify time.Time         `json:"mtime"`
	Xattrs map[string][]byte `json:"xattrs,omitempty"`
	// Flags are those of FS_IOC_GETFLAGS, ioctl_iflags(2).
	Flags uint32 `json:"flags,omitempty"`
	// Names is the link count; above 1 the content lives on under other names.
	Names  uint64 `json:"names,omitempty"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256,omitempty"`
	Dev    uint64 `json:"dev"`
	Ino    uint64 `json:"ino"`
	// Change is when the inode was changed last. Nobody can set it, so it tells
	// a file from another one that got the same inode number.
	Change time.Time `json:"ctime,omitzero"`
	// Nameless is true for content that had no name any more.
	Nameless bool `json:"nameless,omitempty"`

	// Target is where a link led.
	Target []byte `json:"target,omitempty"`
	// Text is a line as it was, Mark what stands in its place.
	Text []byte `json:"text,omitempty"`
	Mark []byte `json:"mark,omitempty"`
}

// Name returns the path as text for people.
func (i Item) Name() string { return string(i.Path) }

func (v *Vault) folder(id string) string { return filepath.Join(v.dir, id) }

func (v *Vault) manifest(id string) string { return filepath.Join(v.folder(id), "manifest.json") }

var errDamaged = errors.New("the manifest is damaged")

func (v *Vault) load(id string) (Item, error) {
	data, err := os.ReadFile(v.manifest(id))
	if errors.Is(err, fs.ErrNotExist) {
		return Item{}, fmt.Errorf("item %s: %w", id, ErrUnknown)
	}
	if err != nil {
		return Item{}, fmt.Errorf("read the manifest of %s: %w", id, err)
	}
	var i Item
	if err := json.Unmarshal(data, &i); err != nil {
		return Item{}, fmt.Errorf("read the manifest of %s: %w: %w", id, errDamaged, err)
	}
	return i, nil
}

func (v *Vault) save(i Item) error {
	data, err := json.MarshalIndent(i, "", "  ")
	if err != nil {
		return fmt.Errorf("write the manifest of %s: %w", i.ID, err)
	}
	if err := durablefile.Write(v.manifest(i.ID), data); err != nil {
		return fmt.Errorf("write the manifest of %s: %w", i.ID, err)
	}
	return nil
}
