package desired

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/cordon-security/cordon/internal/guard"
)

type kind byte

const (
	kindRevision kind = 1 + iota
	kindPut
	kindRemove
	kindAccept
	kindBegun
	kindBind
	kindUnbind
	kindDegraded
	kindBase
	kindClaim
	kindConcede
)

// Operation is one change of the desired set. Several that are committed
// together are durable together or not at all.
type Operation struct {
	kind       kind
	quarantine *Quarantine
	id         string
	mac        guard.MAC
	address    [16]byte
	at         int64
	until      int64
	revision   Revision
}

// SetRevision makes r the revision that is held.
func SetRevision(r Revision) Operation { return Operation{kind: kindRevision, revision: r} }

// Put makes q the quarantine with its id.
func Put(q *Quarantine) Operation { return Operation{kind: kindPut, quarantine: q} }

// Remove takes the quarantine with this id away; one that is not there is no
// error.
func Remove(id string) Operation { return Operation{kind: kindRemove, id: id} }

// Accept records that the guard let a quarantine in.
func Accept(id string, at time.Time) Operation {
	return Operation{kind: kindAccept, id: id, at: at.UnixNano()}
}

// Bind gives an address to a quarantined MAC, and takes it from another.
func Bind(b Binding) Operation {
	return Operation{kind: kindBind, mac: b.MAC, address: b.Address.As16(), at: b.Seen.UnixNano()}
}

// Unbind takes an address from the quarantined MAC that holds it.
func Unbind(a netip.Addr) Operation { return Operation{kind: kindUnbind, address: a.As16()} }

// Dispute notes that a quarantined MAC claims an address that was another's. It
// ends with Bind, with Concede, or with the MAC's last quarantine.
func Dispute(c Claim) Operation {
	op := Bind(c.Binding)
	op.kind, op.until = kindClaim, c.Until.UnixNano()
	return op
}

// Concede drops a claim.
func Concede(c Claim) Operation {
	return Operation{kind: kindConcede, mac: c.MAC, address: c.Address.As16()}
}

// Degrade says why the set is not whole; an empty reason says that it is again.
func Degrade(why string) Operation { return Operation{kind: kindDegraded, id: why} }

func (s *State) apply(op Operation) {
	switch op.kind {
	case kindRevision:
		s.revision = op.revision
	case kindPut:
		s.put(op.quarantine)
	case kindRemove:
		s.remove(op.id)
	case kindAccept:
		s.accept(op.id, op.at)
	case kindBegun:
		s.begun[op.mac] = op.at
	case kindBind:
		s.bind(op.mac, op.address, op.at)
	case kindUnbind:
		s.unbind(op.address)
	case kindClaim:
		s.claim(op.mac, claimed{bound{op.address, op.at}, op.until})
	case kindConcede:
		s.concede(op.mac, op.address)
	case kindDegraded:
		s.degraded = op.id
	}
}

func (op Operation) append(b []byte) []byte {
	b = append(b, byte(op.kind))
	switch op.kind {
	case kindRevision:
		b = binary.AppendUvarint(b, op.revision.Epoch)
		return binary.AppendUvarint(b, op.revision.Number)
	case kindPut:
		return op.quarantine.append(b)
	case kindRemove, kindDegraded:
		return appendText(b, op.id)
	case kindAccept:
		return binary.AppendVarint(appendText(b, op.id), op.at)
	case kindBegun:
		return binary.AppendVarint(append(b, op.mac[:]...), op.at)
	case kindBind:
		return binary.AppendVarint(append(append(b, op.mac[:]...), op.address[:]...), op.at)
	case kindUnbind:
		return append(b, op.address[:]...)
	case kindClaim:
		b = binary.AppendVarint(append(append(b, op.mac[:]...), op.address[:]...), op.at)
		return binary.AppendVarint(b, op.until)
	case kindConcede:
		return append(append(b, op.mac[:]...), op.address[:]...)
	}
	return b
}

func (q *Quarantine) append(b []byte) []byte {
	b = appendText(b, q.ID)
	b = append(b, byte(q.Access))
	b = appendText(b, q.Reason)
	b = appendText(b, q.Fault)
	b = binary.AppendVarint(b, q.Expires)
	b = binary.AppendVarint(b, q.Accepted)
	b = binary.AppendUvarint(b, uint64(len(q.MACs)))
	for _, m := range q.MACs {
		b = append(b, m[:]...)
	}
	return b
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

var errOperation = errors.New("malformed operation")

// decode reads the operations of one record and hands each to apply.
func decode(payload []byte, apply func(Operation)) error {
	r := reader{b: payload}
	for len(r.b) > 0 {
		op := r.operation()
		if r.bad {
			return fmt.Errorf("%w at %d bytes before the record's end", errOperation, len(r.b))
		}
		apply(op)
	}
	return nil
}

// reader takes values off a record; bad is set by the first that does not fit.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) operation() Operation {
	op := Operation{kind: kind(r.byte())}
	switch op.kind {
	case kindRevision:
		op.revision = Revision{r.uvarint(), r.uvarint()}
	case kindPut:
		op.quarantine = r.quarantine()
	case kindRemove, kindDegraded:
		op.id = r.text()
	case kindAccept:
		op.id, op.at = r.text(), r.varint()
	case kindBegun:
		op.mac, op.at = r.mac(), r.varint()
	case kindBind:
		op.mac, op.address, op.at = r.mac(), r.address(), r.varint()
	case kindUnbind:
		op.address = r.address()
	case kindClaim:
		op.mac, op.address, op.at, op.until = r.mac(), r.address(), r.varint(), r.varint()
	case kindConcede:
		op.mac, op.address = r.mac(), r.address()
	case kindBase:
	default:
		r.bad = true
	}
	return op
}

func (r *reader) quarantine() *Quarantine {
	q := &Quarantine{
		ID: r.text(), Access: Access(r.byte()), Reason: r.text(), Fault: r.text(),
		Expires: r.varint(), Accepted: r.varint(),
	}
	n := r.uvarint()
	if n > MaxMACs {
		r.bad = true
		return q
	}
	q.MACs = make([]guard.MAC, 0, n)
	for range n {
		// A MAC counts once, whatever the journal says.
		if m := r.mac(); !slices.Contains(q.MACs, m) {
			q.MACs = append(q.MACs, m)
		}
	}
	return q
}

func (r *reader) take(n uint64) []byte {
	if r.bad || n > uint64(len(r.b)) {
		r.bad = true
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) text() string { return string(r.take(r.uvarint())) }

func (r *reader) mac() (m guard.MAC) {
	copy(m[:], r.take(6))
	return m
}

func (r *reader) address() (a [16]byte) {
	copy(a[:], r.take(16))
	return a
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}
