package reconcile

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cordon-security/cordon/enforcer/desired"
	"github.com/cordon-security/cordon/internal/guard"
)

var now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func mac(n byte) guard.MAC { return guard.MAC{2, 0, 0, 0, 0, n} }

func addr(n byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, n}) }

// quarantine is accepted and names these MACs.
func quarantine(id string, access desired.Access, macs ...byte) *desired.Quarantine {
	q := &desired.Quarantine{ID: id, Access: access, Accepted: 1}
	for _, n := range macs {
		q.MACs = append(q.MACs, mac(n))
	}
	return q
}

// view looks at operations under a guard that protects MAC 9 and 10.0.0.9, and
// has learned MAC 8.
func view(t *testing.T, ops ...desired.Operation) View {
	t.Helper()
	s, err := desired.Open(t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if err := s.Commit(ops...); err != nil {
		t.Fatal(err)
	}
	g, err := guard.New([]guard.Protected{{MAC: mac(9), Origin: "test"}, {MAC: mac(8), Origin: "gateway", Learned: true},
		{Prefix: netip.PrefixFrom(addr(9), 32), Origin: "test"}}, guard.Cap{})
	if err != nil {
		t.Fatal(err)
	}
	return View{State: s.State, Guard: g, Now: now}
}

func TestVerdict(t *testing.T) {
	v := view(t)
	with := func(change func(*desired.Quarantine)) *desired.Quarantine {
		q := quarantine("q", desired.AccessNone, 1)
		change(q)
		return q
	}
	for _, c := range []struct {
		name    string
		q       *desired.Quarantine
		enforce bool
		phase   desired.Phase
	}{
		{"accepted", quarantine("q", desired.AccessNone, 1), true, desired.InForce},
		{"faulty", with(func(q *desired.Quarantine) { q.Fault = "no" }), false, desired.Refused},
		{"held", with(func(q *desired.Quarantine) { q.Accepted = 0 }), false, desired.Held},
		{"one MAC is protected", quarantine("q", desired.AccessNone, 1, 9), false, desired.Refused},
		{"a learned MAC, ordered after it", with(func(q *desired.Quarantine) { q.MACs, q.Accepted = []guard.MAC{mac(8)}, 0 }), false, desired.Refused},
		{"a learned MAC, let in before it", quarantine("q", desired.AccessNone, 8), true, desired.InForce},
		{"a learned and a protected MAC", quarantine("q", desired.AccessNone, 8, 9), false, desired.Refused},
		{"ends later", with(func(q *desired.Quarantine) { q.Expires = now.UnixNano() + 1 }), true, desired.InForce},
		{"ends now", with(func(q *desired.Quarantine) { q.Expires = now.UnixNano() }), false, desired.Pending},
		{"held and ended", with(func(q *desired.Quarantine) { q.Expires, q.Accepted = 1, 0 }), false, desired.Held},
	} {
		enforce, phase, detail := v.Verdict(c.q)
		if enforce != c.enforce || phase != c.phase || (detail == "") != c.enforce {
			t.Errorf("%s: enforce %t, phase %d, %q", c.name, enforce, phase, detail)
		}
	}
}

func bind(a, m byte) desired.Operation {
	return desired.Bind(desired.Binding{Address: addr(a), MAC: mac(m), Seen: now})
}

func TestAccess(t *testing.T) {
	ended := quarantine("ended", desired.AccessNone, 3)
	ended.Expires = 1
	disputed := desired.Claim{Binding: desired.Binding{Address: addr(50), MAC: mac(1), Seen: now}, Until: now.Add(time.Minute)}
	v := view(t, desired.Put(quarantine("a", desired.AccessLimited, 1, 2)), desired.Put(quarantine("b", desired.AccessNone, 2)),
		desired.Put(ended), desired.Put(quarantine("c", desired.AccessLimited, 3)), desired.Put(quarantine("d", desired.AccessNone, 9)),
		bind(1, 1), bind(2, 2), bind(3, 3), bind(9, 2), bind(8, 9), bind(4, 77), desired.Dispute(disputed))
	want := map[string]desired.Access{
		mac(1).String(): desired.AccessLimited, mac(2).String(): desired.AccessNone, mac(3).String(): desired.AccessLimited,
		addr(1).String(): desired.AccessLimited, addr(2).String(): desired.AccessNone, addr(3).String(): desired.AccessLimited,
	}
	got := map[string]desired.Access{}
	v.Each(func(m Member) {
		if _, twice := got[m.String()]; twice {
			t.Errorf("%s comes twice", m)
		}
		got[m.String()] = m.Access
		if again := v.Access(Member{MAC: m.MAC, Address: m.Address}); again != m.Access {
			t.Errorf("%s: %s, and %s when asked", m, m.Access, again)
		}
	})
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("all: %v, want %v", got, want)
	}
	for name, m := range map[string]Member{"a protected MAC": {MAC: mac(9)}, "its address": {Address: addr(8)}, "a protected address": {Address: addr(9)},
		"a stranger's MAC": {MAC: mac(77)}, "a stranger's address": {Address: addr(4)}, "an address in dispute": {Address: addr(50)}} {
		if a := v.Access(m); a != 0 {
			t.Errorf("%s has access %s", name, a)
		}
	}
	q := v.State.Get("a")
	out := v.LeftOut(q)
	if !strings.Contains(out, addr(50).String()) || !strings.Contains(out, addr(9).String()) || strings.Contains(out, addr(1).String()+" ") {
		t.Errorf("left out: %q", out)
	}
	if out := v.LeftOut(v.State.Get("c")); out != "" {
		t.Errorf("left out: %q", out)
	}
}

func TestReport(t *testing.T) {
	for _, c := range []struct {
		report  Report
		changed bool
		words   []string
	}{
		{Report{}, false, []string{"0 elements added, 0 removed"}},
		{Report{Kept: 7}, false, nil},
		{Report{Added: 1}, true, []string{"1 elements added"}},
		{Report{Removed: 2}, true, []string{"2 removed"}},
		{Report{Wrong: []string{"a rule", "a set"}}, true, []string{"a rule; a set; "}},
	} {
		if c.report.Changed() != c.changed || slices.ContainsFunc(c.words, func(w string) bool { return !strings.Contains(c.report.String(), w) }) {
			t.Errorf("%+v: %t, %q", c.report, c.report.Changed(), c.report)
		}
	}
}
