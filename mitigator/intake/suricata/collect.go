package suricata

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/cordon-security/cordon/mitigator/event"
	"github.com/cordon-security/cordon/mitigator/intake"
)

// collector gathers parsed lines into one arrival.
type collector struct {
	source  string
	now     func() time.Time
	arrival intake.Arrival
}

// full reports whether the next line belongs to the next arrival.
func (c *collector) full() bool {
	return len(c.arrival.Events) >= intake.MaxBatch || len(c.arrival.Rejects) >= intake.MaxBatch
}

// empty reports whether there is nothing that must be stored.
func (c *collector) empty() bool { return len(c.arrival.Events) == 0 && len(c.arrival.Rejects) == 0 }

// take hands the arrival over and begins the next.
func (c *collector) take() intake.Arrival {
	a := c.arrival
	c.arrival = intake.Arrival{}
	return a
}

// add parses a line without its end; key is called for what is kept. Blank lines
// are no records.
func (c *collector) add(line []byte, key func([]byte) event.Key) {
	line = bytes.TrimSuffix(line, []byte("\r"))
	if len(bytes.TrimSpace(line)) == 0 {
		return
	}
	e, err := Parse(line)
	switch {
	case errors.Is(err, ErrNotAlert):
		c.arrival.Ignored++
	case err != nil:
		c.reject(line, int64(len(line)), err.Error(), key)
	default:
		e.Source, e.Key, e.Received = c.source, key(line), c.now().UTC()
		c.arrival.Events = append(c.arrival.Events, e)
	}
}

// tooLong notes a record above MaxLine, of which only the beginning is there.
func (c *collector) tooLong(beginning []byte, size int64, key func([]byte) event.Key) {
	c.reject(beginning, size, fmt.Sprintf("the record has %d bytes, the limit is %d", size, MaxLine), key)
}

func (c *collector) reject(raw []byte, size int64, why string, key func([]byte) event.Key) {
	kept := bytes.Clone(raw[:min(len(raw), event.MaxRejectRaw)])
	c.arrival.Rejects = append(c.arrival.Rejects, event.Reject{
		Key: key(raw), Reason: clean(why), Raw: kept, Size: size, Received: c.now().UTC(),
	})
}

// splitter cuts a stream of bytes into lines and keeps no more than MaxLine of
// one. The zero value is ready.
type splitter struct {
	buf []byte
	// scanned is how much of buf holds no line end.
	scanned int
	// skipped counts bytes of the current line that were thrown away; the line is
	// over-long when it is not 0, and buf then is its beginning.
	skipped int64
}

// line is one record, or the beginning of an over-long one.
type line struct {
	raw []byte
	// size without the line end; above len(raw) when over-long.
	size int64
	long bool
}

// write appends what was read.
func (s *splitter) write(p []byte) {
	if s.skipped == 0 {
		s.buf = append(s.buf, p...)
		return
	}
	end := bytes.IndexByte(p, '\n')
	if end < 0 {
		s.skipped += int64(len(p))
		return
	}
	s.skipped += int64(end)
	s.buf = append(s.buf, p[end:]...)
	s.scanned = event.MaxRejectRaw
}

// next cuts off the next whole line; its bytes are valid until the next write.
func (s *splitter) next() (line, bool) {
	end := bytes.IndexByte(s.buf[s.scanned:], '\n')
	if end < 0 {
		s.scanned = len(s.buf)
		if len(s.buf) > MaxLine && s.skipped == 0 {
			s.skipped = int64(len(s.buf) - event.MaxRejectRaw)
			s.buf = append([]byte(nil), s.buf[:event.MaxRejectRaw]...)
			s.scanned = len(s.buf)
		}
		return line{}, false
	}
	end += s.scanned
	l := line{raw: s.buf[:end], size: int64(end) + s.skipped, long: s.skipped > 0 || end > MaxLine}
	s.buf, s.scanned, s.skipped = s.buf[end+1:], 0, 0
	return l, true
}

// rest is the last line, that had no end; ok is false when there is none.
func (s *splitter) rest() (l line, ok bool) {
	l = line{raw: s.buf, size: int64(len(s.buf)) + s.skipped, long: s.skipped > 0}
	*s = splitter{}
	return l, l.size > 0
}

// held is how many bytes were written and not handed out yet.
func (s *splitter) held() int64 { return int64(len(s.buf)) + s.skipped }
