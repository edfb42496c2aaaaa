package vault

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

const maxLined = 1 << 20

// TakeLine puts a comment in the place of one line of a file and leaves every
// other byte as it is. Repeats are as with TakeFile.
func (v *Vault) TakeLine(r Request, text string) (i Item, already bool, err error) {
	release, err := v.hold()
	if err == nil {
		defer release()
		i, already, err = v.takeLine(r, text)
	}
	if err != nil {
		err = fmt.Errorf("disable a line of %s: %w", r.Path, err)
	}
	return i, already, err
}

func (v *Vault) takeLine(r Request, text string) (Item, bool, error) {
	s, err := v.slot(r.Task, "line\x00"+r.Path+"\x00"+text)
	if err != nil {
		return Item{}, false, err
	}
	before := func(*Item) error { return nil }
	i, ok := s.last()
	if !ok || i.State != Stored {
		i = v.item(Line, s.next, r)
		i.Text, i.Mark = []byte(text), []byte("# disabled by cordon-agent, item "+i.ID+": "+text)
		before = func(i *Item) error { return v.make(i, func(*Item) error { return nil }) }
	}
	err = v.exchange(&i, i.Text, i.Mark, before)
	if errors.Is(err, errNoLine) || errors.Is(err, fs.ErrNotExist) {
		return v.gone(s, err)
	}
	if err != nil {
		return Item{}, false, err
	}
	i.State = Taken
	return i, false, v.save(i)
}

var errNoLine = errors.New("the line is not there")

// restoreLine puts the text back for the mark. That the text is there and the
// mark is not is how it should be.
func (v *Vault) restoreLine(i Item) error {
	i.Taken = v.now()
	err := v.exchange(&i, i.Mark, i.Text, func(*Item) error { return nil })
	if !errors.Is(err, errNoLine) {
		return err
	}
	if err := v.look(i.Name(), i.Text); err != nil {
		return fmt.Errorf("neither the line nor the comment in its place is there; add the line by hand if it is wanted: %w", err)
	}
	return nil
}

// look returns errNoLine unless the file has the line.
func (v *Vault) look(path string, line []byte) error {
	p, err := v.find(path)
	if err != nil {
		return err
	}
	defer p.close()
	f, _, data, err := p.lines()
	if err != nil {
		return err
	}
	defer f.Close()
	if _, found := substitute(data, line, line); !found {
		return errNoLine
	}
	return nil
}

// lines opens and reads a file of lines.
func (p *place) lines() (*os.File, unix.Stat_t, []byte, error) {
	f, st, err := p.open()
	if err != nil {
		return nil, st, nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxLined+1))
	if err == nil && len(data) > maxLined {
		err = ErrTooLarge
	}
	if err != nil {
		_ = f.Close()
		return nil, st, nil, err
	}
	return f, st, data, nil
}

// substitute replaces the lines that equal from by to.
func substitute(data, from, to []byte) (out []byte, found bool) {
	for line := range bytes.Lines(data) {
		if !bytes.Equal(bytes.TrimSuffix(line, []byte("\n")), from) {
			out = append(out, line...)
			continue
		}
		found = true
		out = append(append(out, to...), line[len(from):]...)
	}
	return out, found
}

// exchange replaces the lines that equal from by to. before is called when it
// is known that there is something to do.
func (v *Vault) exchange(i *Item, from, to []byte, before func(*Item) error) error {
	p, err := v.find(i.Name())
	if err != nil {
		return err
	}
	defer p.close()
	f, st, data, err := p.lines()
	if err != nil {
		return err
	}
	defer f.Close()
	data, found := substitute(data, from, to)
	if !found {
		return errNoLine
	}
	if err := describe(i, f, &st); err != nil {
		return err
	}
	if err := before(i); err != nil {
		return err
	}
	return replace(*i, p, f, data)
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
