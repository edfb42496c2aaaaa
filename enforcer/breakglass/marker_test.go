package breakglass

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var order = Order{Since: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC), Actor: "eve", Reason: "fire"}

func TestMarker(t *testing.T) {
	for _, c := range []struct {
		name       string
		state, run bool // which directories are there
		noRun      bool // no run directory is configured
		failed     bool
		durable    bool
	}{
		{name: "both", state: true, run: true, durable: true},
		{name: "the run directory is gone", state: true, durable: true},
		{name: "the state directory is gone", run: true, failed: true},
		{name: "nothing is there", failed: true},
		{name: "one directory", state: true, noRun: true, durable: true},
		{name: "one directory that is gone", noRun: true, failed: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			base := t.TempDir()
			m := Marker{StateDir: filepath.Join(base, "state"), RunDir: filepath.Join(base, "run")}
			for dir, there := range map[string]bool{m.StateDir: c.state, m.RunDir: c.run} {
				if there {
					if err := os.Mkdir(dir, 0o700); err != nil {
						t.Fatal(err)
					}
				}
			}
			if c.noRun {
				m.RunDir = ""
			}
			if _, on := m.On(); on {
				t.Fatal("on before it was set")
			}
			err := m.Set(order)
			if (err != nil) != c.failed || errors.Is(err, ErrNotDurable) != (c.failed && c.run) {
				t.Errorf("set: %v", err)
			}
			got, on := m.On()
			if on != (c.state || c.run) || on && got != order {
				t.Errorf("on %t: %+v", on, got)
			}
			for dir, there := range map[string]bool{m.StateDir: c.state, m.RunDir: c.run} {
				if _, err := os.Stat(filepath.Join(dir, markerName)); (err == nil) != there {
					t.Errorf("%s: %v", dir, err)
				}
			}
			for range 2 {
				if err := m.Clear(); err != nil && (c.state || c.run) {
					t.Errorf("clear: %v", err)
				}
			}
			if _, on := m.On(); on {
				t.Error("on after it was cleared")
			}
		})
	}
}

// TestDamagedMarkerStands: its being there is what counts, on a full disk too.
func TestDamagedMarkerStands(t *testing.T) {
	for name, content := range map[string]string{"empty": "", "rubbish": "\x00{", "too long": strings.Repeat(" ", maxMarker) + "{}", "half": `{"actor":"e`} {
		m := Marker{StateDir: t.TempDir()}
		if err := os.WriteFile(filepath.Join(m.StateDir, markerName), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		o, on := m.On()
		if !on || o.Since.IsZero() || o.Actor != "unknown" {
			t.Errorf("%s: %t, %+v", name, on, o)
		}
		if err := m.Set(order); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if o, _ := m.On(); o != order {
			t.Errorf("%s, set anew: %+v", name, o)
		}
	}
}

func TestLog(t *testing.T) {
	m := Marker{StateDir: t.TempDir()}
	at := order.Since.Add(time.Hour)
	reasons := []string{"fire", "two\nlines", `quotes " and \`}
	for _, reason := range reasons {
		if err := m.Log("release-all", Order{Actor: "eve", Reason: reason}, at, "detail"); err != nil {
			t.Fatal(err)
		}
	}
	content, err := os.ReadFile(filepath.Join(m.StateDir, logName))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(content), "\n"), "\n")
	if len(lines) != len(reasons) {
		t.Fatalf("%d lines: %s", len(lines), content)
	}
	for i, line := range lines {
		var entry struct{ Time, Event, Actor, Reason, Detail string }
		if err := json.Unmarshal([]byte(line), &entry); err != nil || entry.Reason != reasons[i] || entry.Event != "release-all" ||
			entry.Actor != "eve" || entry.Detail != "detail" || entry.Time != "2026-11-24T13:00:00Z" {
			t.Errorf("%q: %+v, %v", line, entry, err)
		}
	}
	if (Marker{StateDir: filepath.Join(m.StateDir, "missing")}).Log("resume", order, at, "") == nil {
		t.Error("a log that cannot be written is no error")
	}
}
