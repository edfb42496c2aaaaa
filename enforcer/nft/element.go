package nft

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// key is an element's key and its length in bytes: 6 (MAC), 4 or 16.
type key struct {
	b [16]byte
	n uint8
}

func (k *key) bytes() []byte { return k.b[:k.n] }

// place names one set of ours.
type place struct {
	family byte
	set    string
}

// edit is one element that goes into a set or out of it.
type edit struct {
	place
	key key
	del bool
}

func nftType(kind uint16) uint16 { return unix.NFNL_SUBSYS_NFTABLES<<8 | kind }

const (
	// maxElements bounds the nested list of elements, whose length is 16 bits.
	maxElements = 60000
	// maxBatch bounds one transaction, far below the socket's buffer.
	maxBatch = 2 << 20
	// maxQuestions bounds how many single elements are asked for in one go, so
	// that the answers fit the socket's buffer.
	maxQuestions = 512
)

// commit carries out edits in one transaction each maxBatch bytes: all of a
// transaction or nothing. Neighbouring edits of one set share a message.
func (s *socket) commit(edits []edit) error {
	var o outgoing
	for len(edits) > 0 {
		o.reset()
		s.seq++
		o.begin(unix.NFNL_MSG_BATCH_BEGIN, unix.NLM_F_REQUEST, s.seq, 0, unix.NFNL_SUBSYS_NFTABLES)
		o.end()
		first := s.seq + 1
		for len(edits) > 0 && len(o.b) < maxBatch {
			edits = s.message(&o, edits)
		}
		count := s.seq + 1 - first
		s.seq++
		o.begin(unix.NFNL_MSG_BATCH_END, unix.NLM_F_REQUEST, s.seq, 0, unix.NFNL_SUBSYS_NFTABLES)
		o.end()
		if err := s.send(o.b); err != nil {
			return fmt.Errorf("send %d bytes to nf_tables: %w", len(o.b), err)
		}
		if err := s.acknowledged(first, count); err != nil {
			return err
		}
	}
	return nil
}

// message writes one message of the first edits and returns the others.
func (s *socket) message(o *outgoing, edits []edit) []edit {
	first := edits[0]
	s.seq++
	kind, flags := uint16(unix.NFT_MSG_NEWSETELEM), uint16(unix.NLM_F_REQUEST|unix.NLM_F_ACK|unix.NLM_F_CREATE)
	if first.del {
		kind, flags = unix.NFT_MSG_DELSETELEM, unix.NLM_F_REQUEST|unix.NLM_F_ACK
	}
	o.begin(nftType(kind), flags, s.seq, first.family, 0)
	o.text(unix.NFTA_SET_ELEM_LIST_TABLE, tableName)
	o.text(unix.NFTA_SET_ELEM_LIST_SET, first.set)
	list := o.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	for len(edits) > 0 && edits[0].place == first.place && edits[0].del == first.del && len(o.b)-list < maxElements {
		o.element(&edits[0].key)
		edits = edits[1:]
	}
	o.unnest(list)
	o.end()
	return edits
}

func (o *outgoing) element(k *key) {
	elem := o.nest(unix.NFTA_LIST_ELEM)
	value := o.nest(unix.NFTA_SET_ELEM_KEY)
	o.attribute(unix.NFTA_DATA_VALUE, k.bytes(), false)
	o.unnest(value)
	o.unnest(elem)
}

// acknowledged reads the answers to count messages from seq first on. All are
// read also after an error, so that the next transaction starts clean.
func (s *socket) acknowledged(first, count uint32) error {
	var failed error
	for answers := uint32(0); answers < count; {
		err := s.receive(func(m message) error {
			if m.kind != unix.NLMSG_ERROR || int32(m.seq-(first-1)) < 0 {
				return nil
			}
			err := m.errno()
			if m.seq-first >= count {
				// The batch as a whole was refused: no further answer comes.
				answers = count
			} else {
				answers++
			}
			if failed == nil && err != nil {
				failed = fmt.Errorf("nf_tables: %w", err)
			}
			if errors.Is(err, unix.EPERM) {
				answers = count
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("%w: %w", errUnknownState, err)
		}
	}
	return failed
}

// question asks whether a key is in a set.
type question struct {
	place
	key key
}

// present answers questions, each by asking the kernel for that one element. A
// set that is not there holds nothing.
func (s *socket) present(questions []question) ([]bool, error) {
	out := make([]bool, len(questions))
	var o outgoing
	for start := 0; start < len(questions); start += maxQuestions {
		chunk := questions[start:min(start+maxQuestions, len(questions))]
		o.reset()
		first := s.seq + 1
		for i := range chunk {
			s.seq++
			o.begin(nftType(unix.NFT_MSG_GETSETELEM), unix.NLM_F_REQUEST, s.seq, chunk[i].family, 0)
			o.text(unix.NFTA_SET_ELEM_LIST_TABLE, tableName)
			o.text(unix.NFTA_SET_ELEM_LIST_SET, chunk[i].set)
			list := o.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
			o.element(&chunk[i].key)
			o.unnest(list)
			o.end()
		}
		if err := s.send(o.b); err != nil {
			return nil, fmt.Errorf("ask nf_tables: %w", err)
		}
		if err := s.answers(first, out[start:start+len(chunk)]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (s *socket) answers(first uint32, out []bool) error {
	var failed error
	for got := 0; got < len(out); {
		err := s.receive(func(m message) error {
			i := m.seq - first
			if i >= uint32(len(out)) {
				return nil
			}
			got++
			if m.kind != unix.NLMSG_ERROR {
				out[i] = m.kind == nftType(unix.NFT_MSG_NEWSETELEM)
				return nil
			}
			if err := m.errno(); err != nil && !errors.Is(err, unix.ENOENT) && failed == nil {
				failed = fmt.Errorf("ask nf_tables for an element: %w", err)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("%w: %w", errUnknownState, err)
		}
	}
	return failed
}

// errChanging says that a set could not be listed as it stood at one moment.
var errChanging = errors.New("others change nf_tables faster than it can be listed")

const maxTries = 5

// list calls each with every key of a set. It returns ENOENT when the set is
// not there. A set that changed meanwhile is listed again, up to maxTries times;
// what was listed before an error means nothing.
func (s *socket) list(p place, begin func(), each func(key)) error {
	for range maxTries {
		begin()
		before, err := s.generation()
		if err != nil {
			return err
		}
		interrupted, err := s.listOnce(p, each)
		if err != nil {
			return err
		}
		after, err := s.generation()
		if err != nil || before == after && !interrupted {
			return err
		}
	}
	return fmt.Errorf("list set %s: %w", p.set, errChanging)
}

// generation is the number of nf_tables' last transaction, whoever made it. The
// kernel does not mark dumps of elements that a transaction interrupted.
func (s *socket) generation() (uint32, error) {
	var o outgoing
	s.seq++
	o.begin(nftType(unix.NFT_MSG_GETGEN), unix.NLM_F_REQUEST, s.seq, unix.AF_UNSPEC, 0)
	o.end()
	if err := s.send(o.b); err != nil {
		return 0, fmt.Errorf("ask nf_tables for its generation: %w", err)
	}
	var id uint32
	var failed error
	for answered := false; !answered; {
		err := s.receive(func(m message) error {
			if m.seq != s.seq {
				return nil
			}
			answered = true
			if m.kind == unix.NLMSG_ERROR {
				failed = m.errno()
				return nil
			}
			if len(m.data) < 4 {
				failed = errUnknownState
				return nil
			}
			attributes(m.data[4:], func(kind uint16, value []byte) {
				if kind == unix.NFTA_GEN_ID && len(value) == 4 {
					id = binary.BigEndian.Uint32(value)
				}
			})
			return nil
		})
		if err != nil {
			return 0, fmt.Errorf("ask nf_tables for its generation: %w: %w", errUnknownState, err)
		}
	}
	if failed != nil {
		return 0, fmt.Errorf("ask nf_tables for its generation: %w", failed)
	}
	return id, nil
}

func (s *socket) listOnce(p place, each func(key)) (interrupted bool, err error) {
	var o outgoing
	s.seq++
	o.begin(nftType(unix.NFT_MSG_GETSETELEM), unix.NLM_F_REQUEST|unix.NLM_F_DUMP, s.seq, p.family, 0)
	o.text(unix.NFTA_SET_ELEM_LIST_TABLE, tableName)
	o.text(unix.NFTA_SET_ELEM_LIST_SET, p.set)
	o.end()
	if err := s.send(o.b); err != nil {
		return false, fmt.Errorf("list set %s: %w", p.set, err)
	}
	done := false
	for !done {
		err := s.receive(func(m message) error {
			if m.seq != s.seq {
				return nil
			}
			interrupted = interrupted || m.flags&unix.NLM_F_DUMP_INTR != 0
			switch m.kind {
			case unix.NLMSG_DONE:
				done = true
				return m.errno()
			case unix.NLMSG_ERROR:
				done = true
				return m.errno()
			}
			elements(m.data, each)
			return nil
		})
		if err != nil && done {
			return false, fmt.Errorf("list set %s: %w", p.set, err)
		}
		if err != nil {
			return false, fmt.Errorf("list set %s: %w: %w", p.set, errUnknownState, err)
		}
	}
	return interrupted, nil
}

// elements takes the keys out of a message of set elements.
func elements(data []byte, each func(key)) {
	if len(data) < 4 {
		return
	}
	attributes(data[4:], func(kind uint16, list []byte) {
		if kind != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			return
		}
		attributes(list, func(_ uint16, elem []byte) {
			attributes(elem, func(kind uint16, k []byte) {
				if kind != unix.NFTA_SET_ELEM_KEY {
					return
				}
				attributes(k, func(_ uint16, value []byte) {
					if len(value) > 16 {
						return
					}
					var out key
					out.n = uint8(copy(out.b[:], value))
					each(out)
				})
			})
		})
	})
}
