package guard

import (
	"fmt"
	"net"
)

// MAC is an IEEE 802 MAC-48 address. It is comparable, unlike
// net.HardwareAddr, so it can be a map's key.
type MAC [6]byte

// MACFrom takes a MAC from its 6 bytes.
func MACFrom(b []byte) (MAC, error) {
	var m MAC
	if len(b) != len(m) {
		return m, fmt.Errorf("a MAC address has 6 bytes, not %d", len(b))
	}
	copy(m[:], b)
	return m, nil
}

// String writes the address in lower case with colons.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// MarshalText writes the address as String does.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (m *MAC) UnmarshalText(text []byte) error {
	hw, err := net.ParseMAC(string(text))
	if err != nil {
		return err
	}
	*m, err = MACFrom(hw)
	return err
}

// IsZero reports whether it is 00:00:00:00:00:00, which loopback and broken
// drivers use.
func (m MAC) IsZero() bool { return m == MAC{} }

// IsGroup reports whether it is a multicast or the broadcast address: the I/G
// bit of IEEE 802.
func (m MAC) IsGroup() bool { return m[0]&1 == 1 }
