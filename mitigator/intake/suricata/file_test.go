package suricata

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cordon-security/cordon/mitigator/event"
	"github.com/cordon-security/cordon/mitigator/intake"
)

func TestFileTakesAllRecordedAlerts(t *testing.T) {
	lines := recorded(t)
	path := filepath.Join(t.TempDir(), "eve.json")
	appendTo(t, path, string(bytes.Join(lines, []byte("\n")))+"\n")
	d := &disk{}
	p, stop := start(t, newFile(t, path), d)
	untilEvents(t, d, len(lines))
	stop()
	wantRecorded(t, d, lines)
	st := p.Statuses()[0]
	if !st.Healthy || st.Events != 244 || st.Rejected != 0 || st.LastEvent.IsZero() {
		t.Errorf("status %+v", st)
	}
	roles := map[event.Role]int{}
	for _, e := range d.events {
		for _, l := range e.Locals {
			roles[l.Role]++
			if l.Addr.IsUnspecified() {
				t.Errorf("0.0.0.0 became an endpoint: %s", e.Raw)
			}
		}
	}
	if roles[event.Attacker] == 0 || roles[event.Victim] == 0 {
		t.Errorf("roles %v: want both attackers and victims in real traffic", roles)
	}
}

func TestFileAppearsLaterAndLineIsHalf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "eve.json")
	d := &disk{}
	p, _ := start(t, newFile(t, path), d)
	until(t, "a status that says so", func() bool { return strings.Contains(p.Statuses()[0].Error, "does not exist yet") })
	half := numbered(2)
	appendTo(t, path, numbered(1)+half[:40])
	untilEvents(t, d, 1)
	until(t, "a healthy status", func() bool { return p.Statuses()[0].Healthy })
	appendTo(t, path, half[40:])
	untilEvents(t, d, 2)
	wantInOrder(t, d, 1, 2)
}

func TestFileRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "eve.json")
	d := &disk{}
	appendTo(t, path, numbered(1))
	_, stop := start(t, newFile(t, path), d)
	untilEvents(t, d, 1)

	rename(t, path, path+".1")
	appendTo(t, path+".1", numbered(2)) // before Suricata opens the new file
	untilEvents(t, d, 2)
	appendTo(t, path, "")               // logrotate's create
	appendTo(t, path+".1", numbered(3)) // Suricata was not told yet
	untilEvents(t, d, 3)
	last := numbered(4)
	appendTo(t, path+".1", last[:len(last)-1]) // the last line has no end
	appendTo(t, path, numbered(5))
	untilEvents(t, d, 5)
	stop()

	// While nobody reads, three more rotations.
	appendTo(t, path, numbered(6))
	for n := 7; n <= 9; n++ {
		for i := 3; i >= 1; i-- {
			if _, err := os.Stat(fmt.Sprintf("%s.%d", path, i)); err == nil {
				rename(t, fmt.Sprintf("%s.%d", path, i), fmt.Sprintf("%s.%d", path, i+1))
			}
		}
		rename(t, path, path+".1")
		appendTo(t, path, numbered(n))
	}
	start(t, newFile(t, path), d)
	untilEvents(t, d, 9)
	wantInOrder(t, d, 1, 9)
}

func TestFileRotationByDate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "eve.json")
	d := &disk{}
	appendTo(t, path, numbered(1))
	_, stop := start(t, newFile(t, path), d)
	untilEvents(t, d, 1)
	stop()
	appendTo(t, path, numbered(2)+`{"event_type":"alert", half`)
	rename(t, path, path+"-20260304")
	appendTo(t, path, numbered(3))
	start(t, newFile(t, path), d)
	untilEvents(t, d, 3)
	wantInOrder(t, d, 1, 3)
	if _, rejects := d.counts(); rejects != 1 {
		t.Errorf("%d rejects, want the half line of the rotated file", rejects)
	}
}

func TestFileCopyTruncate(t *testing.T) {
	for _, running := range []bool{true, false} {
		t.Run(fmt.Sprintf("running %v", running), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "eve.json")
			d := &disk{}
			appendTo(t, path, numbered(1)+numbered(2))
			_, stop := start(t, newFile(t, path), d)
			untilEvents(t, d, 2)
			if !running {
				stop()
				appendTo(t, path, numbered(3))
			} else {
				appendTo(t, path, numbered(3))
				untilEvents(t, d, 3)
			}
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			appendTo(t, path+".1", string(content))
			if err := os.Truncate(path, 0); err != nil {
				t.Fatal(err)
			}
			// Grown beyond the old place with other content.
			var more strings.Builder
			for n := 4; n <= 12; n++ {
				more.WriteString(strings.Replace(numbered(n), "2026-03-04", "2026-03-05", 1))
			}
			appendTo(t, path, more.String())
			if !running {
				start(t, newFile(t, path), d)
			}
			untilEvents(t, d, 12)
			wantInOrder(t, d, 1, 12)
		})
	}
}

func TestFileTruncatedWithoutCopy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "eve.json")
	d := &disk{}
	appendTo(t, path, numbered(1)+numbered(2))
	_, stop := start(t, newFile(t, path), d)
	untilEvents(t, d, 2)
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	appendTo(t, path, strings.Replace(numbered(3), "2026-03-04", "2026-03-05", 1))
	untilEvents(t, d, 3)
	stop()
	start(t, newFile(t, path), d)
	appendTo(t, path, numbered(4))
	untilEvents(t, d, 4)
	wantInOrder(t, d, 1, 4)
}

func TestFileInodeUsedAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "eve.json")
	d := &disk{}
	appendTo(t, path, numbered(1))
	_, stop := start(t, newFile(t, path), d)
	untilEvents(t, d, 1)
	stop()
	c, err := decodeCursor(d.cursor)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for n := 2; n <= 5; n++ {
		text.WriteString(strings.Replace(numbered(n), "2026-03-04", "2026-03-05", 1))
	}
	appendTo(t, path, text.String())
	f, err := openRegular(path)
	if err != nil {
		t.Fatal(err)
	}
	c.Inode, c.Dev = f.inode, f.dev // as if the file system had used it again
	f.close()
	d.cursor = c.encode()
	start(t, newFile(t, path), d)
	untilEvents(t, d, 5)
	wantInOrder(t, d, 1, 5)
}

func TestFileIsSomethingElse(t *testing.T) {
	makeIt := map[string]func(string) error{
		"directory": func(p string) error { return os.Mkdir(p, 0o700) },
		"fifo":      func(p string) error { return unix.Mkfifo(p, 0o600) },
		"dangling":  func(p string) error { return os.Symlink(p+".none", p) },
	}
	for name, create := range makeIt {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "eve.json")
			d := &disk{}
			appendTo(t, path, numbered(1))
			p, _ := start(t, newFile(t, path), d)
			untilEvents(t, d, 1)
			rename(t, path, path+".1")
			if err := create(path); err != nil {
				t.Fatal(err)
			}
			until(t, "an unhealthy status", func() bool { return !p.Statuses()[0].Healthy })
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			appendTo(t, path, numbered(2))
			untilEvents(t, d, 2)
			until(t, "a healthy status", func() bool { return p.Statuses()[0].Healthy })
			wantInOrder(t, d, 1, 2)
		})
	}
}

func TestFileHostileLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "eve.json")
	text, n := "", 0
	for _, line := range hostile {
		n++
		text += line + "\n" + numbered(n)
	}
	text += "\n\r\n" + `{"event_type":"flow"}` + "\n"
	appendTo(t, path, text)
	d := &disk{}
	p, stop := start(t, newFile(t, path), d)
	untilEvents(t, d, n)
	until(t, "the flow record to be counted", func() bool { return p.Statuses()[0].Ignored == 1 })
	stop()
	wantInOrder(t, d, 1, n)
	if len(d.rejects) != len(hostile) {
		t.Errorf("%d rejects, want %d", len(d.rejects), len(hostile))
	}
	var longest int64
	for _, r := range d.rejects {
		longest = max(longest, r.Size)
		if r.Reason == "" || len(r.Raw) > event.MaxRejectRaw || len(r.Raw) == 0 {
			t.Errorf("reject of %d bytes kept, reason %q", len(r.Raw), r.Reason)
		}
	}
	if want := int64(len(hostile["too long"])); longest != want {
		t.Errorf("the over-long line is said to have %d bytes, it has %d", longest, want)
	}
}

func TestFileWaitsOutAFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "eve.json")
	full := true
	d := &disk{}
	d.before = func() error {
		if full {
			return errDisk
		}
		return nil
	}
	p, _ := start(t, newFile(t, path), d)
	appendTo(t, path, numbered(1)+numbered(2))
	until(t, "a status that says so", func() bool { return strings.Contains(p.Statuses()[0].Error, "disk full") })
	appendTo(t, path, numbered(3))
	d.mu.Lock()
	full = false
	d.mu.Unlock()
	untilEvents(t, d, 3)
	until(t, "a healthy status", func() bool { return p.Statuses()[0].Healthy })
	wantInOrder(t, d, 1, 3)
}

func TestFileBatchesABurst(t *testing.T) {
	path := filepath.Join(t.TempDir(), "eve.json")
	var text strings.Builder
	for n := 1; n <= 1000; n++ {
		text.WriteString(numbered(n))
	}
	appendTo(t, path, text.String())
	d := &disk{}
	start(t, newFile(t, path), d)
	untilEvents(t, d, 1000)
	wantInOrder(t, d, 1, 1000)
	if d.batches > 1000/intake.MaxBatch+4 {
		t.Errorf("%d batches for 1,000 records that were there at once", d.batches)
	}
}

// TestFileResumesAtEveryByte stops the reader after every byte of three records.
func TestFileResumesAtEveryByte(t *testing.T) {
	text := numbered(1) + numbered(2) + numbered(3)
	for cut := range len(text) {
		path := filepath.Join(t.TempDir(), "eve.json")
		d := &disk{}
		appendTo(t, path, text[:cut])
		_, stop := start(t, newFile(t, path), d)
		untilEvents(t, d, strings.Count(text[:cut], "\n"))
		stop()
		appendTo(t, path, text[cut:])
		_, stop = start(t, newFile(t, path), d)
		untilEvents(t, d, 3)
		stop()
		wantInOrder(t, d, 1, 3)
	}
}

// TestFileExactlyOnce kills the reader at random commits, before and after they
// are durable, while a writer appends in random pieces and rotates.
func TestFileExactlyOnce(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { exactlyOnce(t, rand.New(rand.NewPCG(seed, 3))) })
	}
}

func exactlyOnce(t *testing.T, random *rand.Rand) {
	const records = 400
	path := filepath.Join(t.TempDir(), "eve.json")
	d := &disk{}
	appendTo(t, path, "")
	_, stop := start(t, newFile(t, path), d)
	until(t, "the first cursor", func() bool { c, _ := d.Cursor(t.Context(), ""); return c != nil })
	stop()
	died := make(chan struct{}, 1)
	kill := func() error {
		if random.IntN(4) > 0 {
			return nil
		}
		select {
		case died <- struct{}{}:
		default:
		}
		return errDisk
	}
	d.before, d.after = kill, kill
	written := make(chan struct{})
	writer := rand.New(rand.NewPCG(random.Uint64(), 5))
	go func() {
		defer close(written)
		write(path, writer, records)
	}()
	for done := false; !done; {
		_, stop := start(t, newFile(t, path), d)
		until(t, "a kill or the end", func() bool {
			select {
			case <-died:
				return true
			default:
				n, _ := d.counts()
				return n >= records
			}
		})
		stop()
		n, _ := d.counts()
		done = n >= records
	}
	<-written
	// Nothing more may come once all is there.
	_, stop = start(t, newFile(t, path), d)
	appendTo(t, path, numbered(records+1))
	untilEvents(t, d, records+1)
	stop()
	wantInOrder(t, d, 1, records+1)
	if _, rejects := d.counts(); rejects != 0 {
		t.Errorf("%d rejects: %s", rejects, d.rejects[0].Raw)
	}
}

// write appends the records in random pieces, and rotates by rename now and
// then, with the last line whole or without its end.
func write(path string, random *rand.Rand, records int) {
	var f *os.File
	reopen := func() {
		var err error
		if f, err = os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600); err != nil {
			panic(err)
		}
	}
	reopen()
	for n := 1; n <= records; n++ {
		line := numbered(n)
		if random.IntN(8) == 0 {
			line += `{"event_type":"flow"}` + "\n"
		}
		cut := random.IntN(len(line))
		if random.IntN(4) == 0 {
			time.Sleep(time.Duration(random.IntN(1000)) * time.Microsecond)
		}
		_, _ = f.WriteString(line[:cut])
		rotate := random.IntN(25) == 0
		if rotate && random.IntN(2) == 0 {
			line = strings.TrimSuffix(line, "\n")
		}
		_, _ = f.WriteString(line[min(cut, len(line)):])
		if rotate {
			for i := 30; i >= 1; i-- {
				_ = os.Rename(fmt.Sprintf("%s.%d", path, i), fmt.Sprintf("%s.%d", path, i+1))
			}
			_ = os.Rename(path, path+".1")
			f.Close()
			reopen()
		}
	}
	f.Close()
}
