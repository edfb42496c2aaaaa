package vault

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"filippo.io/age"
	"golang.org/x/sys/unix"
)

// Restore brings an item back with owner, mode, times, attributes and flags.
// What stands at its place is replaced only with force; otherwise the error
// wraps ErrExists. An item that is back already stays as it is.
func (v *Vault) Restore(id string, force bool) (Item, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if filepath.Base(id) != id || id == "." || id == ".." {
		return Item{}, fmt.Errorf("item %q: %w", id, ErrUnknown)
	}
	i, err := v.load(id)
	if err != nil {
		return Item{}, err
	}
	if i.State == Restored && !force {
		return i, nil
	}
	switch i.Kind {
	case File:
		err = v.restoreFile(i, force)
	case Link:
		err = v.restoreLink(i, force)
	case Line:
		back := i
		back.Taken = v.now()
		err = v.exchange(&back, i.Mark, i.Text, func() error { return nil })
	}
	if err != nil {
		return Item{}, fmt.Errorf("restore %s to %s: %w", id, i.Name(), err)
	}
	i.State = Restored
	return i, v.save(i)
}

func (v *Vault) restoreFile(i Item, force bool) error {
	p, err := v.find(i.Name())
	if err != nil {
		return err
	}
	defer p.close()
	if _, err := p.stat(); err == nil && !force {
		return ErrExists
	}
	f, name, err := p.temporary(i.ID)
	if err != nil {
		return err
	}
	defer f.Close()
	err = v.decrypt(i, f)
	if err == nil {
		err = applyAttributes(i, f)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = p.rename(name, force)
	}
	if err != nil {
		p.discard(name)
		return err
	}
	return applyFlags(i, f)
}

// decrypt writes the content and checks it against the manifest.
func (v *Vault) decrypt(i Item, to io.Writer) error {
	in, err := os.Open(filepath.Join(v.folder(i.ID), "content.age"))
	if err != nil {
		return err
	}
	defer in.Close()
	r, err := age.Decrypt(in, v.identity)
	if err != nil {
		return err
	}
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(to, sum), r); err != nil {
		return err
	}
	if hex.EncodeToString(sum.Sum(nil)) != i.SHA256 {
		return errors.New("the content in the vault is not what was taken")
	}
	return nil
}

func (v *Vault) restoreLink(i Item, force bool) error {
	p, err := v.find(i.Name())
	if err != nil {
		return err
	}
	defer p.close()
	name := ".cordon-" + i.ID
	p.discard(name)
	fd := int(p.dir.Fd())
	if err := unix.Symlinkat(string(i.Target), fd, name); err != nil {
		return err
	}
	if err := unix.Fchownat(fd, name, int(i.UID), int(i.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		p.discard(name)
		return err
	}
	times := []unix.Timespec{unix.NsecToTimespec(i.Access.UnixNano()), unix.NsecToTimespec(i.Modify.UnixNano())}
	if err := unix.UtimesNanoAt(fd, name, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		p.discard(name)
		return err
	}
	if err := p.rename(name, force); err != nil {
		p.discard(name)
		return err
	}
	return nil
}
