package vault

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"filippo.io/age"
)

// Restore brings an item back with owner, mode, times, attributes and flags.
// Where it is back already, as seen at its place, that is a success. Anything
// else at its place is replaced only with force; otherwise the error wraps
// ErrExists.
func (v *Vault) Restore(id string, force bool) (Item, error) {
	release, err := v.hold()
	if err != nil {
		return Item{}, fmt.Errorf("restore %s: %w", id, err)
	}
	defer release()
	if filepath.Base(id) != id || id == "." || id == ".." {
		return Item{}, fmt.Errorf("item %q: %w", id, ErrUnknown)
	}
	i, err := v.load(id)
	if err != nil {
		return Item{}, err
	}
	switch i.Kind {
	case File:
		err = v.restoreFile(i, force)
	case Link:
		err = v.restoreLink(i, force)
	case Line:
		err = v.restoreLine(i)
	default:
		err = fmt.Errorf("this agent does not know items of kind %q; update it", i.Kind)
	}
	if err != nil {
		return Item{}, fmt.Errorf("restore %s to %s: %w", id, i.Name(), err)
	}
	if i.State == Restored {
		return i, nil
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
	if !force {
		back, err := p.hasFile(i)
		if back || err != nil {
			return err
		}
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

// hasFile reports whether the file is back already: content, owner and mode are
// what was taken. Anything else at the place is ErrExists. Inode numbers tell
// nothing here, since device numbers change with a boot.
func (p *place) hasFile(i Item) (bool, error) {
	f, st, err := p.open()
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if errors.Is(err, ErrSpecial) || errors.Is(err, ErrReplaced) {
		return false, ErrExists
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	if st.Uid != i.UID || st.Gid != i.GID || st.Mode&0o7777 != i.Mode || st.Size != i.Size {
		return false, ErrExists
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, io.LimitReader(f, i.Size+1)); err != nil {
		return false, err
	}
	if hex.EncodeToString(sum.Sum(nil)) != i.SHA256 {
		return false, ErrExists
	}
	// A crash may have come before the flags.
	return true, applyFlags(i, f)
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
