package desired

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// The journal is a header and records. A record is its mark, the length of its
// payload, a CRC-32C over length and payload (both little endian), and the
// payload: operations. The records up to and with the one that holds the base
// mark are the compacted set; a journal without them is not whole.
const (
	header     = "cordon desired set 1\n"
	mark       = "\xc0RD\x01"
	frameLen   = len(mark) + 8
	maxPayload = 1 << 28
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrCorrupt says that the journal is damaged where a crash cannot have
// damaged it.
var ErrCorrupt = errors.New("the journal of the desired set is damaged")

// seal puts the frame before the payload that stands in b after frameLen bytes.
func seal(b []byte) []byte {
	copy(b, mark)
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)-frameLen))
	binary.LittleEndian.PutUint32(b[8:], checksum(b[4:8], b[frameLen:]))
	return b
}

func checksum(length, payload []byte) uint32 {
	return crc32.Update(crc32.Checksum(length, castagnoli), castagnoli, payload)
}

// loaded is what was read of a journal.
type loaded struct {
	state *State
	// good is how many bytes from the start are whole records.
	good int64
	// base is where the compacted set ends.
	base int64
	// torn is how many bytes after good were an unfinished last record.
	torn int64
}

const (
	// perQuarantine is about how many bytes a quarantine with an address has in a
	// compacted journal.
	perQuarantine = 150
	// maxSized bounds what a journal's size alone can cost.
	maxSized = 1 << 18
)

// load reads a journal of about size bytes. An unfinished last record is what a crash leaves, it
// was never acknowledged, and it is left out. With ErrCorrupt, the state is what
// could be read before the damage.
func load(r io.Reader, size int64) (loaded, error) {
	l := loaded{state: sizedState(int(min(size/perQuarantine, maxSized)))}
	in := bufio.NewReaderSize(r, 1<<16)
	head := make([]byte, len(header))
	if _, err := io.ReadFull(in, head); err != nil || string(head) != header {
		return l, fmt.Errorf("%w: it does not begin as one", ErrCorrupt)
	}
	l.good = int64(len(header))
	var buf []byte
	for {
		payload, raw, err := next(in, buf[:0])
		if err != nil {
			return l, l.end(in, raw, err)
		}
		buf = payload
		based := false
		if err := decode(payload, func(op Operation) {
			based = based || op.kind == kindBase
			l.state.apply(op)
		}); err != nil {
			return l, fmt.Errorf("%w at byte %d: %w", ErrCorrupt, l.good, err)
		}
		l.good += int64(frameLen + len(payload))
		if based {
			l.base = l.good
		}
	}
}

// end judges why no further record could be read.
func (l *loaded) end(in io.Reader, raw []byte, err error) error {
	rest, readErr := io.ReadAll(io.LimitReader(in, maxPayload))
	if readErr != nil {
		return fmt.Errorf("%w: read: %w", ErrCorrupt, readErr)
	}
	rest = append(raw, rest...)
	l.torn = int64(len(rest))
	switch {
	case l.base == 0:
		return fmt.Errorf("%w: it ends within its compacted set", ErrCorrupt)
	case len(rest) == 0 && errors.Is(err, io.EOF):
		return nil
	case holdsRecord(rest[min(1, len(rest)):]):
		return fmt.Errorf("%w at byte %d, with whole records after it", ErrCorrupt, l.good)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, errRecord):
		return nil
	}
	return fmt.Errorf("%w: read: %w", ErrCorrupt, err)
}

var errRecord = errors.New("no whole record")

// next reads one record into buf. When it fails, raw is what it consumed.
func next(in io.Reader, buf []byte) (payload, raw []byte, err error) {
	var frame [frameLen]byte
	n, err := io.ReadFull(in, frame[:])
	if err != nil {
		return nil, frame[:n:n], err
	}
	length := binary.LittleEndian.Uint32(frame[4:])
	if string(frame[:4]) != mark || length > maxPayload {
		return nil, frame[:], errRecord
	}
	buf, err = readFull(in, buf, int(length))
	if err != nil {
		return nil, append(frame[:], buf...), err
	}
	if binary.LittleEndian.Uint32(frame[8:]) != checksum(frame[4:8], buf) {
		return nil, append(frame[:], buf...), errRecord
	}
	return buf, nil, nil
}

// readFull reads n bytes into buf, which grows as they come, so that a length
// that lies costs nothing.
func readFull(in io.Reader, buf []byte, n int) ([]byte, error) {
	for len(buf) < n {
		at := len(buf)
		step := min(n-at, 1<<20)
		buf = append(buf, make([]byte, step)...)
		got, err := io.ReadFull(in, buf[at:])
		if err != nil {
			return buf[:at+got], err
		}
	}
	return buf, nil
}

// holdsRecord reports whether a whole record stands anywhere in b.
func holdsRecord(b []byte) bool {
	for {
		i := bytes.Index(b, []byte(mark))
		if i < 0 {
			return false
		}
		b = b[i:]
		if _, _, err := next(bytes.NewReader(b), nil); err == nil {
			return true
		}
		b = b[1:]
	}
}
