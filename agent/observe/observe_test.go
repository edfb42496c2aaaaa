package observe

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/cordon-security/cordon/agent/procfs"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("this test needs root")
	}
	t.Skip("this test needs root")
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if done() {
			return
		}
	}
	t.Fatalf("%s: not so after 20 s", what)
}

func TestEndedConnectionKeepsItsProcess(t *testing.T) {
	needRoot(t)
	for _, name := range []string{"bpf", "poll"} {
		t.Run(name, func(t *testing.T) {
			s, _, err := Open(Options{Log: slog.New(slog.DiscardHandler), Only: name})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			h := NewHistory(10*time.Minute, nil)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- s.Run(ctx, h) }()
			defer func() { cancel(); <-ended }()
			eventually(t, "the table is read", func() bool { live, _ := h.Processes(); return len(live) > 0 })

			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			remote := netip.MustParseAddrPort(l.Addr().String())
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			local := netip.MustParseAddrPort(c.LocalAddr().String())
			eventually(t, "the connection is seen", func() bool {
				found := h.Find(remote, local.Port())
				return len(found) == 1 && found[0].Process.PID == os.Getpid()
			})
			c.Close()
			server, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			server.Close()
			eventually(t, "its end is seen", func() bool {
				found := h.Find(remote, local.Port())
				return len(found) == 1 && !found[0].Closed.IsZero()
			})
			self, err := procfs.FS{}.Stat(os.Getpid())
			if err != nil {
				t.Fatal(err)
			}
			if got := h.Find(remote, local.Port())[0].Process; got != self.ID {
				t.Errorf("process %v, want %v", got, self.ID)
			}
		})
	}
}

func TestEndedProcessKeepsItsParent(t *testing.T) {
	needRoot(t)
	s, _, err := Open(Options{Log: slog.New(slog.DiscardHandler), Only: "bpf"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	h := NewHistory(10*time.Minute, nil)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, h) }()
	defer func() { cancel(); <-ended }()
	eventually(t, "the table is read", func() bool { live, _ := h.Processes(); return len(live) > 0 })
	cmd := exec.Command("/bin/sh", "-c", "(/bin/sleep 0.05 &) ; exit 0")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the orphan's line is known", func() bool {
		_, past := h.Processes()
		byID := make(map[procfs.ID]Process)
		for _, p := range past {
			byID[p.ID] = p
		}
		for _, p := range past {
			if !strings.HasSuffix(p.Exe, "/sleep") {
				continue
			}
			// Others on the machine sleep too.
			if between, ok := byID[p.Parent]; ok && between.Parent.PID == cmd.Process.Pid {
				return true
			}
		}
		return false
	})
}
