package nft

import (
	"net/netip"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
)

// part is a piece of a rule: the expressions for one condition or verdict.
type part []expr.Any

func rule(parts ...part) []expr.Any {
	var out []expr.Any
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

const (
	link      = expr.PayloadBaseLLHeader
	network   = expr.PayloadBaseNetworkHeader
	transport = expr.PayloadBaseTransportHeader
)

func load(base expr.PayloadBase, offset, length uint32) part {
	return part{&expr.Payload{DestRegister: 1, Base: base, Offset: offset, Len: length}}
}

func equals(value []byte) part {
	return part{&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: value}}
}

func inSet(name string, not bool) part {
	return part{&expr.Lookup{SourceRegister: 1, SetName: name, Invert: not}}
}

func meta(key expr.MetaKey, value []byte) part {
	return append(part{&expr.Meta{Key: key, Register: 1}}, equals(value)...)
}

func proto4() part { return meta(expr.MetaKeyNFPROTO, []byte{2}) }

func proto6() part { return meta(expr.MetaKeyNFPROTO, []byte{10}) }

func etherType(t uint16) part {
	return meta(expr.MetaKeyPROTOCOL, binaryutil.BigEndian.PutUint16(t))
}

func l4(protocol uint8) part { return meta(expr.MetaKeyL4PROTO, []byte{protocol}) }

func port(offset uint32, number uint16) part {
	return append(load(transport, offset, 2), equals(binaryutil.BigEndian.PutUint16(number))...)
}

// within compares the address in register 1 with a prefix.
func within(p netip.Prefix) part {
	address := p.Masked().Addr().AsSlice()
	if p.IsSingleIP() {
		return equals(address)
	}
	mask := make([]byte, len(address))
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return append(part{&expr.Bitwise{
		SourceRegister: 1, DestRegister: 1, Len: uint32(len(address)), Mask: mask, Xor: make([]byte, len(address)),
	}}, equals(address)...)
}

func jump(chain string) part { return part{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}} }

func back() part { return part{&expr.Verdict{Kind: expr.VerdictReturn}} }

// drop counts what it drops, for whoever lists the ruleset.
func drop() part { return part{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}} }
