package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cordon-security/cordon/mitigator/store"
	"github.com/cordon-security/cordon/mitigator/store/sqlite"
)

// TestKillDuringFlood ends the mitigator with SIGKILL at random moments while a
// detector writes and rotates its file, and holds that in the end each record is
// stored once, the broken ones are counted once, and one threat was fed by all.
func TestKillDuringFlood(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	kills, records := 6, 3000
	if os.Getenv(longRun) == "true" {
		kills, records = 60, 60000
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	tr := &trial{T: t, scenario: scenario{name: "flood"}, dir: t.TempDir(), method: newEnforcement()}
	written, first := make(chan error, 1), make(chan struct{})
	go func() { written <- flood(filepath.Join(tr.dir, "eve.json"), records, first) }()
	for i := range kills {
		p := &process{trial: tr, stopping: make(chan struct{})}
		p.start(death{})
		if i == 0 {
			// Before there is a cursor, nobody knows of files rotated away earlier.
			tr.untilFirst()
			close(first)
		}
		time.Sleep(time.Duration(100+random.IntN(400)) * time.Millisecond)
		if err := p.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = p.cmd.Wait() // it was killed, which is no news
	}
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	stop := tr.mitigator(death{})
	defer stop()
	s, err := sqlite.Open(t.Context(), filepath.Join(tr.dir, "mitigator", "cordon.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	broken := records / brokenEach
	last, since := 0, time.Now()
	for events, rejects := counts(t, s); events+rejects < records; events, rejects = counts(t, s) {
		if events+rejects > last {
			last, since = events+rejects, time.Now()
		}
		if time.Since(since) > patience {
			t.Fatalf("%d events and %d rejects are stored, of %d records, and no more come", events, rejects, records)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if events, rejects := counts(t, s); events != records-broken || rejects != broken {
		t.Errorf("%d events and %d rejects are stored, want %d and %d", events, rejects, records-broken, broken)
	}
	err = s.View(t.Context(), func(v store.View) error {
		threats, err := v.Threats(false, 0, 0)
		if err != nil || len(threats) != 1 || threats[0].EventCount != records-broken {
			return fmt.Errorf("threats %+v, %w", threats, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// untilFirst waits until the first record is stored, with its cursor.
func (tr *trial) untilFirst() {
	tr.Helper()
	path := filepath.Join(tr.dir, "mitigator", "cordon.db")
	eventually(tr, "the first record is stored", func() bool {
		if _, err := os.Stat(path); err != nil {
			return false
		}
		s, err := sqlite.Open(tr.Context(), path)
		if err != nil {
			return false // the mitigator is at making it
		}
		defer s.Close()
		events, _ := counts(tr.T, s)
		return events == 1
	})
}

func counts(t *testing.T, s store.Store) (events, rejects int) {
	t.Helper()
	err := s.View(t.Context(), func(v store.View) error {
		e, r, err := v.SourceCounts("eve")
		events, rejects = int(e), int(r)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return events, rejects
}

// brokenEach is how often a record is broken.
const brokenEach = 100

// flood writes records as a detector does, some in two halves, and rotates the
// file now and then. After the first record it waits to be told to go on.
func flood(path string, records int, first <-chan struct{}) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	for i := 1; i <= records; i++ {
		line := record(i)
		half := i % len(line)
		if _, err := f.Write(line[:half]); err != nil {
			return err
		}
		if i%7 == 0 {
			time.Sleep(time.Millisecond)
		}
		if _, err := f.Write(line[half:]); err != nil {
			return err
		}
		if i == 1 {
			<-first
		}
		if i%(records/5) != 0 || i == records {
			continue
		}
		if err := os.Rename(path, fmt.Sprintf("%s.%d", path, i)); err != nil {
			return err
		}
		// Suricata writes on into the renamed file until it is told to open anew.
		if f, err = reopened(f, path); err != nil {
			return err
		}
	}
	return f.Close()
}

func reopened(old *os.File, path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	return f, old.Close()
}

func record(i int) []byte {
	if i%brokenEach == 0 {
		return fmt.Appendf(nil, "{\"broken\": %d\n", i)
	}
	now := time.Now().UTC().Format("2006-01-02T15:04:05.000000-0700")
	line, err := json.Marshal(map[string]any{
		"timestamp": now, "flow_id": i, "event_type": "alert", "src_ip": endpointAddr.String(), "src_port": 1024 + i%60000,
		"dest_ip": "198.51.100.66", "dest_port": 443, "proto": "TCP",
		"alert": map[string]any{"action": "allowed", "gid": 1, "signature_id": 2000001, "rev": 1, "signature": "TEST CnC",
			"category": "Malware Command and Control Activity Detected", "severity": 1},
	})
	if err != nil {
		panic(err) // the map above marshals, whatever i
	}
	return append(line, '\n')
}
