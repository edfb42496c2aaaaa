package suricata

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
)

// headSize is how much of a file's beginning tells it from another that has the
// same inode number: the first record's time and flow number are in it.
const headSize = 256

// cursor is where to resume: behind Offset bytes of the file that has this inode
// and begins with these bytes.
type cursor struct {
	Dev    uint64 `json:"dev"`
	Inode  uint64 `json:"inode"`
	Offset int64  `json:"offset"`
	// HeadLen is min(Offset, headSize), HeadSum the SHA-256 of that many bytes.
	HeadLen int    `json:"head_len"`
	HeadSum []byte `json:"head_sum,omitempty"`
}

func (c cursor) encode() []byte {
	b, err := json.Marshal(c)
	if err != nil {
		panic("a struct of numbers and bytes always encodes: " + err.Error())
	}
	return b
}

func decodeCursor(b []byte) (cursor, error) {
	var c cursor
	if err := json.Unmarshal(b, &c); err != nil {
		return c, fmt.Errorf("the stored cursor cannot be read: %w", err)
	}
	if c.Offset < 0 || c.HeadLen < 0 || c.HeadLen > headSize || int64(c.HeadLen) > c.Offset {
		return c, fmt.Errorf("the stored cursor is not consistent: offset %d, head of %d bytes", c.Offset, c.HeadLen)
	}
	return c, nil
}

// headMatches reports whether the file begins as the cursor's did and reaches as
// far as the cursor.
func (c cursor) headMatches(file io.ReaderAt, size int64) bool {
	if size < c.Offset || c.HeadLen == 0 {
		return false
	}
	head := make([]byte, c.HeadLen)
	if _, err := file.ReadAt(head, 0); err != nil {
		return false
	}
	sum := sha256.Sum256(head)
	return bytes.Equal(sum[:], c.HeadSum)
}

// isFile reports whether the cursor points into this very file. Device numbers
// change over restarts, so they count only where there is no content to compare.
func (c cursor) isFile(f *openFile, size int64) bool {
	if c.Inode != f.inode {
		return false
	}
	if c.HeadLen == 0 {
		return c.Dev == f.dev && c.Offset == 0
	}
	return c.headMatches(f.file, size)
}
