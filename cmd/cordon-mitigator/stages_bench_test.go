package main

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/cordon-security/cordon/internal/testlan"
)

// stages sees from outside when the two programs write to their files: the
// mitigator to its write-ahead log, the device to its journal.
type stages struct {
	file   *os.File
	wal    int32
	mu     sync.Mutex
	writes []fileWrite
}

type fileWrite struct {
	at  time.Time
	wal bool
}

func watchStages(t testing.TB, disk string) *stages {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	s := &stages{file: os.NewFile(uintptr(fd), "inotify")}
	wal, err := unix.InotifyAddWatch(fd, filepath.Join(disk, "mitigator", "cordon.db-wal"), unix.IN_MODIFY)
	if err != nil {
		t.Fatal(err)
	}
	s.wal = int32(wal)
	if _, err := unix.InotifyAddWatch(fd, filepath.Join(disk, "enforcer", "desired.journal"), unix.IN_MODIFY); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.file.Close() })
	go s.read()
	return s
}

func (s *stages) read() {
	buf := make([]byte, 16<<10)
	for {
		n, err := s.file.Read(buf)
		at := time.Now()
		if err != nil {
			return
		}
		s.mu.Lock()
		for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
			e := (*unix.InotifyEvent)(unsafe.Pointer(&b[0]))
			s.writes = append(s.writes, fileWrite{at: at, wal: e.Wd == s.wal})
			b = b[unix.SizeofInotifyEvent+int(e.Len):]
		}
		s.mu.Unlock()
	}
}

// since returns when the write-ahead log was written for the last time before the
// journal was for the first, and when that was, both after the time.
func (s *stages) since(from time.Time) (wal, journal time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.writes {
		switch {
		case w.at.Before(from) || !journal.IsZero():
		case w.wal:
			wal = w.at
		default:
			journal = w.at
		}
	}
	s.writes = s.writes[:0]
	return wal, journal
}

// waited is how long a program's threads were ready to run and had no processor
// (the second field of schedstat), together.
func (r *rig) waited(p *testlan.Process) time.Duration {
	r.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.PID()))
	if err != nil || len(files) == 0 {
		r.Fatal("no schedstat", err)
	}
	var sum time.Duration
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // the thread has ended
		}
		var ran, waited int64
		if _, err := fmt.Sscan(string(b), &ran, &waited); err != nil {
			r.Fatal(err)
		}
		sum += time.Duration(waited)
	}
	return sum
}
