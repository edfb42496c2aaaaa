package config

import (
	"fmt"
	"net"
)

// MAC is a 48-bit hardware address in a configuration file, written as
// 00:11:22:33:44:55, 00-11-22-33-44-55 or 0011.2233.4455.
type MAC net.HardwareAddr

// UnmarshalText parses text as a 48-bit address; EUI-64 and the 20 octets of
// InfiniBand are refused, because the enforcement methods match Ethernet.
func (m *MAC) UnmarshalText(text []byte) error {
	hw, err := net.ParseMAC(string(text))
	if err != nil || len(hw) != 6 {
		return fmt.Errorf("%q is not a MAC address (write it as 00:11:22:33:44:55)", text)
	}
	*m = MAC(hw)
	return nil
}

// MarshalText returns the address in lower case with colons.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// String returns the address in lower case with colons.
func (m MAC) String() string { return net.HardwareAddr(m).String() }

// HardwareAddr returns the address as the net package knows it.
func (m MAC) HardwareAddr() net.HardwareAddr { return net.HardwareAddr(m) }
