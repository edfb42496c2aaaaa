// Package event holds the normalised record of what a data source detected, and
// the decision which side of it is ours and what part that side played. It is
// pure: it reads nothing, stores nothing and knows no data source.
package event

import (
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/cordon-security/cordon/mitigator/endpoint"
)

// IANA protocol numbers that the rules know.
const (
	ProtoICMP   uint8 = 1
	ProtoTCP    uint8 = 6
	ProtoUDP    uint8 = 17
	ProtoICMPv6 uint8 = 58
)

// Side is one side of the packet that a data source took offence at.
type Side uint8

// The sides. SrcSide sent the packet, DstSide was to receive it.
const (
	UnknownSide Side = iota
	SrcSide
	DstSide
)

// Other is the opposite side; that of UnknownSide is UnknownSide.
func (s Side) Other() Side {
	switch s {
	case SrcSide:
		return DstSide
	case DstSide:
		return SrcSide
	}
	return UnknownSide
}

// Target is what a signature's author says is attacked, reduced to the end of
// the flow that it sits on.
type Target uint8

// The targets.
const (
	// TargetUnknown: the metadata says nothing that helps.
	TargetUnknown Target = iota
	// TargetClient is attacked through a connection that it opened.
	TargetClient
	// TargetServer is attacked through a connection that it accepted.
	TargetServer
)

// Key identifies a record of one source, so that it is stored once however
// often it arrives.
type Key [16]byte

// FileKey identifies a record by where it stands: the file's inode, the offset
// of its first byte and its bytes. Equal lines at two offsets are two records;
// an inode that is used again for other content gives other keys.
func FileKey(source string, inode, offset uint64, raw []byte) Key {
	place := binary.BigEndian.AppendUint64(nil, inode)
	place = binary.BigEndian.AppendUint64(place, offset)
	return key("file", source, place, raw)
}

// StreamKey identifies a record by its bytes alone: a stream has no offsets that
// outlive it. Detectors write their time in microseconds and the flow's number
// into every record, so equal bytes are the same record sent again.
func StreamKey(source string, raw []byte) Key {
	return key("stream", source, nil, raw)
}

func key(kind, source string, place, raw []byte) Key {
	b := make([]byte, 0, len(kind)+len(source)+len(place)+len(raw)+2)
	b = append(append(b, kind...), 0)
	b = append(append(b, source...), 0)
	b = append(append(b, place...), raw...)
	sum := sha256.Sum256(b)
	return Key(sum[:16])
}

// Event is one record from a data source, normalised. Slices are not shared
// with the source after delivery; treat it as read-only.
type Event struct {
	// Source is the configured name of the data source.
	Source string
	Key    Key
	// Time is the data source's own, Received is ours; both UTC.
	Time     time.Time
	Received time.Time
	// Kind is one kind of badness, "suricata:1:2024897". Events of one kind on one
	// endpoint feed one threat.
	Kind        string
	Signature   string
	Category    string
	GID         uint32
	SignatureID uint32
	Rev         uint32
	Severity    Severity

	// Proto is the IANA protocol number; 0 when the source named none.
	Proto uint8
	// Src sent the packet that matched, Dst was to receive it. Either may be
	// invalid (the source named none); the port is 0 where there is none.
	Src netip.AddrPort
	Dst netip.AddrPort
	// SrcMAC and DstMAC are those of the frame that the sensor saw; zero when it
	// recorded none.
	SrcMAC endpoint.MAC
	DstMAC endpoint.MAC

	// FlowID is the source's number for the flow; 0 when it gave none.
	FlowID    uint64
	FlowStart time.Time
	// Initiator opened the flow.
	Initiator Side
	// InitiatorGuessed: the source did not say who opened the flow; it was
	// concluded from the ports.
	InitiatorGuessed bool
	// Established: both sides demonstrably took part. Set for TCP only; see
	// EstablishedTCP.
	Established bool

	// Victim is the side that the signature itself names as the target.
	Victim Side
	// Target is what the signature's metadata says is attacked.
	Target Target
	// Compromise: the signature shows a machine that is already compromised and
	// acts (command and control, exfiltration, mining). CompromiseBy says what
	// in the record says so.
	Compromise   bool
	CompromiseBy string
	// Attempt: the signature matches an attack on its way to the receiver of the
	// packet.
	Attempt bool

	AppProto string
	// Domain is the name that was asked for: DNS question, TLS SNI or HTTP host.
	Domain string
	URL    string
	// Raw is the record as it came, without the line's end.
	Raw []byte
}

// Disposition is what became of an event at the intake.
type Disposition string

// The dispositions. Every event has one and is logged with it; none is dropped.
const (
	// Threat: a side is ours and nothing speaks against it.
	Threat Disposition = "threat"
	// Kept: neither side is ours.
	Kept Disposition = "kept"
	// Filtered: below the severity or outside the signatures that the
	// configuration lets pass.
	Filtered Disposition = "filtered"
	// Excepted: an exception of the configuration names it.
	Excepted Disposition = "excepted"
)

// Classified is an event and what the intake made of it.
type Classified struct {
	Event
	Disposition Disposition
	// Reason says in words why; empty for Threat.
	Reason string
	// Locals are the sides that are ours: none, one, or both where one of our
	// machines attacks another. Set for every disposition but Kept.
	Locals []Local
}

// Record is a classified event as the store keeps it.
type Record struct {
	Classified
	// ID is the store's, ascending.
	ID int64
	// ThreatID is what it fed; 0 for none.
	ThreatID int64
}

// Reject is a record that could not be read.
type Reject struct {
	// Key identifies it like an event's.
	Key Key
	// Reason in words.
	Reason string
	// Raw is the record's beginning, at most MaxRejectRaw bytes.
	Raw []byte
	// Size is the whole record's length in bytes, as far as it is known.
	Size int64
	// Received is our time, UTC.
	Received time.Time
}

// MaxRejectRaw is how much of an unreadable record is kept aside.
const MaxRejectRaw = 4096
