package vault

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// host is a root directory of its own with a vault beside it.
type host struct {
	t    *testing.T
	root string
	v    *Vault
}

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{t: t, root: t.TempDir()}
	h.v = h.open(filepath.Join(t.TempDir(), "vault"))
	return h
}

func (h *host) open(dir string) *Vault {
	h.t.Helper()
	v, err := Open(Options{Dir: dir, Root: h.root, MaxFile: 1 << 20})
	if err != nil {
		h.t.Fatal(err)
	}
	return v
}

func (h *host) write(path, text string, mode fs.FileMode) {
	h.t.Helper()
	at := filepath.Join(h.root, path)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(at, []byte(text), mode); err != nil {
		h.t.Fatal(err)
	}
	if err := os.Chmod(at, mode); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) read(path string) string {
	h.t.Helper()
	data, err := os.ReadFile(filepath.Join(h.root, path))
	if err != nil {
		h.t.Fatal(err)
	}
	return string(data)
}

func (h *host) remove(path string) {
	h.t.Helper()
	if err := os.Remove(filepath.Join(h.root, path)); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) wantAbsent(path string) {
	h.t.Helper()
	if _, err := os.Lstat(filepath.Join(h.root, path)); !errors.Is(err, fs.ErrNotExist) {
		h.t.Fatalf("%s is there: %v", path, err)
	}
}

func (h *host) take(path string) Item {
	h.t.Helper()
	i, already, err := h.v.TakeFile(Request{Task: "t", Path: path})
	if err != nil || already || i.State != Taken {
		h.t.Fatalf("take %s: %+v, already %v, %v", path, i, already, err)
	}
	h.wantAbsent(path)
	return i
}

func (h *host) restore(id string) {
	h.t.Helper()
	if i, err := h.v.Restore(id, false); err != nil || i.State != Restored {
		h.t.Fatalf("restore: %+v, %v", i, err)
	}
}

// rewind sets an item back to a state, as a crash before the next one leaves it.
func (h *host) rewind(i Item, s State) {
	h.t.Helper()
	i.State = s
	if err := h.v.save(i); err != nil {
		h.t.Fatal(err)
	}
}

// holds checks that an item still gives back what was taken.
func (h *host) holds(id, path, text string) {
	h.t.Helper()
	if _, err := h.v.Restore(id, true); err != nil {
		h.t.Fatal(err)
	}
	if got := h.read(path); got != text {
		h.t.Fatalf("item %s gives %q, want %q", id, got, text)
	}
}

func (h *host) items(want int) []Item {
	h.t.Helper()
	items, err := h.v.List()
	if err != nil || len(items) != want {
		h.t.Fatalf("the vault has %d items, want %d: %v", len(items), want, err)
	}
	return items
}

func TestTakeAndRestoreAFile(t *testing.T) {
	h := newHost(t)
	path := "/tmp/na\xffme"
	h.write(path, "evil", 0o751|fs.ModeSetuid)
	i := h.take(path)
	again, already, err := h.v.TakeFile(Request{Task: "t", Path: path})
	if err != nil || !already || again.ID != i.ID {
		t.Fatalf("repeated: %+v, already %v, %v", again, already, err)
	}
	h.restore(i.ID)
	info, err := os.Stat(filepath.Join(h.root, path))
	if err != nil || h.read(path) != "evil" || info.Mode() != 0o751|fs.ModeSetuid || !info.ModTime().Equal(i.Modify) {
		t.Fatalf("back with %v at %v, %v", info.Mode(), info.ModTime(), err)
	}
}

func TestAFileThatComesBackIsAnotherItem(t *testing.T) {
	for name, state := range map[string]State{"taken": Taken, "crash before it was marked": Stored, "restored": Restored} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.write("/x", "first", 0o600)
			first := h.take("/x")
			// Whatever inode the file system gives to the next file, the first
			// copy stays.
			h.write("/x", "next!", 0o600)
			var like Item
			f, err := os.Open(filepath.Join(h.root, "/x"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			info, err := f.Stat()
			if err != nil {
				t.Fatal(err)
			}
			like = first
			like.Dev, like.Ino = inode(info)
			h.rewind(like, state)
			second := h.take("/x")
			if second.ID == first.ID {
				t.Fatal("the second file has the first one's item")
			}
			h.items(2)
			h.holds(first.ID, "/x", "first")
			h.holds(second.ID, "/x", "next!")
		})
	}
}

func TestFailedStoreLosesNothing(t *testing.T) {
	h := newHost(t)
	h.write("/x", "first", 0o600)
	first := h.take("/x")
	h.rewind(first, Stored)
	h.v.maxFile = 3
	h.write("/x", "next!", 0o600)
	if _, _, err := h.v.TakeFile(Request{Task: "t", Path: "/x"}); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("error %v, want ErrTooLarge", err)
	}
	h.items(1)
	h.holds(first.ID, "/x", "first")
}

func TestTakeGoesOnAfterACrash(t *testing.T) {
	for name, test := range map[string]func(h *host){
		"between content and manifest": func(h *host) {
			folder := h.v.folder(itemID("t", "file\x00/x"))
			if err := os.Mkdir(folder, 0o700); err != nil {
				h.t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(folder, "content.age"), []byte("half"), 0o600); err != nil {
				h.t.Fatal(err)
			}
			h.take("/x")
		},
		"between removal and mark": func(h *host) {
			h.rewind(h.take("/x"), Stored)
			if i, already, err := h.v.TakeFile(Request{Task: "t", Path: "/x"}); err != nil || !already || i.State != Taken {
				h.t.Fatalf("%+v, already %v, %v", i, already, err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.write("/x", "evil", 0o600)
			test(h)
			if i := h.items(1)[0]; i.State != Taken {
				t.Fatalf("state %s", i.State)
			}
			h.holds(h.items(1)[0].ID, "/x", "evil")
		})
	}
}

func TestFailedRemovalKeepsTheOnlyCopy(t *testing.T) {
	broken := errors.New("the disk does not answer")
	for name, c := range map[string]struct {
		act  func(h *host)
		want error
	}{
		"directory not durable": {func(*host) {}, broken},
		"gone meanwhile":        {func(h *host) { h.write("/x", "next!", 0o600) }, broken},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.write("/x", "evil", 0o600)
			h.v.sync = func(*os.File) error { c.act(h); return broken }
			i, _, err := h.v.TakeFile(Request{Task: "t", Path: "/x"})
			if !errors.Is(err, c.want) || i.State != Taken {
				t.Fatalf("%+v, %v", i, err)
			}
			h.v.sync = (*os.File).Sync
			h.items(1)
			h.holds(i.ID, "/x", "evil")
		})
	}
}

func TestFailedRemovalOfALinkKeepsTheOnlyCopy(t *testing.T) {
	h := newHost(t)
	if err := os.Symlink("one", filepath.Join(h.root, "l")); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("the disk does not answer")
	h.v.sync = func(*os.File) error { return broken }
	i, _, err := h.v.TakeLink(Request{Task: "t", Path: "/l"})
	if !errors.Is(err, broken) || i.State != Taken {
		t.Fatalf("%+v, %v", i, err)
	}
	h.v.sync = (*os.File).Sync
	h.items(1)
	h.restore(i.ID)
}

func TestAFileThatCannotBeRemovedGivesNoItem(t *testing.T) {
	h := newHost(t)
	h.write("/x", "evil", 0o600)
	p, err := h.v.find("/x")
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	st, err := p.stat()
	if err != nil {
		t.Fatal(err)
	}
	refused := errors.New("refused")
	for _, made := range []bool{false, true} {
		i := Item{ID: "one", Kind: File, State: Stored, Dev: uint64(st.Dev), Ino: st.Ino}
		if made {
			i.ID = "two"
		}
		if err := h.v.make(&i, func(*Item) error { return nil }); err != nil {
			t.Fatal(err)
		}
		if got, _, err := h.v.finish(i, made, p, refused); !errors.Is(err, refused) || got.ID != "" {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	// What an earlier call made is not this one's to drop.
	if i := h.items(1)[0]; i.ID != "one" || i.State != Stored {
		t.Fatalf("%+v", i)
	}
}

func TestADamagedManifestIsInNobodysWay(t *testing.T) {
	h := newHost(t)
	h.write("/x", "first", 0o600)
	first := h.take("/x")
	if err := os.WriteFile(h.v.manifest(first.ID), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.write("/x", "next!", 0o600)
	second := h.take("/x")
	h.holds(second.ID, "/x", "next!")
	if _, err := os.Stat(filepath.Join(h.v.folder(first.ID), "content.age")); err != nil {
		t.Fatal(err)
	}
}

func TestOnlyTheFileInEvidenceIsTaken(t *testing.T) {
	h := newHost(t)
	h.write("/x", "mine", 0o600)
	if _, _, err := h.v.TakeFile(Request{Task: "t", Path: "/x", Dev: 1, Ino: 1}); !errors.Is(err, ErrReplaced) {
		t.Fatalf("error %v, want ErrReplaced", err)
	}
	for path, want := range map[string]error{"/none": fs.ErrNotExist, "/dir": ErrSpecial} {
		_ = os.Mkdir(filepath.Join(h.root, "dir"), 0o700)
		if _, _, err := h.v.TakeFile(Request{Task: "t", Path: path}); !errors.Is(err, want) {
			t.Fatalf("%s: error %v, want %v", path, err, want)
		}
	}
	h.items(0)
	if h.read("/x") != "mine" {
		t.Fatal("the file was touched")
	}
}

func TestALinkAboveTheFileIsNotFollowed(t *testing.T) {
	h := newHost(t)
	h.write("/real/x", "mine", 0o600)
	if err := os.Symlink("real", filepath.Join(h.root, "link")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := h.v.TakeFile(Request{Task: "t", Path: "/link/x"}); err == nil {
		t.Fatal("the link was followed")
	}
	for _, path := range []string{"x", "/real/../real/x", "/", "/a\x00b"} {
		if _, _, err := h.v.TakeFile(Request{Task: "t", Path: path}); err == nil {
			t.Fatalf("%q was taken", path)
		}
	}
	if h.read("/real/x") != "mine" {
		t.Fatal("the file was touched")
	}
}

func TestNamelessFilesOfOneName(t *testing.T) {
	h := newHost(t)
	keep := func(text string) (Item, bool) {
		h.write("/gone", text, 0o700)
		f, err := os.Open(filepath.Join(h.root, "gone"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		h.remove("/gone")
		i, already, err := h.v.Keep(Request{Task: "t", Path: "/gone"}, f)
		if err != nil {
			t.Fatal(err)
		}
		again, repeated, err := h.v.Keep(Request{Task: "t", Path: "/gone"}, f)
		if err != nil || !repeated || again.ID != i.ID {
			t.Fatalf("repeated: %+v, already %v, %v", again, repeated, err)
		}
		return i, already
	}
	one, _ := keep("one")
	two, already := keep("two")
	if already || one.ID == two.ID {
		t.Fatal("the second content was not kept")
	}
	h.holds(one.ID, "/gone", "one")
	h.holds(two.ID, "/gone", "two")
}

func TestTwoFirstStartsHaveOneIdentity(t *testing.T) {
	h := newHost(t)
	dir := filepath.Join(t.TempDir(), "vault")
	vaults := make([]*Vault, 16)
	var wg sync.WaitGroup
	for n := range vaults {
		wg.Go(func() {
			v, err := Open(Options{Dir: dir, Root: h.root, MaxFile: 1})
			if err != nil {
				t.Error(err)
				return
			}
			vaults[n] = v
		})
	}
	wg.Wait()
	for _, v := range vaults {
		if v == nil || v.identity.String() != vaults[0].identity.String() {
			t.Fatal("two identities")
		}
	}
}

func TestTwoProcessesTakeAFileOnce(t *testing.T) {
	h := newHost(t)
	h.write("/x", "evil", 0o600)
	// Each has its own lock on the folder, as another process has.
	vaults := []*Vault{h.v, h.open(h.v.dir), h.open(h.v.dir), h.open(h.v.dir)}
	var wg sync.WaitGroup
	for _, v := range vaults {
		wg.Go(func() {
			if _, _, err := v.TakeFile(Request{Task: "t", Path: "/x"}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	h.wantAbsent("/x")
	h.holds(h.items(1)[0].ID, "/x", "evil")
}
