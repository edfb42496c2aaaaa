package lifecycle

import (
	"net/netip"
	"strconv"
	"strings"
	"unicode"

	"github.com/cordon-security/cordon/mitigator/endpoint"
)

// hostName is the name by which an endpoint goes, from what its agent says; empty
// for what is no host's name, or would pass for another endpoint's address, MAC or
// number where administrators read and type them.
func hostName(said string) string {
	strange := func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-_.", r)
	}
	_, notAddress := netip.ParseAddr(said)
	_, notMAC := endpoint.ParseMAC(said)
	_, notNumber := strconv.ParseInt(said, 10, 64)
	if strings.ContainsFunc(said, strange) || notAddress == nil || notMAC == nil || notNumber == nil {
		return ""
	}
	return said
}
