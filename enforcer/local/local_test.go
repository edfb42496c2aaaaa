package local

import (
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/cordon-security/cordon/internal/guard"
)

var (
	ownMAC   = guard.MAC{2, 0, 0, 0, 0, 0xa}
	router   = guard.MAC{2, 0, 0, 0, 0, 1}
	attacker = guard.MAC{2, 0, 0, 0, 0, 0x66}
	gateway4 = netip.MustParseAddr("192.0.2.1")
	gateway6 = netip.MustParseAddr("fd02::1")
)

// network makes a link with an address and a default gateway of each family.
func network(t *testing.T) netlink.Link {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = "lan", ownMAC[:]
	must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "lan-peer"}))
	link, err := netlink.LinkByName("lan")
	must(err)
	peer, err := netlink.LinkByName("lan-peer")
	must(err)
	t.Cleanup(func() { _ = netlink.LinkDel(link) })
	must(netlink.LinkSetUp(link))
	must(netlink.LinkSetUp(peer))
	for own, gateway := range map[string]netip.Addr{"192.0.2.10/24": gateway4, "fd02::10/64": gateway6} {
		a, err := netlink.ParseAddr(own)
		must(err)
		a.Flags = unix.IFA_F_NODAD
		must(netlink.AddrAdd(link, a))
		must(netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: gateway.AsSlice()}))
	}
	return link
}

func neighbor(t *testing.T, link netlink.Link, a netip.Addr, mac guard.MAC) {
	t.Helper()
	err := netlink.NeighSet(&netlink.Neigh{LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT, IP: a.AsSlice(), HardwareAddr: net.HardwareAddr(mac[:])})
	if err != nil {
		t.Fatal(err)
	}
}

func nobody(guard.MAC) bool { return false }

func protectedBy(t *testing.T, m *Machine, suspect func(guard.MAC) bool) []guard.Protected {
	t.Helper()
	list, err := m.Protected(suspect)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func learned(list []guard.Protected) (out []guard.MAC) {
	for _, p := range list {
		if p.Learned {
			out = append(out, p.MAC)
		}
	}
	return out
}

func TestMachineProtectsItself(t *testing.T) {
	network(t)
	list := protectedBy(t, New(t.TempDir(), slog.New(slog.DiscardHandler)), nobody)
	g, err := guard.New(list, guard.Cap{})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{"192.0.2.10", "fd02::10", "192.0.2.1", "fd02::1"} {
		if g.CheckAddress(netip.MustParseAddr(a)) == nil {
			t.Errorf("%s is not protected", a)
		}
	}
	if r := g.CheckMAC(ownMAC); r == nil || r.Rule != guard.RuleProtectedMAC {
		t.Errorf("its own MAC: %v", r)
	}
	if g.CheckAddress(netip.MustParseAddr("192.0.2.11")) != nil || g.CheckMAC(attacker) != nil || len(learned(list)) != 0 {
		t.Errorf("too much is protected: %v", list)
	}
	if again := protectedBy(t, New(t.TempDir(), slog.New(slog.DiscardHandler)), nobody); !slices.Equal(list, again) {
		t.Errorf("the order changes: %v, %v", list, again)
	}
}

func TestGatewayIsPinnedOnce(t *testing.T) {
	link, dir := network(t), t.TempDir()
	open := func() *Machine { return New(dir, slog.New(slog.DiscardHandler)) }
	m := open()
	neighbor(t, link, gateway4, attacker)
	if got := learned(protectedBy(t, m, func(m guard.MAC) bool { return m == attacker })); len(got) != 0 {
		t.Fatalf("a quarantined MAC was pinned: %v", got)
	}
	neighbor(t, link, gateway4, router)
	neighbor(t, link, gateway6, router)
	if got := learned(protectedBy(t, m, nobody)); !slices.Equal(got, []guard.MAC{router, router}) {
		t.Fatalf("pinned %v", got)
	}
	neighbor(t, link, gateway4, attacker)
	for name, m := range map[string]*Machine{"running": m, "restarted": open()} {
		if got := learned(protectedBy(t, m, nobody)); slices.Contains(got, attacker) || !slices.Contains(got, router) {
			t.Errorf("%s, a later claim: %v", name, got)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "gateways.json"), []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := learned(protectedBy(t, open(), nobody)); len(got) != 2 {
		t.Errorf("with a damaged file: %v", got)
	}
}

func TestPinsThatCannotBeWrittenHold(t *testing.T) {
	link := network(t)
	m := New(filepath.Join(t.TempDir(), "missing"), slog.New(slog.DiscardHandler))
	neighbor(t, link, gateway4, router)
	protectedBy(t, m, nobody)
	neighbor(t, link, gateway4, attacker)
	if got := learned(protectedBy(t, m, nobody)); !slices.Equal(got, []guard.MAC{router}) {
		t.Errorf("pinned %v", got)
	}
}

func TestAssertBridge(t *testing.T) {
	for name, c := range map[string]struct{ before, after string }{
		"off": {"0\n", "0\n"}, "on": {"1\n", "0\n"}, "not loaded": {},
	} {
		dir := t.TempDir() + "/"
		file := dir + bridgeCalls[0]
		if c.before != "" {
			if err := os.WriteFile(file, []byte(c.before), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := assertBridge(dir); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got, _ := os.ReadFile(file); string(got) != c.after {
			t.Errorf("%s: %q, want %q", name, got, c.after)
		}
	}
	dir := t.TempDir() + "/"
	if err := os.Mkdir(dir+bridgeCalls[1], 0o700); err != nil {
		t.Fatal(err)
	}
	if assertBridge(dir) == nil {
		t.Error("what cannot be read passes")
	}
}
