package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cordon-security/cordon/agent/link"
	"github.com/cordon-security/cordon/internal/pki"
)

// benchAgents is how many real agents, enrolled and with an open Tasks stream
// over mutual TLS, the benchmark holds.
const benchAgents = 2000

// agentsDirEnv makes the test binary play the agents; see TestMain.
const agentsDirEnv = "CORDON_BENCH_AGENTS_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(agentsDirEnv); dir != "" {
		if err := playAgents(dir, os.Stdin); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if text := os.Getenv(victimEnv); text != "" {
		if err := playVictim(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// playAgents enrols one agent for each token that it reads, and runs them until
// the input ends.
func playAgents(dir string, tokens io.Reader) error {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	lines := bufio.NewScanner(tokens)
	for n := 0; lines.Scan(); n++ {
		token, err := pki.ParseToken(lines.Text())
		if err != nil {
			return err
		}
		state := filepath.Join(dir, strconv.Itoa(n))
		if _, err := link.Enroll(ctx, link.EnrollOptions{StateDir: state, Token: token}); err != nil {
			return err
		}
		l, err := link.New(link.Options{
			StateDir: state, Executor: &executor{}, Log: slog.New(slog.DiscardHandler), Addresses: &addresses{},
		})
		if err != nil {
			return err
		}
		wg.Go(func() { _ = l.Run(ctx) })
	}
	return lines.Err()
}

// BenchmarkIdleAgentMemory measures what one idle agent costs the mitigator's
// process: resident memory after a collection, with all agents connected, less
// that with none. The agents run in a process of their own. Store and life
// cycle are in memory, and count with a few hundred bytes.
func BenchmarkIdleAgentMemory(b *testing.B) {
	if b.N > 1 {
		b.Skip("one run says it all; use -benchtime 1x")
	}
	m := newMitigator(b)
	m.keepAlive = 30 * time.Second
	m.log = nil
	m.start()
	before := residentBytes(b)
	agents := exec.Command(os.Args[0])
	agents.Env = append(os.Environ(), agentsDirEnv+"="+b.TempDir())
	agents.Stderr = os.Stderr
	input, err := agents.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := agents.Start(); err != nil {
		b.Fatal(err)
	}
	began := time.Now()
	for range benchAgents {
		if _, err := fmt.Fprintln(input, m.token().Reveal()); err != nil {
			b.Fatal(err)
		}
	}
	for end := time.Now().Add(3 * time.Minute); m.fleet.ConnectedCount() < benchAgents; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			b.Fatalf("only %d agents are connected", m.fleet.ConnectedCount())
		}
	}
	b.ReportMetric(time.Since(began).Seconds(), "s-to-enrol-and-connect-all")
	// The enrolments' own connections and the first observations go away.
	time.Sleep(5 * time.Second)
	if n := m.fleet.ConnectedCount(); n != benchAgents {
		b.Fatalf("%d agents are connected, want %d", n, benchAgents)
	}
	after := residentBytes(b)
	b.ReportMetric(float64(after-before)/benchAgents, "bytes/agent")
	b.ReportMetric(float64(after)/(1<<20), "MiB-resident")
	b.ReportMetric(float64(runtime.NumGoroutine())/benchAgents, "goroutines/agent")
	b.ReportMetric(0, "ns/op")
	m.stop()
	if err := input.Close(); err != nil {
		b.Error(err)
	}
	if err := agents.Wait(); err != nil {
		b.Errorf("the agents' process: %v", err)
	}
}

// residentBytes is VmRSS of proc_pid_status(5) after a collection.
func residentBytes(b *testing.B) int64 {
	b.Helper()
	debug.FreeOSMemory()
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), "VmRSS:")
	kB, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return kB << 10
}
