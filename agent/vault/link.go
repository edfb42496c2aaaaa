package vault

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

// TakeLink moves a symbolic link into the vault. Repeats and errors are as with
// TakeFile.
func (v *Vault) TakeLink(r Request) (i Item, already bool, err error) {
	release, err := v.hold()
	if err == nil {
		defer release()
		i, already, err = v.takeLink(r)
	}
	if err != nil {
		err = fmt.Errorf("take link %s: %w", r.Path, err)
	}
	return i, already, err
}

func (v *Vault) takeLink(r Request) (Item, bool, error) {
	s, err := v.slot(r.Task, "link\x00"+r.Path)
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
	st, err := p.stat()
	if errors.Is(err, fs.ErrNotExist) {
		return v.gone(s, err)
	}
	if err != nil {
		return Item{}, false, err
	}
	target, err := p.target()
	if err != nil {
		return Item{}, false, err
	}
	i, unfinished := s.holds(&st, Stored)
	if err := v.settle(s, i.ID); err != nil {
		return Item{}, false, err
	}
	if !unfinished {
		i = v.item(Link, s.next, r)
		i.UID, i.GID, i.Access, i.Modify, i.Change = st.Uid, st.Gid, stamp(st.Atim), stamp(st.Mtim), stamp(st.Ctim)
		i.Names, i.Size, i.Dev, i.Ino, i.Target = uint64(st.Nlink), st.Size, uint64(st.Dev), st.Ino, target
		if err := v.make(&i, func(*Item) error { return nil }); err != nil {
			return Item{}, false, err
		}
	}
	return v.finish(i, !unfinished, p, p.remove(i.Dev, i.Ino))
}

// target reads the symbolic link at the place.
func (p *place) target() ([]byte, error) {
	target := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(p.dir.Fd()), p.name, target)
	if err != nil {
		return nil, err
	}
	return target[:n:n], nil
}

func (v *Vault) restoreLink(i Item, force bool) error {
	p, err := v.find(i.Name())
	if err != nil {
		return err
	}
	defer p.close()
	if !force {
		back, err := p.hasLink(i)
		if back || err != nil {
			return err
		}
	}
	name := ".cordon-" + i.ID
	p.discard(name)
	fd := int(p.dir.Fd())
	if err := unix.Symlinkat(string(i.Target), fd, name); err != nil {
		return err
	}
	if err := p.dressLink(i, name); err != nil {
		p.discard(name)
		return err
	}
	if err := p.rename(name, force); err != nil {
		p.discard(name)
		return err
	}
	return nil
}

// dressLink gives a new link the owner and times of the item.
func (p *place) dressLink(i Item, name string) error {
	fd := int(p.dir.Fd())
	if err := unix.Fchownat(fd, name, int(i.UID), int(i.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	times := []unix.Timespec{unix.NsecToTimespec(i.Access.UnixNano()), unix.NsecToTimespec(i.Modify.UnixNano())}
	return unix.UtimesNanoAt(fd, name, times, unix.AT_SYMLINK_NOFOLLOW)
}

// hasLink reports whether the link is back already. Anything else at the place
// is ErrExists.
func (p *place) hasLink(i Item) (bool, error) {
	st, err := p.stat()
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK || st.Uid != i.UID || st.Gid != i.GID {
		return false, ErrExists
	}
	target, err := p.target()
	if err != nil {
		return false, err
	}
	if string(target) != string(i.Target) {
		return false, ErrExists
	}
	return true, nil
}
