package desired

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cordon-security/cordon/internal/guard"
)

func mac(n byte) guard.MAC { return guard.MAC{2, 0, 0, 0, 0, n} }

func quarantine(n byte) *Quarantine {
	return &Quarantine{ID: fmt.Sprintf("q%d", n), MACs: []guard.MAC{mac(n)}, Access: AccessNone, Reason: "test",
		Accepted: int64(n), Expires: int64(n) << 40}
}

func binding(address string, n byte) Binding {
	return Binding{Address: netip.MustParseAddr(address), MAC: mac(n), Seen: time.Unix(int64(n), 0).UTC()}
}

func openStore(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func commit(t *testing.T, s *Store, ops ...Operation) {
	t.Helper()
	if err := s.Commit(ops...); err != nil {
		t.Fatal(err)
	}
}

// content is a state as comparable text.
func content(s *State) string {
	var lines []string
	s.Each(func(q *Quarantine) {
		lines = append(lines, fmt.Sprintf("%s %v %s %q %q %d %d %v %v", q.ID, q.MACs, q.Access, q.Reason, q.Fault, q.Expires, q.Accepted, s.Bindings(q.MACs[0]), s.Claims(q.MACs[0])))
	})
	slices.Sort(lines)
	return fmt.Sprintf("%s %q %d\n%s", s.Revision(), s.Degraded(), s.Accepted(), strings.Join(lines, "\n"))
}

// filled commits three orders and returns the store.
func filled(t *testing.T, dir string) *Store {
	t.Helper()
	s := openStore(t, dir)
	held := quarantine(3)
	held.Accepted = 0
	commit(t, s, Degrade(""))
	commit(t, s, SetRevision(Revision{1, 1}), Put(quarantine(1)), Put(quarantine(2)), Put(held))
	commit(t, s, SetRevision(Revision{1, 2}), Remove("q2"), Remove("never there"))
	commit(t, s, SetRevision(Revision{1, 3}), Bind(binding("10.0.0.1", 1)), Bind(binding("fd00::1", 1)),
		Dispute(Claim{binding("10.0.0.9", 1), time.Unix(99, 0)}), Dispute(Claim{binding("10.0.0.8", 1), time.Unix(98, 0)}), Accept("q3", time.Unix(9, 0)))
	return s
}

func TestSurvivesRestart(t *testing.T) {
	dir := t.TempDir()
	s := filled(t, dir)
	want := content(s.State)
	begun := s.Begun(time.Unix(0, 0))
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openStore(t, dir)
		if got := content(s.State); got != want {
			t.Errorf("after a restart\n%s\nwant\n%s", got, want)
		}
		if got := s.Begun(time.Unix(0, 0)); len(got) != len(begun) {
			t.Errorf("the cap's history has %d entries, want %d", len(got), len(begun))
		}
		s.rewrite()
	}
	if s.Alarm() != "" || s.Fresh() {
		t.Errorf("alarm %q, fresh %t", s.Alarm(), s.Fresh())
	}
}

// TestNewJournalIsNotWhole: until somebody looked at what is in force, a journal
// that was just made gives no right to release, however often it is opened.
func TestNewJournalIsNotWhole(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		s := openStore(t, dir)
		if !s.Fresh() || s.Degraded() == "" || s.Alarm() == "" {
			t.Fatalf("fresh %t, degraded %q", s.Fresh(), s.Degraded())
		}
		_ = s.Close()
	}
	s := openStore(t, dir)
	commit(t, s, Degrade(""))
	_ = s.Close()
	s = openStore(t, dir)
	defer s.Close()
	if s.Fresh() || s.Degraded() != "" {
		t.Errorf("after a look: fresh %t, degraded %q", s.Fresh(), s.Degraded())
	}
}

func TestSecondDeviceIsRefused(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	defer s.Close()
	if _, err := Open(dir, slog.New(slog.DiscardHandler)); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("a second device opened the same state: %v", err)
	}
}

// TestTornRecord cuts the journal at every byte of its last record: what was
// acknowledged before holds, and the journal goes on from there.
func TestTornRecord(t *testing.T) {
	dir := t.TempDir()
	s := filled(t, dir)
	whole := content(s.State)
	before := s.size
	commit(t, s, SetRevision(Revision{1, 4}), Put(quarantine(4)))
	after := s.size
	_ = s.Close()
	journal, err := os.ReadFile(filepath.Join(dir, journalName))
	if err != nil {
		t.Fatal(err)
	}
	for cut := before; cut < after; cut++ {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, journalName), journal[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		s := openStore(t, dir)
		if got := content(s.State); got != whole || s.Alarm() != "" {
			t.Fatalf("cut at %d: alarm %q,\n%s\nwant\n%s", cut, s.Alarm(), got, whole)
		}
		commit(t, s, SetRevision(Revision{1, 4}))
		_ = s.Close()
		s = openStore(t, dir)
		if s.Revision() != (Revision{1, 4}) || s.Alarm() != "" {
			t.Fatalf("cut at %d: the next order was lost, revision %s, alarm %q", cut, s.Revision(), s.Alarm())
		}
		_ = s.Close()
	}
}

// TestDamageReleasesNobody flips each byte in turn. Whatever that breaks, the
// store opens, says so when more than a last record is lost, and then holds no
// revision, so that the orderer sends everything anew.
func TestDamageReleasesNobody(t *testing.T) {
	dir := t.TempDir()
	s := filled(t, dir)
	whole := content(s.State)
	_ = s.Close()
	journal, _ := os.ReadFile(filepath.Join(dir, journalName))
	loud := 0
	for i := range journal {
		dir := t.TempDir()
		bad := bytes.Clone(journal)
		bad[i] ^= 0x40
		if err := os.WriteFile(filepath.Join(dir, journalName), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		s := openStore(t, dir)
		switch {
		case s.Degraded() != "":
			loud++
			if s.Revision() != (Revision{}) {
				t.Fatalf("byte %d: degraded and still at revision %s", i, s.Revision())
			}
			if kept, _ := filepath.Glob(filepath.Join(dir, journalName+".damaged-*")); len(kept) != 1 {
				t.Fatalf("byte %d: the damaged journal was not kept", i)
			}
			_ = s.Close()
			if s = openStore(t, dir); s.Degraded() == "" {
				t.Fatalf("byte %d: a restart forgot the damage", i)
			}
		case content(s.State) != whole && s.Revision() != (Revision{1, 2}):
			t.Fatalf("byte %d: silently changed to\n%s", i, content(s.State))
		}
		_ = s.Close()
	}
	if loud < len(journal)/2 {
		t.Errorf("only %d of %d damages were noticed", loud, len(journal))
	}
}

func TestCompaction(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	for i := range 400 {
		q := quarantine(1)
		q.Reason = strings.Repeat("x", 4000)
		commit(t, s, SetRevision(Revision{1, uint64(i + 1)}), Put(q))
	}
	grown := s.size
	s.Tend()
	if s.size >= grown/10 {
		t.Errorf("the journal went from %d to %d bytes", grown, s.size)
	}
	want := content(s.State)
	commit(t, s, SetRevision(Revision{2, 1}))
	_ = s.Close()
	s = openStore(t, dir)
	defer s.Close()
	if got := content(s.State); s.Revision() != (Revision{2, 1}) || got[strings.Index(got, "\n"):] != want[strings.Index(want, "\n"):] {
		t.Errorf("after compaction:\n%s\nwant\n%s", got, want)
	}
}

// TestLargeOrder: an order that is larger than a record may be is durable too, all
// of it or nothing.
func TestLargeOrder(t *testing.T) {
	dir := t.TempDir()
	s := filled(t, dir)
	ops := []Operation{SetRevision(Revision{2, 1}), Remove("q1")}
	for i := range maxRecord * 5 / 4 / MaxReason {
		ops = append(ops, Put(&Quarantine{ID: fmt.Sprintf("large%d", i), MACs: []guard.MAC{{2, 1, byte(i >> 16), byte(i >> 8), byte(i)}},
			Access: AccessNone, Accepted: 1, Reason: fmt.Sprintf("%d%s", i, strings.Repeat("x", MaxReason-8))}))
	}
	commit(t, s, ops...)
	want := content(s.State)
	journal, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	for rest := journal[len(header):]; len(rest) > 0; {
		payload, _, err := next(bytes.NewReader(rest), nil)
		if err != nil || len(payload) > maxRecord {
			t.Fatalf("a record of %d bytes: %v", len(payload), err)
		}
		rest = rest[frameLen+len(payload):]
	}
	commit(t, s, SetRevision(Revision{2, 2}))
	_ = s.Close()
	s = openStore(t, dir)
	defer s.Close()
	if s.Alarm() != "" || s.Revision() != (Revision{2, 2}) {
		t.Errorf("alarm %q, revision %s", s.Alarm(), s.Revision())
	}
	if got := content(s.State); got[strings.Index(got, "\n"):] != want[strings.Index(want, "\n"):] {
		t.Error("the order was lost in part")
	}
	// One that cannot be written holds in memory, with an alarm, and later on disk.
	if err := os.Mkdir(s.path+".new", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(ops...); !errors.Is(err, ErrNotDurable) || s.Alarm() == "" || s.Revision() != (Revision{2, 1}) {
		t.Errorf("%v, alarm %q, revision %s", err, s.Alarm(), s.Revision())
	}
	if err := os.Remove(s.path + ".new"); err != nil {
		t.Fatal(err)
	}
	s.retryAt = time.Time{}
	if s.Tend(); s.Alarm() != "" {
		t.Errorf("alarm %q", s.Alarm())
	}
}

// TestDiskFull runs on a file system of 256 kB.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("cannot mount:", err)
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	s := openStore(t, dir)
	commit(t, s, Degrade(""), SetRevision(Revision{1, 1}), Put(quarantine(1)))
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	large := quarantine(2)
	large.Reason = strings.Repeat("x", 8192)
	if err := s.Commit(SetRevision(Revision{1, 2}), Put(large)); !errors.Is(err, ErrNotDurable) {
		t.Fatalf("on a full disk: %v", err)
	}
	if s.Get("q2") == nil || s.Get("q1") == nil || s.Alarm() == "" {
		t.Fatal("on a full disk the order must hold in memory, with an alarm")
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	s.retryAt = time.Time{}
	s.Tend()
	if s.Alarm() != "" {
		t.Fatalf("with space again: %s", s.Alarm())
	}
	want := content(s.State)
	_ = s.Close()
	s = openStore(t, dir)
	if got := content(s.State); got != want {
		t.Errorf("after a restart\n%s\nwant\n%s", got, want)
	}
	_ = s.Close()
}

func TestAddressesFollowTheirMAC(t *testing.T) {
	s := newState()
	for _, n := range []byte{1, 2} {
		s.put(quarantine(n))
	}
	for i := range MaxBindings + 1 {
		a := netip.AddrFrom4([4]byte{10, 0, 1, byte(i)})
		s.apply(Bind(Binding{Address: a, MAC: mac(1), Seen: time.Unix(int64(i), 0)}))
	}
	if got := len(s.Bindings(mac(1))); got != MaxBindings {
		t.Errorf("%d addresses, the most is %d", got, MaxBindings)
	}
	if _, ok := s.Owner(netip.MustParseAddr("10.0.1.0")); ok {
		t.Error("the oldest address did not go")
	}
	moved := netip.MustParseAddr("10.0.1.5")
	s.apply(Bind(Binding{Address: moved, MAC: mac(2), Seen: time.Unix(99, 0)}))
	if owner, _ := s.Owner(moved); owner != mac(2) {
		t.Errorf("the address belongs to %s", owner)
	}
	s.apply(Bind(Binding{Address: moved, MAC: mac(9), Seen: time.Unix(99, 0)}))
	if owner, _ := s.Owner(moved); owner != mac(2) {
		t.Error("a MAC that is not quarantined took an address")
	}
	s.apply(Remove("q1"))
	if got := s.Bindings(mac(1)); got != nil || len(s.owners) != 1 {
		t.Errorf("addresses outlived their quarantine: %v, %d owners", got, len(s.owners))
	}
	s.apply(Unbind(moved))
	if len(s.owners) != 0 || len(s.Bindings(mac(2))) != 0 {
		t.Error("the address did not leave")
	}
}

func TestClaims(t *testing.T) {
	s := newState()
	s.put(quarantine(1))
	s.put(quarantine(2))
	claim := func(address string, n byte) Claim { return Claim{binding(address, n), time.Unix(50, 0).UTC()} }
	for _, c := range []Claim{claim("10.0.0.1", 1), claim("10.0.0.2", 1), claim("10.0.0.2", 1), claim("10.0.0.2", 2), claim("10.0.0.3", 9)} {
		s.apply(Dispute(c))
	}
	count := func(want int) {
		t.Helper()
		n := 0
		if s.EachClaim(func(Claim) { n++ }); n != want {
			t.Errorf("%d claims, want %d", n, want)
		}
	}
	count(3)
	if _, held := s.Owner(netip.MustParseAddr("10.0.0.1")); held || !reflect.DeepEqual(s.Claims(mac(2)), []Claim{claim("10.0.0.2", 2)}) {
		t.Errorf("claims %v, held %t", s.Claims(mac(2)), held)
	}
	s.apply(Bind(binding("10.0.0.1", 1)))
	count(2)
	s.apply(Concede(claim("10.0.0.2", 2)))
	s.apply(Concede(claim("10.0.0.2", 2)))
	count(1)
	for i := range MaxBindings + 5 {
		s.apply(Dispute(claim(fmt.Sprintf("10.0.1.%d", i), 2)))
	}
	count(1 + MaxBindings)
	s.apply(Remove("q2"))
	s.apply(Remove("q1"))
	count(0)
}

func TestPutReplaces(t *testing.T) {
	s := newState()
	first := quarantine(1)
	first.MACs = []guard.MAC{mac(1), mac(2)}
	s.put(first)
	second := quarantine(1)
	second.MACs = []guard.MAC{mac(2), mac(3)}
	second.Accepted = 0
	s.put(second)
	for n, want := range map[byte][]*Quarantine{1: nil, 2: {second}, 3: {second}} {
		if got := s.Of(mac(n)); !reflect.DeepEqual(got, want) {
			t.Errorf("MAC %d: %v", n, got)
		}
	}
	if s.Accepted() != 0 || s.Len() != 1 {
		t.Errorf("%d accepted of %d", s.Accepted(), s.Len())
	}
}

func FuzzLoad(f *testing.F) {
	s := newState()
	s.put(quarantine(1))
	var b []byte
	for _, op := range []Operation{SetRevision(Revision{1, 2}), Put(quarantine(1)), Bind(binding("10.0.0.1", 1)), Accept("q1", time.Unix(1, 0)),
		Unbind(netip.MustParseAddr("10.0.0.1")), Degrade("x"), Remove("q1"), {kind: kindBegun, mac: mac(1), at: 5},
		Dispute(Claim{binding("10.0.0.1", 1), time.Unix(9, 0)}), Concede(Claim{Binding: binding("10.0.0.1", 1)}), {kind: kindBase}} {
		b = op.append(b)
	}
	record := seal(append(make([]byte, frameLen), b...))
	f.Add(append([]byte(header), record...), b)
	f.Add([]byte(header), b[:10])
	f.Fuzz(func(t *testing.T, journal, payload []byte) {
		l, err := load(bytes.NewReader(journal), int64(len(journal)))
		if err != nil && !errors.Is(err, ErrCorrupt) {
			t.Fatalf("an error of another kind: %v", err)
		}
		if l.good+l.torn > int64(len(journal)) {
			t.Fatalf("read %d and %d of %d bytes", l.good, l.torn, len(journal))
		}
		st := newState()
		if decode(payload, st.apply) != nil {
			return
		}
		// What was read can be written and read again.
		again := newState()
		for _, q := range st.quarantines {
			if err := decode(Put(q).append(nil), again.apply); err != nil {
				t.Fatal(err)
			}
		}
		if again.Len() != st.Len() || again.Accepted() != st.Accepted() {
			t.Fatalf("%d quarantines became %d", st.Len(), again.Len())
		}
	})
}
