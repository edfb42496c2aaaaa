package testlan

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	RunActor()
	if os.Getenv(ownerEnv) != "" {
		runOwner()
	}
	os.Exit(m.Run())
}

// needRoot skips the test where it cannot run, which in CI is a failure.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("needs root")
	}
	t.Skip("needs root")
}

func newStandard(t *testing.T, o StandardOptions) *Standard {
	t.Helper()
	needRoot(t)
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	lan, err := NewStandard(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lan.Close(); err != nil {
			t.Error(err)
		}
	})
	return lan
}

func TestStandardLANIsConnected(t *testing.T) {
	lan := newStandard(t, StandardOptions{NoSystemd: true})
	ctx := t.Context()
	for _, to := range []netip.Addr{
		ApplianceIPv4, ApplianceIPv6, BobIPv4, BobIPv6, PrinterIPv4, PrinterIPv6, C2IPv4, C2IPv6, WebIPv4, DNSIPv6,
	} {
		if _, err := lan.Alice.Ping(ctx, to, 5*time.Second); err != nil {
			t.Error(err)
		}
	}
	for _, host := range []*Host{lan.Alice, lan.Printer} {
		for _, url := range []string{"http://" + WebIPv4.String(), "http://[" + WebIPv6.String() + "]"} {
			page, err := host.Fetch(ctx, url)
			if err != nil || strings.TrimSpace(page) != WebText {
				t.Errorf("fetch %s: %q, %v", url, page, err)
			}
		}
	}
	addrs, err := lan.Bob.Resolve(ctx, netip.AddrPortFrom(DNSIPv4, 53), WebName)
	if err != nil || len(addrs) != 2 || addrs[0] != WebIPv4 || addrs[1] != WebIPv6 {
		t.Errorf("resolve: %v, %v", addrs, err)
	}
}

func TestHostsAreApart(t *testing.T) {
	lan := newStandard(t, StandardOptions{NoSystemd: true})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	p, err := lan.Alice.Start(ctx, Cmd{Args: []string{"sleep", "4242"}})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := lan.Alice.Run(ctx, "pgrep", "-f", "sleep 4242"); err != nil || strings.TrimSpace(out) != strconv.Itoa(p.HostPID()) {
		t.Errorf("alice sees her process as %q, want %d: %v", out, p.HostPID(), err)
	}
	if out, err := lan.Bob.Run(ctx, "pgrep", "-f", "sleep 4242"); err == nil {
		t.Errorf("bob sees alice's process: %s", out)
	}
	_, err = lan.Bob.Run(ctx, "kill", "-9", strconv.Itoa(p.PID()))
	if exit, ok := errors.AsType[*ExitError](err); !ok || exit.Code != 1 || exit.Stderr == "" {
		t.Errorf("bob's kill of a process of the machine: %v", err)
	}
	name, err := lan.Bob.Run(ctx, "uname", "-n")
	if err != nil || strings.TrimSpace(name) != "bob" {
		t.Errorf("bob's name is %q, %v", name, err)
	}
	for _, path := range []string{"/etc/cordon-lan-test", "/usr/bin/cordon-lan-test"} {
		if err := lan.Alice.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s of alice is on the machine", path)
		}
		if lan.Bob.Exists(path) {
			t.Errorf("bob has alice's %s", path)
		}
		if info, err := lan.Alice.Stat(path); err != nil || info.Mode() != 0o600 {
			t.Errorf("stat: %v, %v", info, err)
		}
	}
	for _, setting := range []string{"kernel/hostname", "vm/swappiness"} {
		if _, err := lan.Alice.Run(ctx, "sh", "-c", "echo 1 > /proc/sys/"+setting); err == nil {
			t.Errorf("alice can set %s", setting)
		}
	}
	if _, err := lan.Alice.Run(ctx, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"); err != nil {
		t.Errorf("alice cannot set her own network: %v", err)
	}
}

func TestUnreachableIsSaid(t *testing.T) {
	lan := newStandard(t, StandardOptions{NoSystemd: true})
	if _, err := lan.Alice.Ping(t.Context(), netip.MustParseAddr("10.77.0.99"), 500*time.Millisecond); !errors.Is(err, ErrNoReply) {
		t.Errorf("ping of nobody: %v", err)
	}
	if err := lan.Alice.DialTCP(t.Context(), netip.AddrPortFrom(BobIPv4, 81)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial of a closed port: %v", err)
	}
	if _, err := lan.Alice.Dial(t.Context(), "tcp", "localhost:80"); err == nil {
		t.Error("a host name was dialled")
	}
	if _, err := lan.Alice.Run(t.Context(), "no-such-program"); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("run of no program: %v", err)
	}
}

func TestReplaceAddress(t *testing.T) {
	lan := newStandard(t, StandardOptions{NoSystemd: true})
	moved := netip.MustParseAddr("10.77.0.111")
	err := lan.Bob.ReplaceAddress(Port, netip.PrefixFrom(BobIPv4, 24), netip.PrefixFrom(moved, 24))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lan.Bob.Ping(t.Context(), WebIPv4, 5*time.Second); err != nil {
		t.Error(err)
	}
	if _, err := lan.Alice.Ping(t.Context(), moved, 5*time.Second); err != nil {
		t.Error(err)
	}
	if _, err := lan.Alice.Ping(t.Context(), BobIPv4, 500*time.Millisecond); !errors.Is(err, ErrNoReply) {
		t.Errorf("ping of the old address: %v", err)
	}
}
