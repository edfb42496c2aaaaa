package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// recorder is a service manager that keeps what it is told.
type recorder struct {
	mu       sync.Mutex
	states   []string
	interval time.Duration
}

func (r *recorder) notify(state string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.states = append(r.states, state)
}

func (r *recorder) watchdog() time.Duration { return r.interval }

func (r *recorder) count(state string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, s := range r.states {
		if s == state {
			n++
		}
	}
	return n
}

func (r *recorder) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.states)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("never: %s", what)
}

func noExit(t *testing.T) func(int) {
	return func(code int) { t.Errorf("ended hard with %d", code) }
}

func TestCleanStop(t *testing.T) {
	signals, rec := make(chan os.Signal, 2), &recorder{}
	code := serve("x", func(ctx context.Context, ready func()) error {
		From(ctx).Status("two\nlines")
		ready()
		ready()
		signals <- syscall.SIGTERM
		<-ctx.Done()
		return fmt.Errorf("run: %w", ctx.Err())
	}, signals, newUnit(rec), noExit(t))
	if code != ExitOK {
		t.Errorf("exit code %d", code)
	}
	eventually(t, "stopping is told", func() bool { return rec.count(stoppingState) == 1 })
	if got := rec.all(); !slices.Equal(got[:2], []string{"STATUS=two; lines", readyState}) || rec.count(readyState) != 1 {
		t.Errorf("told %q", got)
	}
}

type faulty struct{}

func (faulty) Error() string { return "bad file" }
func (faulty) ExitCode() int { return 78 }

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0}, {errors.New("x"), 1}, {fmt.Errorf("load: %w", faulty{}), 78}, {context.Canceled, 1},
	} {
		rec := &recorder{}
		got := serve("x", func(context.Context, func()) error { return c.err }, make(chan os.Signal), newUnit(rec), noExit(t))
		if got != c.want {
			t.Errorf("%v: exit code %d, want %d", c.err, got, c.want)
		}
		if rec.count(stoppingState) != 1 {
			t.Errorf("%v: told %q", c.err, rec.all())
		}
	}
}

func TestSecondSignal(t *testing.T) {
	signals, ended := make(chan os.Signal, 2), make(chan int, 1)
	serve("x", func(ctx context.Context, _ func()) error {
		signals <- syscall.SIGINT
		<-ctx.Done()
		signals <- syscall.SIGTERM
		if code := <-ended; code != 128+15 {
			t.Errorf("ended with %d", code)
		}
		return nil
	}, signals, newUnit(&recorder{}), func(code int) { ended <- code })
}

func TestWatchdogOnlyWhileHealthy(t *testing.T) {
	rec := &recorder{interval: 3 * time.Millisecond}
	signals := make(chan os.Signal)
	serve("x", func(ctx context.Context, ready func()) error {
		var healthy atomic.Bool
		var asked atomic.Int64
		healthy.Store(true)
		From(ctx).Watch(func() bool { asked.Add(1); return healthy.Load() })
		time.Sleep(10 * time.Millisecond)
		if rec.count(feedState) != 0 {
			t.Error("fed before ready")
		}
		ready()
		eventually(t, "fed", func() bool { return rec.count(feedState) > 2 })
		healthy.Store(false)
		seen := asked.Load()
		eventually(t, "asked again", func() bool { return asked.Load() > seen+2 })
		fed := rec.count(feedState)
		seen = asked.Load()
		eventually(t, "asked again", func() bool { return asked.Load() > seen+5 })
		if rec.count(feedState) != fed {
			t.Error("fed while a check fails")
		}
		return nil
	}, signals, newUnit(rec), noExit(t))
}

func TestNoUnit(t *testing.T) {
	u := From(context.Background())
	u.Status("x")
	u.Watch(func() bool { return false })
}

// The real notifier speaks to the socket that NOTIFY_SOCKET names.
func TestSystemdNotifier(t *testing.T) {
	path := filepath.Join(t.TempDir(), "n")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "30000000")
	t.Setenv("WATCHDOG_PID", fmt.Sprint(os.Getpid()))
	if d := (systemd{}).watchdog(); d != 30*time.Second {
		t.Errorf("watchdog = %v", d)
	}
	t.Setenv("WATCHDOG_PID", "1")
	if d := (systemd{}).watchdog(); d != 0 {
		t.Errorf("watchdog of another process = %v", d)
	}
	newUnit(systemd{}).Status("%d in force", 3)
	buf := make([]byte, 100)
	n, err := conn.Read(buf)
	if err != nil || string(buf[:n]) != "STATUS=3 in force" {
		t.Errorf("%q, %v", buf[:n], err)
	}
}

func TestJournalHandler(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(newJournalHandler(&out, slog.LevelInfo)).With("part", "x")
	log.Debug("hidden")
	log.Info("two\nlines", "n", 1)
	log.WithGroup("g").Warn("w", "level", "kept")
	log.Error("e")
	want := "<6>msg=\"two\\nlines\" part=x n=1\n<4>msg=w part=x g.level=kept\n<3>msg=e part=x\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &out, want)
	}
}

func TestNewLogger(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, _ := f.Stat()
	st := info.Sys().(*syscall.Stat_t)
	t.Setenv("JOURNAL_STREAM", fmt.Sprintf("%d:%d", st.Dev, st.Ino))
	t.Setenv(LevelVariable, "debug")
	NewLogger(f).Debug("to the journal")
	t.Setenv("JOURNAL_STREAM", "1:1")
	t.Setenv(LevelVariable, "nonsense")
	NewLogger(f).Debug("hidden")
	NewLogger(f).Info("to a person")
	data, _ := os.ReadFile(f.Name())
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	if len(lines) != 2 || lines[0] != `<7>msg="to the journal"` || !strings.HasPrefix(lines[1], "time=") {
		t.Errorf("%q", lines)
	}
}

func TestVersionOf(t *testing.T) {
	devel := &debug.BuildInfo{Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "0123456789abcdef"}, {Key: "vcs.modified", Value: "true"}}}
	if v := versionOf(devel); v != "devel-0123456789ab-dirty" {
		t.Error(v)
	}
	if v := versionOf(&debug.BuildInfo{Main: debug.Module{Version: "v1.2.3"}}); v != "v1.2.3" {
		t.Error(v)
	}
	if v := versionOf(&debug.BuildInfo{}); v != "unknown" {
		t.Error(v)
	}
	if Version() == "" {
		t.Error("no version")
	}
}
