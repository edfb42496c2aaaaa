package testlan

import (
	"context"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	RunActor()
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
