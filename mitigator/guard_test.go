package mitigator

import (
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/cordon-security/cordon/internal/guard"
	"github.com/cordon-security/cordon/mitigator/endpoint"
)

// TestOwnAddressThatCameLaterIsProtected holds that a mitigator which got an
// address, or an interface, after its start cannot be cut off by its own order.
func TestOwnAddressThatCameLaterIsProtected(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("this test needs root")
		}
		t.Skip("this test needs root")
	}
	runtime.LockOSThread() // and never unlocked: the thread ends with the test, and its network with it
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	g, _, err := newFleetGuard(nil, guard.Cap{})
	if err != nil {
		t.Fatal(err)
	}
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "late0", HardwareAddr: []byte{2, 0, 0, 0, 0, 0x77}}, PeerName: "late1"}
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	addr, err := netlink.ParseAddr("10.9.0.77/24")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(link, addr); err != nil {
		t.Fatal(err)
	}
	own := endpoint.Endpoint{MACs: []endpoint.MAC{{2, 0, 0, 0, 0, 0x77}}}
	other := endpoint.Endpoint{MACs: []endpoint.MAC{{2, 0, 0, 0, 0, 1}}}
	atOwn := []endpoint.Binding{{Addr: netip.MustParseAddr("10.9.0.77"), MAC: other.MACs[0]}}
	if _, err := g.refresh(); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if g.Check(now, own, nil, nil, 0) == nil {
		t.Error("the MAC of an interface that came later may be cut off")
	}
	if g.Check(now, other, atOwn, nil, 0) == nil {
		t.Error("an address that came later may be cut off")
	}
	if err := netlink.LinkDel(link); err != nil {
		t.Fatal(err)
	}
	if _, err := g.refresh(); err != nil {
		t.Fatal(err)
	}
	if err := g.Check(now, other, atOwn, nil, 0); err != nil {
		t.Errorf("an address that is no longer the mitigator's: %v", err)
	}
}
