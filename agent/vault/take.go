package vault

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"filippo.io/age"
	"golang.org/x/sys/unix"
)

// Request says what to take and why.
type Request struct {
	Task   string
	Path   string
	Reason string
	// Dev and Ino are the inode in evidence; both 0 takes whatever file is
	// there.
	Dev, Ino uint64
}

// TakeFile moves a file into the vault. Repeated for the same task it returns
// the item that the first call made, and already is true. A file that came back
// is another item. With an error, an item with an id is in the vault all the
// same, because the file is no longer at its place.
func (v *Vault) TakeFile(r Request) (i Item, already bool, err error) {
	release, err := v.hold()
	if err == nil {
		defer release()
		i, already, err = v.takeFile(r)
	}
	if err != nil {
		err = fmt.Errorf("take %s: %w", r.Path, err)
	}
	return i, already, err
}

func (v *Vault) takeFile(r Request) (Item, bool, error) {
	s, err := v.slot(r.Task, "file\x00"+r.Path)
	if err != nil {
		return Item{}, false, err
	}
	p, err := v.find(r.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return v.gone(s, err)
	}
	if err != nil {
		return Item{}, false, err
	}
	defer p.close()
	f, st, err := p.open()
	if errors.Is(err, fs.ErrNotExist) {
		return v.gone(s, err)
	}
	if err != nil {
		return Item{}, false, err
	}
	defer f.Close()
	if r.Ino != 0 && (r.Ino != st.Ino || r.Dev != uint64(st.Dev)) {
		return Item{}, false, ErrReplaced
	}
	i, unfinished := s.holds(&st, Stored)
	if err := v.settle(s, i.ID); err != nil {
		return Item{}, false, err
	}
	if !unfinished {
		i = v.item(File, s.next, r)
		if err := v.store(&i, f, &st); err != nil {
			return Item{}, false, err
		}
	}
	removed := unlink(i, p, f)
	var after unix.Stat_t
	if unix.Fstat(int(f.Fd()), &after) == nil {
		// The name that is gone counts, as before.
		i.Names = uint64(after.Nlink) + 1
	}
	return v.finish(i, !unfinished, p, removed)
}

func (v *Vault) item(k Kind, id string, r Request) Item {
	return Item{ID: id, Kind: k, Task: r.Task, Path: []byte(r.Path), State: Stored, Taken: v.now().UTC(), Reason: r.Reason}
}

// finish notes what became of the original. Only an item that this call made,
// and whose original is still there, is given up.
func (v *Vault) finish(i Item, made bool, p *place, removed error) (Item, bool, error) {
	there, err := p.leadsTo(i.Dev, i.Ino)
	if err != nil {
		// Not known: the item stays, and the next call looks again.
		return i, false, errors.Join(removed, err)
	}
	if there {
		if removed == nil {
			removed = errors.New("it is still there after its removal")
		}
		if made {
			removed = errors.Join(removed, v.forget(i.ID))
		}
		return Item{}, false, removed
	}
	if errors.Is(removed, fs.ErrNotExist) {
		removed = nil // Somebody else was quicker.
	}
	i.State = Taken
	return i, false, errors.Join(removed, v.save(i))
}

// Keep stores the content of an open file that has no name any more. Restoring
// it writes it to the path that it had. Several files of one path are several
// items.
func (v *Vault) Keep(r Request, f *os.File) (i Item, already bool, err error) {
	release, err := v.hold()
	if err == nil {
		defer release()
		i, already, err = v.keep(r, f)
	}
	if err != nil {
		err = fmt.Errorf("keep %s: %w", r.Path, err)
	}
	return i, already, err
}

func (v *Vault) keep(r Request, f *os.File) (Item, bool, error) {
	s, err := v.slot(r.Task, "nameless\x00"+r.Path)
	if err != nil {
		return Item{}, false, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return Item{}, false, err
	}
	for _, state := range []State{Taken, Restored} {
		if i, ok := s.holds(&st, state); ok {
			return i, true, nil
		}
	}
	i := v.item(File, s.next, r)
	i.State, i.Nameless = Taken, true
	if err := v.store(&i, f, &st); err != nil {
		return Item{}, false, err
	}
	return i, false, nil
}

// store puts attributes and content of an open file on disk.
func (v *Vault) store(i *Item, f *os.File, st *unix.Stat_t) error {
	if st.Size > v.maxFile {
		return ErrTooLarge
	}
	if err := describe(i, f, st); err != nil {
		return err
	}
	return v.make(i, func(i *Item) error {
		sum, n, err := v.encrypt(i.ID, f)
		if err != nil {
			return err
		}
		i.SHA256, i.Size = hex.EncodeToString(sum.Sum(nil)), n
		return nil
	})
}

func (v *Vault) encrypt(id string, f *os.File) (hash.Hash, int64, error) {
	out, err := os.OpenFile(filepath.Join(v.folder(id), "content.age"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, 0, err
	}
	defer out.Close()
	w, err := age.Encrypt(out, v.identity.Recipient())
	if err != nil {
		return nil, 0, err
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(w, sum), io.LimitReader(io.NewSectionReader(f, 0, v.maxFile+1), v.maxFile+1))
	if err == nil && n > v.maxFile {
		err = ErrTooLarge
	}
	if err := errors.Join(err, w.Close(), out.Sync()); err != nil {
		return nil, 0, err
	}
	return sum, n, nil
}

// unlink removes the original, clearing the flags that forbid it.
func unlink(i Item, p *place, f *os.File) error {
	if i.Flags&held != 0 {
		if err := setFlags(f, i.Flags&^held); err != nil {
			return err
		}
	}
	err := p.remove(i.Dev, i.Ino)
	if err != nil && i.Flags&held != 0 {
		err = errors.Join(err, setFlags(f, i.Flags))
	}
	return err
}
