package vault

import (
	"bytes"
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

	"github.com/cordon-security/cordon/internal/durablefile"
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
// the item that the first call made, and already is true.
func (v *Vault) TakeFile(r Request) (i Item, already bool, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	id := itemID(r.Task, "file\x00"+r.Path)
	old, oldErr := v.load(id)
	p, err := v.find(r.Path)
	if err != nil {
		return doneAlready(old, oldErr, fmt.Errorf("take %s: %w", r.Path, err))
	}
	defer p.close()
	f, st, err := p.open()
	if err != nil {
		return doneAlready(old, oldErr, fmt.Errorf("take %s: %w", r.Path, err))
	}
	defer f.Close()
	if r.Ino != 0 && (r.Ino != st.Ino || r.Dev != uint64(st.Dev)) {
		return Item{}, false, fmt.Errorf("take %s: %w", r.Path, ErrReplaced)
	}
	if oldErr == nil && old.State == Taken && (old.Ino != st.Ino || old.Dev != uint64(st.Dev)) {
		// The file came back: it is another item.
		id = itemID(r.Task, fmt.Sprintf("file\x00%s\x00%d\x00%d", r.Path, st.Ino, v.now().UnixNano()))
	}
	i = Item{ID: id, Kind: File, Task: r.Task, Path: []byte(r.Path), State: Stored, Taken: v.now().UTC(), Reason: r.Reason}
	if err := describe(&i, f, &st); err != nil {
		return Item{}, false, fmt.Errorf("take %s: %w", r.Path, err)
	}
	if err := v.store(&i, f); err != nil {
		return Item{}, false, fmt.Errorf("take %s: %w", r.Path, err)
	}
	if err := unlink(i, p, f); err != nil {
		return Item{}, false, errors.Join(fmt.Errorf("take %s: %w", r.Path, err), v.forget(id))
	}
	i.State = Taken
	return i, false, v.save(i)
}

// doneAlready turns the absence of a file into success when the vault has it.
func doneAlready(old Item, oldErr, err error) (Item, bool, error) {
	if errors.Is(err, fs.ErrNotExist) && oldErr == nil {
		return old, true, nil
	}
	return Item{}, false, err
}

// Keep stores the content of an open file that has no name any more. Restoring
// it writes it to the path that it had.
func (v *Vault) Keep(r Request, f *os.File) (i Item, already bool, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	id := itemID(r.Task, "nameless\x00"+r.Path)
	if old, err := v.load(id); err == nil {
		return old, true, nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return Item{}, false, fmt.Errorf("keep %s: %w", r.Path, err)
	}
	i = Item{ID: id, Kind: File, Task: r.Task, Path: []byte(r.Path), State: Taken, Taken: v.now().UTC(), Reason: r.Reason, Nameless: true}
	if err := describe(&i, f, &st); err != nil {
		return Item{}, false, fmt.Errorf("keep %s: %w", r.Path, err)
	}
	if err := v.store(&i, f); err != nil {
		return Item{}, false, fmt.Errorf("keep %s: %w", r.Path, err)
	}
	return i, false, nil
}

// store puts content and manifest on disk.
func (v *Vault) store(i *Item, f *os.File) error {
	if i.Size > v.maxFile {
		return ErrTooLarge
	}
	if err := os.MkdirAll(v.folder(i.ID), 0o700); err != nil {
		return err
	}
	sum, err := v.encrypt(i.ID, f)
	if err == nil {
		i.SHA256 = hex.EncodeToString(sum.Sum(nil))
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

func (v *Vault) encrypt(id string, f *os.File) (hash.Hash, error) {
	out, err := os.OpenFile(filepath.Join(v.folder(id), "content.age"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	w, err := age.Encrypt(out, v.identity.Recipient())
	if err != nil {
		return nil, err
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(w, sum), io.LimitReader(io.NewSectionReader(f, 0, v.maxFile+1), v.maxFile+1))
	if err == nil && n > v.maxFile {
		err = ErrTooLarge
	}
	if err := errors.Join(err, w.Close(), out.Sync()); err != nil {
		return nil, err
	}
	return sum, nil
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

func (v *Vault) forget(id string) error { return os.RemoveAll(v.folder(id)) }

// TakeLink moves a symbolic link into the vault.
func (v *Vault) TakeLink(r Request) (i Item, already bool, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	id := itemID(r.Task, "link\x00"+r.Path)
	old, oldErr := v.load(id)
	p, err := v.find(r.Path)
	if err != nil {
		return doneAlready(old, oldErr, fmt.Errorf("take link %s: %w", r.Path, err))
	}
	defer p.close()
	st, err := p.stat()
	if err != nil {
		return doneAlready(old, oldErr, fmt.Errorf("take link %s: %w", r.Path, err))
	}
	target := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(p.dir.Fd()), p.name, target)
	if err != nil {
		return Item{}, false, fmt.Errorf("take link %s: %w", r.Path, err)
	}
	i = Item{
		ID: id, Kind: Link, Task: r.Task, Path: []byte(r.Path), State: Stored, Taken: v.now().UTC(), Reason: r.Reason,
		UID: st.Uid, GID: st.Gid, Access: stamp(st.Atim), Modify: stamp(st.Mtim), Names: uint64(st.Nlink),
		Dev: uint64(st.Dev), Ino: st.Ino, Target: target[:n:n],
	}
	if err := v.saveNew(i); err != nil {
		return Item{}, false, fmt.Errorf("take link %s: %w", r.Path, err)
	}
	if err := p.remove(i.Dev, i.Ino); err != nil {
		return Item{}, false, errors.Join(fmt.Errorf("take link %s: %w", r.Path, err), v.forget(id))
	}
	i.State = Taken
	return i, false, v.save(i)
}

func (v *Vault) saveNew(i Item) error {
	if err := os.MkdirAll(v.folder(i.ID), 0o700); err != nil {
		return err
	}
	if err := v.save(i); err != nil {
		return err
	}
	return durablefile.SyncDir(v.dir)
}

const maxLined = 1 << 20

// TakeLine puts a comment in the place of one line of a file and leaves every
// other byte as it is.
func (v *Vault) TakeLine(r Request, text string) (i Item, already bool, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	id := itemID(r.Task, "line\x00"+r.Path+"\x00"+text)
	i = Item{
		ID: id, Kind: Line, Task: r.Task, Path: []byte(r.Path), State: Stored, Taken: v.now().UTC(), Reason: r.Reason,
		Text: []byte(text), Mark: []byte("# disabled by cordon-agent, item " + id + ": " + text),
	}
	old, oldErr := v.load(id)
	if err := v.exchange(&i, i.Text, i.Mark, func() error { return v.saveNew(i) }); err != nil {
		if oldErr == nil && (errors.Is(err, errNoLine) || errors.Is(err, fs.ErrNotExist)) {
			return old, true, nil
		}
		return Item{}, false, fmt.Errorf("disable a line of %s: %w", r.Path, err)
	}
	i.State = Taken
	return i, false, v.save(i)
}

var errNoLine = errors.New("the line is not there")

// exchange replaces the lines that equal from by to. before is called when it
// is known that there is something to do.
func (v *Vault) exchange(i *Item, from, to []byte, before func() error) error {
	p, err := v.find(i.Name())
	if err != nil {
		return err
	}
	defer p.close()
	f, st, err := p.open()
	if err != nil {
		return err
	}
	defer f.Close()
	if st.Size > maxLined {
		return ErrTooLarge
	}
	data, err := io.ReadAll(io.LimitReader(f, maxLined))
	if err != nil {
		return err
	}
	var out bytes.Buffer
	changed := false
	for line := range bytes.Lines(data) {
		if bytes.Equal(bytes.TrimSuffix(line, []byte("\n")), from) {
			out.Write(to)
			out.Write(line[len(from):])
			changed = true
			continue
		}
		out.Write(line)
	}
	if !changed {
		return errNoLine
	}
	if err := describe(i, f, &st); err != nil {
		return err
	}
	if err := before(); err != nil {
		return err
	}
	return replace(*i, p, f, out.Bytes())
}

// replace writes a file anew beside itself, with all its attributes but the
// times, since cron looks at them to notice the change.
func replace(i Item, p *place, old *os.File, data []byte) error {
	f, name, err := p.temporary(i.ID)
	if err != nil {
		return err
	}
	defer f.Close()
	i.Access, i.Modify = i.Taken, i.Taken
	if _, err = f.Write(data); err == nil {
		err = applyAttributes(i, f)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil && i.Flags&held != 0 {
		err = setFlags(old, i.Flags&^held)
	}
	if err == nil {
		err = p.rename(name, true)
	}
	if err != nil {
		p.discard(name)
		if i.Flags&held != 0 {
			err = errors.Join(err, setFlags(old, i.Flags))
		}
		return err
	}
	return applyFlags(i, f)
}
