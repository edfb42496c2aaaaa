package link

import (
	"context"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// ownNetwork moves the test's thread into a network namespace of its own. The
// thread is never given back, so the namespace ends with it.
func ownNetwork(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root for a network namespace")
		}
		t.Skip("needs root for a network namespace")
	}
	runtime.LockOSThread()
	before, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = before.Close() }()
	mine, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	if before.Equal(mine) {
		t.Fatal("still in the machine's own network")
	}
	if err := mine.Close(); err != nil {
		t.Error(err)
	}
}

func TestKernelAddresses(t *testing.T) {
	ownNetwork(t)
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "a"}, PeerName: "b"}
	if err := netlink.LinkAdd(pair); err != nil {
		t.Fatal(err)
	}
	link, err := netlink.LinkByName("a")
	if err != nil {
		t.Fatal(err)
	}
	addr, err := netlink.ParseAddr("10.1.2.3/24")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(link, addr); err != nil {
		t.Fatal(err)
	}
	want := func(b Binding) bool {
		return b.Address == netip.MustParseAddr("10.1.2.3") && b.MAC.String() == link.Attrs().HardwareAddr.String()
	}
	has := func() bool {
		t.Helper()
		bindings, err := KernelAddresses{}.Bindings()
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(bindings, want)
	}
	if has() {
		t.Fatal("an interface that is down is told")
	}
	// The change comes from another thread of the same namespace, since Watch
	// must hold this one.
	here, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = here.Close() }()
	handle, err := netlink.NewHandleAt(here)
	if err != nil {
		t.Fatal(err)
	}
	defer handle.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	changes := 0
	flapping := make(chan struct{})
	go func() {
		defer close(flapping)
		for ctx.Err() == nil {
			if err := handle.LinkSetUp(link); err != nil {
				t.Error(err)
				return
			}
			if !sleep(ctx, 20*time.Millisecond) {
				return
			}
			if err := handle.LinkSetDown(link); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	if err := (KernelAddresses{}).Watch(ctx, func() {
		if changes++; changes == 3 {
			cancel()
		}
	}); err != nil {
		t.Fatal(err)
	}
	<-flapping
	if changes < 3 {
		t.Fatal("changes were not seen")
	}
	if err := handle.LinkSetUp(link); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); !has(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the address is not told")
		}
	}
}
