package fleet

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"
)

func TestLimiterCountsBySource(t *testing.T) {
	now := time.Unix(1e9, 0)
	l := limiter{now: func() time.Time { return now }}
	bad, good := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	for range failureBurst {
		if !l.allowed(bad) {
			t.Fatal("refused too early")
		}
		l.failed(bad)
	}
	if l.allowed(bad) || !l.allowed(good) {
		t.Fatal("the wrong source is refused")
	}
	now = now.Add(-time.Hour)
	if l.allowed(bad) {
		t.Fatal("a clock that steps back forgives")
	}
	now = now.Add(time.Hour + failureRefill)
	if !l.allowed(bad) {
		t.Fatal("nothing is forgiven")
	}
	six, neighbour, far := netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2"), netip.MustParseAddr("fd00:0:0:1::1")
	for range failureBurst {
		l.failed(six)
	}
	if l.allowed(neighbour) || !l.allowed(far) {
		t.Fatal("IPv6 is not counted by /64")
	}
}

func TestLimiterIsBounded(t *testing.T) {
	now := time.Unix(1e9, 0)
	l := limiter{now: func() time.Time { return now }}
	for i := range uint32(3 * maxSources) {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], i)
		l.failed(netip.AddrFrom4(b))
	}
	if n := len(l.accounts); n > maxSources+1 {
		t.Fatalf("%d accounts", n)
	}
	now = now.Add(time.Hour)
	l.failed(netip.AddrFrom4([4]byte{10, 0, 0, 1}))
	if n := len(l.accounts); n > 2 {
		t.Fatalf("%d accounts are left after an hour", n)
	}
}

func TestCleanText(t *testing.T) {
	for in, want := range map[string]string{
		"alice": "alice", "a\x00b\nc\x1b[31m": "abc[31m", "\xff\xfea": "a", "äöü": "äö",
	} {
		limit := 8
		if in == "äöü" {
			limit = 5
		}
		if got := cleanText(in, limit); got != want {
			t.Errorf("cleanText(%q) = %q, want %q", in, got, want)
		}
	}
}
