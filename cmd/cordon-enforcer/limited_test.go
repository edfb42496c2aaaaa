package main

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"github.com/cordon-security/cordon/internal/testlan"
	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

// carries reports whether a datagram gets from one socket to another.
func carries(t *testing.T, from, to net.PacketConn, address net.Addr, payload []byte) bool {
	t.Helper()
	// What is refused at once, by the sender's own machine, does not arrive either.
	if _, err := from.WriteTo(payload, address); err != nil {
		t.Log(err)
	}
	if err := to.SetReadDeadline(time.Now().Add(cutOff)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 2048)
	for {
		n, _, err := to.ReadFrom(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return false
		}
		if err != nil {
			t.Fatal(err)
		}
		if string(b[n-4:n]) == string(payload[len(payload)-4:]) {
			return true
		}
	}
}

func listen(t *testing.T, h *testlan.Host, network, address string) net.PacketConn {
	t.Helper()
	c, err := h.ListenPacket(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// neighborMessage is an ICMPv6 message of neighbour discovery; the kernel
// writes its checksum. The last option marks it.
func neighborMessage(kind byte, target netip.Addr, mark string) []byte {
	b := append([]byte{kind, 0, 0, 0, 0x60, 0, 0, 0}, target.AsSlice()...)
	return append(append(b, 2, 1, 0x02, 0), mark[:4]...)
}

// TestLimitedIsNoWayOut tries what limited access passes for the endpoint's own
// address as a channel to a machine beyond the link.
func TestLimitedIsNoWayOut(t *testing.T) {
	lan, r := standard(t, bridged)
	out4 := listen(t, lan.Internet, "udp4", net.JoinHostPort(testlan.C2IPv4.String(), "67"))
	in4 := listen(t, lan.Printer, "udp4", net.JoinHostPort(testlan.PrinterIPv4.String(), "68"))
	out6 := listen(t, lan.Internet, "udp6", net.JoinHostPort(testlan.C2IPv6.String(), "547"))
	in6 := listen(t, lan.Printer, "udp6", net.JoinHostPort(testlan.PrinterIPv6.String(), "546"))
	rawOut := listen(t, lan.Internet, "ip6:ipv6-icmp", testlan.C2IPv6.String())
	rawIn := listen(t, lan.Printer, "ip6:ipv6-icmp", testlan.PrinterIPv6.String())
	for _, c := range []net.PacketConn{rawOut, rawIn} {
		if err := ipv6.NewPacketConn(c).SetHopLimit(255); err != nil {
			t.Fatal(err)
		}
	}
	nd := neighborMessage(135, testlan.C2IPv6, "mark")
	for _, want := range []bool{true, false} {
		if !want {
			r.quarantine("printer", wirev1.Access_ACCESS_LIMITED, lan.Printer)
			r.follows("printer", testlan.PrinterIPv4, testlan.PrinterIPv6)
		}
		for _, c := range []struct {
			name     string
			from, to net.PacketConn
			message  []byte
		}{
			{"DHCP outwards", in4, out4, []byte("outwards")}, {"DHCP inwards", out4, in4, []byte("inwards.")},
			{"DHCPv6 outwards", in6, out6, []byte("outwards")}, {"DHCPv6 inwards", out6, in6, []byte("inwards.")},
			{"a solicitation outwards", rawIn, rawOut, nd}, {"a solicitation inwards", rawOut, rawIn, nd},
		} {
			if got := carries(t, c.from, c.to, c.to.LocalAddr(), c.message); got != want {
				t.Errorf("%s: passes %t, want %t", c.name, got, want)
			}
		}
	}
}

func portIndex(t *testing.T, h *testlan.Host) int {
	t.Helper()
	index := 0
	err := h.NetNS(func() error {
		link, err := net.InterfaceByName(testlan.Port)
		if err == nil {
			index = link.Index
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return index
}

// arpReply is a frame that says that a has the sender's MAC.
func arpReply(sender, to net.HardwareAddr, a, target netip.Addr) []byte {
	b := append(append([]byte{}, to...), sender...)
	b = append(b, 8, 6, 0, 1, 8, 0, 6, 4, 0, 2)
	b = append(append(b, sender...), a.AsSlice()...)
	return append(append(b, to...), target.AsSlice()...)
}

// packetSocket is an AF_PACKET socket of a host for one protocol.
func packetSocket(t *testing.T, h *testlan.Host, protocol uint16) int {
	t.Helper()
	fd, index := -1, portIndex(t, h)
	err := h.NetNS(func() (err error) {
		wire := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, protocol))
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(wire)); err != nil {
			return err
		}
		tv := unix.NsecToTimeval(int64(reachable))
		return errors.Join(unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: wire, Ifindex: index}),
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv))
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

// TestLimitedClaimsNobodysAddress lets an endpoint with limited access say that
// it is the appliance.
func TestLimitedClaimsNobodysAddress(t *testing.T) {
	protected := netip.MustParseAddr("10.77.0.200")
	lan, r := standard(t, bridged+"protected:\n  addresses: [10.77.0.200]\n")
	r.quarantine("printer", wirev1.Access_ACCESS_LIMITED, lan.Printer)
	printer, err := lan.Printer.MAC(testlan.Port)
	if err != nil {
		t.Fatal(err)
	}
	alice, err := lan.Alice.MAC(testlan.Port)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("ARP", func(t *testing.T) {
		from, to := packetSocket(t, lan.Printer, unix.ETH_P_ARP), packetSocket(t, lan.Alice, unix.ETH_P_ARP)
		// The honest one comes behind the forged ones, so nothing has to be waited for.
		for _, claim := range []netip.Addr{testlan.ApplianceIPv4, testlan.WebIPv4, protected, testlan.UplinkIPv4, testlan.PrinterIPv4} {
			if _, err := unix.Write(from, arpReply(printer, alice, claim, testlan.AliceIPv4)); err != nil {
				t.Fatal(err)
			}
		}
		b := make([]byte, 2048)
		for {
			n, err := unix.Read(to, b)
			if err != nil {
				t.Fatal("the endpoint's own address does not pass: ", err)
			}
			if n < 42 || string(b[6:12]) != string(printer) || b[21] != 2 {
				continue
			}
			claimed := netip.AddrFrom4([4]byte(b[28:32]))
			if claimed == testlan.PrinterIPv4 {
				return
			}
			t.Errorf("it said that it is %s", claimed)
		}
	})
	t.Run("advertisement", func(t *testing.T) {
		from := listen(t, lan.Printer, "ip6:ipv6-icmp", "::")
		to := listen(t, lan.Alice, "ip6:ipv6-icmp", "::")
		p := ipv6.NewPacketConn(from)
		if err := errors.Join(p.SetHopLimit(255), p.SetMulticastHopLimit(255)); err != nil {
			t.Fatal(err)
		}
		// By number: a name would be looked up in this process's own network.
		all := &net.IPAddr{IP: net.ParseIP("ff02::1"), Zone: strconv.Itoa(portIndex(t, lan.Printer))}
		if carries(t, from, to, all, neighborMessage(136, testlan.ApplianceIPv6, "evil")) {
			t.Error("it said that it is the appliance")
		}
		if !carries(t, from, to, all, neighborMessage(136, testlan.PrinterIPv6, "good")) {
			t.Error("its own address does not pass")
		}
	})
}
