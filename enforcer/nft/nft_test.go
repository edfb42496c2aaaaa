package nft

import (
	"encoding/binary"
	"log/slog"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/cordon-security/cordon/enforcer/desired"
	"github.com/cordon-security/cordon/enforcer/reconcile"
	"github.com/cordon-security/cordon/internal/guard"
)

var allow = []Allowed{
	{Prefix: netip.MustParsePrefix("10.0.0.1/32")}, {Prefix: netip.MustParsePrefix("10.1.0.0/16")},
	{Prefix: netip.MustParsePrefix("10.1.2.0/24")}, {Prefix: netip.MustParsePrefix("fd00::1/128")},
	{Prefix: netip.MustParsePrefix("255.255.255.0/24")},
	{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Protocol: 6, Port: 443},
	{Prefix: netip.MustParsePrefix("fd01::/64"), Protocol: 17},
}

func newMethod(t testing.TB) *Method {
	t.Helper()
	m, err := New(Options{Allow: allow, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

// clean gives a test a method on a kernel without tables of ours.
func clean(t testing.TB) *Method {
	t.Helper()
	m := newMethod(t)
	if err := m.Clear(); err != nil {
		t.Fatal(err)
	}
	return m
}

func nft(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command("nft", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("nft %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func mac(n uint32) guard.MAC {
	m := guard.MAC{0x02, 0}
	binary.BigEndian.PutUint32(m[2:], n)
	return m
}

// wanted is a fixed set.
type wanted []reconcile.Member

func (w wanted) Access(m reconcile.Member) desired.Access {
	for _, have := range w {
		if have.MAC == m.MAC && have.Address == m.Address {
			return have.Access
		}
	}
	return 0
}

func (w wanted) Each(f func(reconcile.Member)) {
	for _, m := range w {
		f(m)
	}
}

func members() wanted {
	return wanted{
		{MAC: mac(1), Access: desired.AccessNone},
		{MAC: mac(2), Access: desired.AccessLimited},
		{Address: netip.MustParseAddr("10.0.0.11"), Access: desired.AccessNone},
		{Address: netip.MustParseAddr("10.0.0.12"), Access: desired.AccessLimited},
		{Address: netip.MustParseAddr("fd00::11"), Access: desired.AccessNone},
		{Address: netip.MustParseAddr("fd00::12"), Access: desired.AccessLimited},
	}
}

func prune(t *testing.T, m *Method, want wanted, keep bool) reconcile.Report {
	t.Helper()
	r, err := m.Prune(want, keep)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func inForce(t *testing.T, m *Method, want wanted) {
	t.Helper()
	got, err := m.ReadBack(want)
	if err != nil {
		t.Fatal(err)
	}
	for i, ok := range got {
		if !ok {
			t.Errorf("%s with access %s is not in force", want[i], want[i].Access)
		}
	}
}

func TestPruneMakesAndAdopts(t *testing.T) {
	m := clean(t)
	first := prune(t, m, members(), false)
	if len(first.Wrong) != 2 || first.Added == 0 {
		t.Fatalf("on an empty kernel: %s", first)
	}
	inForce(t, m, members())
	before := nft(t, "-a", "list", "ruleset")
	// A second process finds everything as it shall be and writes nothing.
	if r := prune(t, newMethod(t), members(), false); r.Changed() {
		t.Errorf("adoption changed something: %s", r)
	}
	if after := nft(t, "-a", "list", "ruleset"); after != before {
		t.Errorf("adoption changed the ruleset from\n%s\nto\n%s", before, after)
	}
}

func TestPruneChangesDifferencesAlone(t *testing.T) {
	m := clean(t)
	prune(t, m, members(), false)
	nft(t, "delete", "element", "inet", "cordon", "ip4", "{ 10.0.0.11 }")
	nft(t, "add", "element", "inet", "cordon", "ip4", "{ 10.0.0.99 }")
	nft(t, "add", "element", "bridge", "cordon", "mac_limited", "{ 02:00:00:00:00:01 }")
	stranger := wanted{{Address: netip.MustParseAddr("10.0.0.99"), Access: desired.AccessNone}}
	if r := prune(t, m, members(), true); r.Added != 1 || r.Kept != 1 {
		t.Errorf("with keep: %+v", r)
	}
	inForce(t, m, stranger)
	// An access looser than wanted is put right even then.
	inForce(t, m, members())
	if r := prune(t, m, members(), false); r.Removed != 1 || r.Added != 0 {
		t.Errorf("without keep: %+v", r)
	}
	if got, _ := m.ReadBack(stranger); got[0] {
		t.Error("an element nobody wants stayed")
	}
}

func TestEnsureAndRemoveAreIdempotent(t *testing.T) {
	m := clean(t)
	prune(t, m, nil, false)
	for range 2 {
		if err := m.Ensure(members()); err != nil {
			t.Fatal(err)
		}
		inForce(t, m, members())
	}
	swapped := members()
	for i := range swapped {
		swapped[i].Access = 3 - swapped[i].Access
	}
	if err := m.Ensure(swapped); err != nil {
		t.Fatal(err)
	}
	inForce(t, m, swapped)
	for range 2 {
		if err := m.Remove(swapped); err != nil {
			t.Fatal(err)
		}
		if n, err := m.Count(); err != nil || n != 0 {
			t.Fatalf("%d elements after everything was removed, %v", n, err)
		}
	}
}

func TestManyElements(t *testing.T) {
	m := clean(t)
	var want wanted
	for i := range uint32(10000) {
		a := netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)})
		want = append(want, reconcile.Member{MAC: mac(i), Access: desired.AccessNone}, reconcile.Member{Address: a, Access: desired.AccessLimited})
	}
	fast := index(want)
	if _, err := m.Prune(fast, false); err != nil {
		t.Fatal(err)
	}
	if n, err := m.Count(); err != nil || n != 30000 {
		t.Fatalf("%d elements, %v, want 30000", n, err)
	}
	inForce(t, m, want)
	if err := m.Remove(want); err != nil {
		t.Fatal(err)
	}
	if n, err := m.Count(); err != nil || n != 0 {
		t.Fatalf("%d elements left, %v", n, err)
	}
}

// indexed is a wanted set that is found by key.
type indexed map[reconcile.Member]desired.Access

func index(w wanted) indexed {
	out := indexed{}
	for _, m := range w {
		out[reconcile.Member{MAC: m.MAC, Address: m.Address}] = m.Access
	}
	return out
}

func (x indexed) Access(m reconcile.Member) desired.Access { return x[m] }

func (x indexed) Each(f func(reconcile.Member)) {
	for m, a := range x {
		m.Access = a
		f(m)
	}
}

// moved makes a chain of ours anew elsewhere.
func moved(family, chain, hook string) [][]string {
	return [][]string{
		{"flush", "chain", family, "cordon", chain}, {"delete", "chain", family, "cordon", chain},
		{"add", "chain", family, "cordon", chain, "{ " + hook + " }"},
	}
}

// TestRepairKeepsElements spoils the tables of a device that does not know all
// that is in force: what is lost then comes back from nowhere.
func TestRepairKeepsElements(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil [][]string
	}{
		{"a chain at another priority", moved("inet", "prerouting", "type filter hook prerouting priority 5;")},
		{"a dormant table", [][]string{{"add", "table", "inet", "cordon", "{ flags dormant; }"}}},
		{"a set of another kind", [][]string{
			{"flush", "chain", "inet", "cordon", "prerouting"}, {"flush", "chain", "inet", "cordon", "forward"},
			{"flush", "chain", "inet", "cordon", "output"}, {"delete", "set", "inet", "cordon", "ip4"},
			{"add", "set", "inet", "cordon", "ip4", "{ type ipv4_addr; flags timeout; elements = { 10.0.0.11, 10.0.0.12 }; }"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := clean(t)
			prune(t, m, members(), false)
			for _, args := range c.spoil {
				nft(t, args...)
			}
			if r := prune(t, m, nil, true); len(r.Wrong) == 0 || r.Added != 0 {
				t.Errorf("the repair: %+v", r)
			}
			for _, q := range members() {
				q.Access = desired.AccessNone
				inForce(t, m, wanted{q})
			}
			if r := prune(t, m, nil, true); len(r.Wrong) > 0 {
				t.Errorf("the repair does not hold: %s", r)
			}
		})
	}
}

func TestTablesAreRepaired(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil [][]string
		lost  bool
	}{
		{"ruleset flushed", [][]string{{"flush", "ruleset"}}, true},
		{"one table deleted", [][]string{{"delete", "table", "bridge", "cordon"}}, true},
		{"rules flushed", [][]string{{"flush", "chain", "inet", "cordon", "prerouting"}}, false},
		{"a rule before ours", [][]string{{"insert", "rule", "bridge", "cordon", "prerouting", "accept"}}, false},
		{"the limited chain opened", [][]string{{"insert", "rule", "inet", "cordon", "limited_from", "accept"}}, false},
		{"the allow set widened", [][]string{{"add", "element", "inet", "cordon", "allow4", "{ 8.8.8.8 }"}}, false},
		{"the allow set flushed", [][]string{{"flush", "set", "inet", "cordon", "allow4"}}, false},
		{"the table dormant", [][]string{{"add", "table", "inet", "cordon", "{ flags dormant; }"}}, false},
		{"a chain at another priority", moved("inet", "prerouting", "type filter hook prerouting priority 5;"), false},
		{"a chain with another policy", [][]string{{"add", "chain", "bridge", "cordon", "forward", "{ policy drop; }"}}, false},
		{"a chain without its hook", moved("bridge", "output", ""), false},
		{"a chain of others in our table", [][]string{
			{"add", "chain", "inet", "cordon", "theirs", "{ type filter hook input priority 0; policy drop; }"}}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := clean(t)
			prune(t, m, members(), false)
			for _, args := range c.spoil {
				nft(t, args...)
			}
			wrong, lost, err := m.Repair()
			if err != nil || len(wrong) == 0 || lost != c.lost {
				t.Fatalf("repair: %v, lost %t, %v", wrong, lost, err)
			}
			r := prune(t, m, members(), false)
			if len(r.Wrong) > 0 || (r.Added > 0) != c.lost {
				t.Errorf("after the repair: %+v", r)
			}
			if again := prune(t, m, members(), false); again.Changed() {
				t.Errorf("the repair does not hold: %s", again)
			}
			inForce(t, m, members())
		})
	}
}

func TestClearLeavesNothing(t *testing.T) {
	m := clean(t)
	prune(t, m, members(), false)
	for range 2 {
		if err := m.Clear(); err != nil {
			t.Fatal(err)
		}
	}
	if out := nft(t, "list", "ruleset"); strings.Contains(out, "cordon") {
		t.Errorf("left behind: %s", out)
	}
	if err := m.Ensure(members()); err == nil {
		t.Error("elements went into tables that are not there")
	}
}

func TestWatchSeesOthersAndNotItself(t *testing.T) {
	m := clean(t)
	prune(t, m, nil, false)
	next, err := m.Watch()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Ensure(members()); err != nil {
		t.Fatal(err)
	}
	nft(t, "add", "table", "inet", "theirs")
	nft(t, "delete", "element", "inet", "cordon", "ip4", "{ 10.0.0.11 }")
	c, err := next()
	if err != nil || c.Tables || len(c.Members) != 1 || c.Members[0].Address != netip.MustParseAddr("10.0.0.11") {
		t.Fatalf("change %+v, %v", c, err)
	}
	if !strings.HasPrefix(c.By, "nft ") {
		t.Errorf("by %q", c.By)
	}
	if err := m.Remove(members()); err != nil {
		t.Fatal(err)
	}
	nft(t, "delete", "table", "inet", "cordon")
	if c, err := next(); err != nil || !c.Tables {
		t.Fatalf("change %+v, %v", c, err)
	}
}

func TestNewRefusesNonsense(t *testing.T) {
	for _, a := range []Allowed{{}, {Prefix: netip.MustParsePrefix("10.0.0.0/8"), Port: 80}} {
		if _, err := New(Options{Allow: []Allowed{a}}); err == nil {
			t.Errorf("accepted %+v", a)
		}
	}
}

func BenchmarkEnsureInto100k(b *testing.B) {
	m := clean(b)
	fill := indexed{}
	for i := range uint32(100000) {
		fill[reconcile.Member{MAC: mac(i)}] = desired.AccessNone
	}
	if _, err := m.Prune(fill, false); err != nil {
		b.Fatal(err)
	}
	n := uint32(1 << 20)
	b.Run("ensure", func(b *testing.B) {
		for b.Loop() {
			n++
			if err := m.Ensure([]reconcile.Member{{MAC: mac(n), Access: desired.AccessNone}}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("ensure-and-read-back", func(b *testing.B) {
		for b.Loop() {
			n++
			one := []reconcile.Member{{MAC: mac(n), Access: desired.AccessNone}}
			if err := m.Ensure(one); err != nil {
				b.Fatal(err)
			}
			if got, err := m.ReadBack(one); err != nil || !got[0] {
				b.Fatal(got, err)
			}
		}
	})
	b.Run("compare-all", func(b *testing.B) {
		for b.Loop() {
			if _, err := m.Prune(fill, true); err != nil {
				b.Fatal(err)
			}
		}
	})
}
