package journal

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cordon-security/cordon/agent/assess"
	"github.com/cordon-security/cordon/agent/persistence"
	"github.com/cordon-security/cordon/agent/procfs"
)

const boot = "0f1e2d3c-0000-4000-8000-000000000001"

func open(t *testing.T, dir, boot string) *Journal {
	t.Helper()
	j, err := Open(Options{Dir: dir, Boot: boot})
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func sample() Record {
	process := procfs.Process{
		ID: procfs.ID{PID: 7, Start: 70}, PPID: 1, Exe: "/tmp/\xff\xfe", ExeFile: procfs.FileID{Dev: 1, Ino: 2},
		Args: []string{"/tmp/\xff\xfe", "\x00base64:x", "ü"},
	}
	return Record{
		Task: "t", Started: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
		Evidence: assess.Evidence{
			Verdict: assess.Confirmed, Reasons: []string{"it runs /tmp/\xff\xfe"},
			Processes: []assess.Suspect{{Process: process, Why: "x"}},
			Files:     []assess.SuspectFile{{Path: "/tmp/\xff\xfe", File: procfs.FileID{Dev: 1, Ino: 2}, Deleted: true, PID: 7}},
			Entries: []assess.Start{{Entry: persistence.Entry{
				Kind: persistence.CronLine, Path: "/etc/cron.d/\x80", Text: "* * * * * root /tmp/\xff\xfe",
				Wrappers: []persistence.Wrapper{{Path: "/\xff", Names: []string{"\xff"}}},
			}}},
		},
		Actions: [][]byte{{1, 0xff}}, Result: []byte{0xff},
	}
}

func TestEveryByteOfARecordComesBack(t *testing.T) {
	j := open(t, t.TempDir(), boot)
	want := sample()
	if err := j.Save(want); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(want, sample()) {
		t.Fatal("saving changed the record")
	}
	got, err := j.Load("t")
	want.Boot = boot
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%v\ngot  %+v\nwant %+v", err, got, want)
	}
	if got, err := j.Load("other"); err != nil || !reflect.DeepEqual(got, Record{Task: "other"}) {
		t.Fatalf("%+v, %v", got, err)
	}
}

func TestNumbersOfAnEarlierBootMeanNothing(t *testing.T) {
	dir := t.TempDir()
	want := sample()
	if err := open(t, dir, boot).Save(want); err != nil {
		t.Fatal(err)
	}
	later := open(t, dir, strings.Replace(boot, "0f", "1f", 1))
	for range 2 {
		got, err := later.Load("t")
		if err != nil {
			t.Fatal(err)
		}
		if known := got.Evidence.Known(); len(known.Processes) != 0 || len(known.Files) != 1 || !known.Files[0].File.IsZero() {
			t.Fatalf("known: %+v", known)
		}
		if f := got.Evidence.Files[0]; f.PID != 0 || f.Path != want.Evidence.Files[0].Path {
			t.Fatalf("file: %+v", f)
		}
		if len(got.Earlier) != 1 || !got.Earlier[0].Ended || got.Earlier[0].ID != want.Evidence.Processes[0].ID {
			t.Fatalf("earlier: %+v", got.Earlier)
		}
		if !reflect.DeepEqual(got.Evidence.Entries, want.Evidence.Entries) || len(got.Actions) != 1 {
			t.Fatalf("more was dropped: %+v", got)
		}
		// What is saved now is of this boot, and nothing is moved twice.
		if err := later.Save(got); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOnlyPruneRemoves(t *testing.T) {
	dir := t.TempDir()
	for n := range maxRecords + 3 {
		path := filepath.Join(dir, fmt.Sprintf("%04d.json", n))
		if err := os.WriteFile(path, []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Unix(int64(n), 0)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	half := filepath.Join(dir, ".x.json.1")
	if err := os.WriteFile(half, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	j := open(t, dir, boot)
	if n := entries(t, dir); n != maxRecords+4 {
		t.Fatalf("opening left %d files", n)
	}
	if err := j.Prune(); err != nil {
		t.Fatal(err)
	}
	if n := entries(t, dir); n != maxRecords {
		t.Fatalf("%d files are left, want %d", n, maxRecords)
	}
	if _, err := os.Stat(filepath.Join(dir, fmt.Sprintf("%04d.json", maxRecords+2))); err != nil {
		t.Fatal("the youngest was dropped")
	}
}

func entries(t *testing.T, dir string) int {
	t.Helper()
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

func TestADamagedRecordIsAnError(t *testing.T) {
	j := open(t, t.TempDir(), boot)
	for _, text := range []string{"", "{", `{"evidence":{"reasons":["\u0000base64:!"]}}`} {
		if err := os.WriteFile(j.path("t"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := j.Load("t"); err == nil {
			t.Errorf("%q was read", text)
		}
	}
}
