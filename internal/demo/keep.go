package demo

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/cordon-security/cordon/internal/testlan"
)

var (
	// consoleAt is the console on the appliance, consoleHere where it answers on
	// this machine's loopback.
	consoleAt   = netip.AddrPortFrom(testlan.ApplianceIPv4, 8443)
	consoleHere = netip.MustParseAddrPort("127.0.0.1:18443")
)

// keep leaves the LAN up and says how to reach it.
func (s *stage) keep(ctx context.Context) error {
	at, err := s.lan.Appliance.Expose(ctx, consoleHere, consoleAt)
	if err != nil {
		return err
	}
	token, err := s.lan.Appliance.ReadFile(adminToken)
	if err != nil {
		return err
	}
	file := filepath.Join(s.lan.Dir(), "admin.token")
	if err := os.WriteFile(file, token, 0o600); err != nil {
		return fmt.Errorf("keep the administrator's token: %w", err)
	}
	k := Kept{Console: "https://" + at.String() + "/", TokenFile: file, Server: at.String(), Program: filepath.Join(s.demo.o.Bin, "cordon"), Hosts: make(map[string]int)}
	for _, h := range []*testlan.Host{s.lan.Appliance, s.lan.Alice, s.lan.Bob, s.lan.Printer, s.lan.Internet} {
		k.Hosts[h.Name()] = h.PID()
	}
	s.log.kept(k)
	s.stopWatching()
	return s.lan.Detach()
}

func printKept(out io.Writer, k Kept) {
	fmt.Fprintf(out, "\nThe LAN is up. On this machine:\n")
	fmt.Fprintf(out, "  console       %s   (its certificate is the appliance's own; log in with the token)\n", k.Console)
	fmt.Fprintf(out, "  token         cat %s\n", k.TokenFile)
	fmt.Fprintf(out, "  command line  %s --server %s --token-file %s threats\n", k.Program, k.Server, k.TokenFile)
	for _, name := range slices.Sorted(maps.Keys(k.Hosts)) {
		fmt.Fprintf(out, "  shell on      %-10s nsenter --target %d --all --wdns=/ bash\n", name, k.Hosts[name])
	}
	fmt.Fprintf(out, "  remove it     %s demo down\n", k.Program)
}
