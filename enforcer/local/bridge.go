package local

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// bridgeCalls make bridged frames pass the inet rules as well, which breaks
// bridge mode's assumptions; see docs/enforcement.md.
var bridgeCalls = []string{"bridge-nf-call-iptables", "bridge-nf-call-ip6tables", "bridge-nf-call-arptables"}

// AssertBridge makes sure that bridged frames do not pass the rules of routed
// traffic: each bridge-nf-call-* is 0, or is set to 0. Where br_netfilter is
// not loaded there is nothing to do.
func AssertBridge() error { return assertBridge("/proc/sys/net/bridge/") }

func assertBridge(dir string) error {
	for _, name := range bridgeCalls {
		b, err := os.ReadFile(dir + name)
		if errors.Is(err, os.ErrNotExist) || err == nil && strings.TrimSpace(string(b)) == "0" {
			continue
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		if err := os.WriteFile(dir+name, []byte("0\n"), 0o644); err != nil {
			return fmt.Errorf("net.bridge.%s is 1 and must be 0, and it cannot be set ('sysctl -w net.bridge.%s=0' sets it; a file in /etc/sysctl.d keeps it): %w", name, name, err)
		}
	}
	return nil
}
