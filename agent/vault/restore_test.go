package vault

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestRestoreLooksAtWhatIsThere(t *testing.T) {
	for name, test := range map[string]struct {
		there func(h *host, i Item)
		want  error
	}{
		"nothing":                           {func(*host, Item) {}, nil},
		"crash between rename and mark":     {func(h *host, i Item) { h.restore(i.ID); h.rewind(i, Taken) }, nil},
		"restored already":                  {func(h *host, i Item) { h.restore(i.ID) }, nil},
		"restored, then removed":            {func(h *host, i Item) { h.restore(i.ID); h.remove("/x") }, nil},
		"another file":                      {func(h *host, _ Item) { h.write("/x", "mine", 0o700) }, ErrExists},
		"restored, then replaced":           {func(h *host, i Item) { h.restore(i.ID); h.remove("/x"); h.write("/x", "mine", 0o700) }, ErrExists},
		"the same content, another mode":    {func(h *host, _ Item) { h.write("/x", "evil", 0o644) }, ErrExists},
		"a directory":                       {func(h *host, _ Item) { _ = os.Mkdir(filepath.Join(h.root, "x"), 0o700) }, ErrExists},
		"a link to a file with the content": {func(h *host, _ Item) { h.write("/y", "evil", 0o700); _ = os.Symlink("y", filepath.Join(h.root, "x")) }, ErrExists},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.write("/x", "evil", 0o700)
			i := h.take("/x")
			test.there(h, i)
			if _, err := h.v.Restore(i.ID, false); !errors.Is(err, test.want) {
				t.Fatalf("error %v, want %v", err, test.want)
			}
			if test.want == nil {
				if h.read("/x") != "evil" || h.items(1)[0].State != Restored {
					t.Fatal("it is not back")
				}
			}
		})
	}
}

func TestRestoreNamesWhatItDoesNotKnow(t *testing.T) {
	h := newHost(t)
	for _, id := range []string{"", ".", "..", "../x", "none"} {
		if _, err := h.v.Restore(id, false); !errors.Is(err, ErrUnknown) {
			t.Errorf("%q: error %v, want ErrUnknown", id, err)
		}
	}
}

func TestDamagedContentIsNotRestored(t *testing.T) {
	h := newHost(t)
	h.write("/x", "evil", 0o700)
	i := h.take("/x")
	path := filepath.Join(h.v.folder(i.ID), "content.age")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-1] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := h.v.Restore(i.ID, false); err == nil {
		t.Fatal("damaged content was restored")
	}
	h.wantAbsent("/x")
	left, err := os.ReadDir(h.root)
	if err != nil || len(left) != 0 {
		t.Fatalf("left behind: %v, %v", left, err)
	}
}

func TestTakeAndRestoreALink(t *testing.T) {
	h := newHost(t)
	link := func(target string) {
		if err := os.Symlink(target, filepath.Join(h.root, "l")); err != nil {
			t.Fatal(err)
		}
	}
	take := func() Item {
		i, _, err := h.v.TakeLink(Request{Task: "t", Path: "/l"})
		if err != nil || i.State != Taken {
			t.Fatalf("%+v, %v", i, err)
		}
		return i
	}
	link("one")
	one := take()
	h.rewind(one, Stored)
	link("two")
	two := take()
	if one.ID == two.ID {
		t.Fatal("the first link's item was overwritten")
	}
	if again := take(); again.ID != two.ID {
		t.Fatal("a repeated take made another item")
	}
	h.restore(one.ID)
	h.rewind(one, Taken)
	h.restore(one.ID)
	if target, err := os.Readlink(filepath.Join(h.root, "l")); err != nil || target != "one" {
		t.Fatalf("link to %q, %v", target, err)
	}
	if _, err := h.v.Restore(two.ID, false); !errors.Is(err, ErrExists) {
		t.Fatalf("error %v, want ErrExists", err)
	}
	h.remove("/l")
	h.restore(one.ID)
	if _, err := os.Readlink(filepath.Join(h.root, "l")); err != nil {
		t.Fatal(err)
	}
}

func TestTakeAndRestoreALine(t *testing.T) {
	const before = "# a\n* * * * * root /tmp/\xff\n\nlast"
	h := newHost(t)
	h.write("/crontab", before, 0o640)
	line := "* * * * * root /tmp/\xff"
	take := func() Item {
		i, _, err := h.v.TakeLine(Request{Task: "t", Path: "/crontab"}, line)
		if err != nil || i.State != Taken {
			t.Fatalf("%+v, %v", i, err)
		}
		return i
	}
	i := take()
	disabled := h.read("/crontab")
	h.rewind(i, Stored)
	if again := take(); again.ID != i.ID || h.read("/crontab") != disabled {
		t.Fatal("a repeated take changed something")
	}
	h.restore(i.ID)
	if h.read("/crontab") != before {
		t.Fatalf("restored: %q", h.read("/crontab"))
	}
	h.rewind(i, Taken)
	h.restore(i.ID)
	h.write("/crontab", "# a\n", 0o640)
	if _, err := h.v.Restore(i.ID, false); err == nil {
		t.Fatal("it says that a line is back which is not there")
	}
	h.write("/crontab", before, 0o640)
	if again := take(); again.ID == i.ID {
		t.Fatal("a line that came back has the restored one's item")
	}
}
