package vault

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/cordon-security/cordon/internal/durablefile"
)

// slot is where one task keeps one thing: the items that it made of it so far,
// and the id of the next. The ids are the same whenever they are asked for, so
// that a repeated act finds what it did.
type slot struct {
	had  []Item
	next string
}

func (v *Vault) slot(task, what string) (slot, error) {
	var s slot
	for n := 0; ; n++ {
		s.next = itemID(task, what)
		if n > 0 {
			s.next = itemID(task, fmt.Sprintf("%s\x00%d", what, n))
		}
		i, err := v.load(s.next)
		if errors.Is(err, ErrUnknown) {
			return s, nil
		}
		if err != nil && !errors.Is(err, errDamaged) {
			return slot{}, err
		}
		// A damaged item is left to a person; what comes is another one.
		if err == nil {
			s.had = append(s.had, i)
		}
	}
}

func itemID(task, what string) string {
	sum := sha256.Sum256([]byte(task + "\x00" + what))
	return hex.EncodeToString(sum[:8])
}

// last returns the youngest item.
func (s slot) last() (Item, bool) {
	if len(s.had) == 0 {
		return Item{}, false
	}
	return s.had[len(s.had)-1], true
}

// holds returns the item that was made of exactly this inode as it is now.
func (s slot) holds(st *unix.Stat_t, state State) (Item, bool) {
	n := slices.IndexFunc(s.had, func(i Item) bool {
		return i.State == state && i.Dev == uint64(st.Dev) && i.Ino == st.Ino && i.Size == st.Size && i.Change.Equal(stamp(st.Ctim))
	})
	if n < 0 {
		return Item{}, false
	}
	return s.had[n], true
}

// gone ends an act on what is not at its place: when the vault has it, that is
// no error, and an item that a crash left unmarked is marked.
func (v *Vault) gone(s slot, absent error) (Item, bool, error) {
	i, ok := s.last()
	if !ok {
		return Item{}, false, absent
	}
	err := v.settle(s, "")
	if i.State == Stored {
		i.State = Taken
	}
	return i, true, err
}

// settle marks items whose original is not at its place any more, although a
// crash came before that was noted.
func (v *Vault) settle(s slot, but string) error {
	var err error
	for _, i := range s.had {
		if i.State == Stored && i.ID != but {
			i.State = Taken
			err = errors.Join(err, v.save(i))
		}
	}
	return err
}

// make puts a new item on disk: what content writes, if anything, then the
// manifest. It never touches an item that is there.
func (v *Vault) make(i *Item, content func(*Item) error) error {
	// Without a manifest nothing was taken: a crash left the folder.
	if err := os.RemoveAll(v.folder(i.ID)); err != nil {
		return err
	}
	if err := os.Mkdir(v.folder(i.ID), 0o700); err != nil {
		return err
	}
	err := content(i)
	if err == nil {
		err = v.save(*i)
	}
	if err == nil {
		err = durablefile.SyncDir(v.dir)
	}
	if err != nil {
		return errors.Join(err, v.forget(i.ID))
	}
	return nil
}

// forget drops an item whose original is still at its place.
func (v *Vault) forget(id string) error { return os.RemoveAll(v.folder(id)) }
