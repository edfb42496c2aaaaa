package desired

import (
	"encoding/binary"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/cordon-security/cordon/internal/guard"
)

// BenchmarkOpen100k reads 100,000 quarantines of a MAC and an address.
func BenchmarkOpen100k(b *testing.B) {
	dir := b.TempDir()
	log := slog.New(slog.DiscardHandler)
	s, err := Open(dir, log)
	if err != nil {
		b.Fatal(err)
	}
	ops := []Operation{Degrade("")}
	for i := range uint32(100_000) {
		m := guard.MAC(binary.BigEndian.AppendUint32([]byte{2, 0}, i))
		ops = append(ops, Put(&Quarantine{ID: "01936000-0000-7000-8000-" + m.String(), MACs: []guard.MAC{m}, Access: AccessNone, Reason: "benchmark", Accepted: 1}),
			Bind(Binding{Address: netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 10<<24+i))), MAC: m, Seen: time.Unix(1, 0)}))
	}
	if err := s.Commit(ops...); err != nil {
		b.Fatal(err)
	}
	_ = s.Close()
	for b.Loop() {
		s, err := Open(dir, log)
		if err != nil || s.Len() != 100_000 {
			b.Fatal(err)
		}
		_ = s.Close()
	}
}
