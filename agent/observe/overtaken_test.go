package observe

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/cordon-security/cordon/agent/procfs"
)

// TestLateEventKeepsWhatAProcessBeganAs holds that a program which became another
// before its event was read is not missed, and that a process which is what it
// began as is not taken for two.
func TestLateEventKeepsWhatAProcessBeganAs(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	dropped := write("job", "\x7fELF")
	script := write("script", "#!/bin/sh\nread line\n")
	alias := filepath.Join(dir, "alias")
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(sleep, alias); err != nil {
		t.Fatal(err)
	}
	asleep, reading := runs(t, sleep, "1000"), runs(t, script)
	for name, c := range map[string]struct {
		process procfs.ID
		event   string
		want    string
	}{
		"was a dropped file":           {asleep, dropped, dropped},
		"was a file that is gone":      {asleep, dir + "/gone", dir + "/gone"},
		"is what it began as":          {asleep, sleep, ""},
		"began by another name for it": {asleep, alias, ""},
		"a relative name":              {asleep, "job", ""},
		"a descriptor":                 {asleep, "/dev/fd/7", ""},
		"a script":                     {reading, script, ""},
	} {
		s := &bpfSource{}
		event := make([]byte, nameSize)
		copy(event, c.event)
		got := s.executed(c.process, event)
		last := got[len(got)-1]
		if last.ID != c.process || last.Exe == "" || last.ExeFile == (procfs.FileID{}) {
			t.Errorf("%s: it is %+v now", name, last)
		}
		if (c.want == "") != (len(got) == 1) || (c.want != "" && got[0].Exe != c.want) {
			t.Errorf("%s: it was %+v", name, got)
		}
		h := NewHistory(time.Minute, nil)
		for _, p := range got {
			h.Exec(p)
		}
		_, ended := h.Processes()
		if (c.want == "") != (len(ended) == 0) || (c.want != "" && ended[0].Exe != c.want) {
			t.Errorf("%s: the history has %+v", name, ended)
		}
	}
}

// runs starts a program that waits until the test's end.
func runs(t *testing.T, name string, args ...string) procfs.ID {
	t.Helper()
	cmd := exec.Command(name, args...)
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	p, err := procfs.FS{}.Stat(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return p.ID
}
