package guard

import (
	"net/netip"
	"testing"
	"time"
)

func mac(last byte) MAC { return MAC{0x02, 0, 0, 0, 0, last} }

func prefix(s string) Protected {
	return Protected{Prefix: netip.MustParsePrefix(s), Origin: "configuration"}
}

func newGuard(t *testing.T, limit Cap, protected ...Protected) *Guard {
	t.Helper()
	g, err := New(protected, limit)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func rule(r *Refusal) Rule {
	if r == nil {
		return ""
	}
	return r.Rule
}

func TestCheckMAC(t *testing.T) {
	g := newGuard(t, Cap{}, Protected{MAC: mac(1), Origin: "configuration"}, Protected{MAC: mac(1), Learned: true},
		Protected{MAC: mac(3), Learned: true}, Protected{MAC: mac(4), Learned: true}, Protected{MAC: mac(4)})
	for _, c := range []struct {
		name string
		mac  MAC
		want Rule
	}{
		{"learned", mac(3), RuleLearnedMAC},
		{"learned, then configured", mac(4), RuleProtectedMAC},
		{"an endpoint's", mac(2), ""},
		{"protected", mac(1), RuleProtectedMAC},
		{"zero", MAC{}, RuleMAC},
		{"broadcast", MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, RuleMAC},
		{"IPv4 multicast", MAC{0x01, 0, 0x5e, 0, 0, 1}, RuleMAC},
		{"IPv6 multicast", MAC{0x33, 0x33, 0, 0, 0, 1}, RuleMAC},
		{"a bridge group address", MAC{0x01, 0x80, 0xc2, 0, 0, 0}, RuleMAC},
	} {
		if got := rule(g.CheckMAC(c.mac)); got != c.want {
			t.Errorf("%s: refused by %q, want %q", c.name, got, c.want)
		}
	}
}

func TestCheckAddress(t *testing.T) {
	g := newGuard(t, Cap{}, prefix("10.0.0.0/24"), prefix("10.0.0.128/25"), prefix("10.0.1.1/32"),
		prefix("fd00::/64"), prefix("::ffff:192.0.2.0/120"), prefix("fd01::7/64"))
	for _, c := range []struct {
		address string
		want    Rule
	}{
		{"10.0.0.5", RuleProtectedAddress},
		{"10.0.0.200", RuleProtectedAddress},
		{"::ffff:10.0.0.5", RuleProtectedAddress},
		{"10.0.1.1", RuleProtectedAddress},
		{"::ffff:10.0.1.1", RuleProtectedAddress},
		{"10.0.1.2", ""},
		{"192.0.2.77", RuleProtectedAddress},
		{"::ffff:192.0.2.77", RuleProtectedAddress},
		{"192.0.3.1", ""},
		{"fd00::1", RuleProtectedAddress},
		{"fd00::1%eth0", RuleProtectedAddress},
		{"fd01::9", RuleProtectedAddress},
		{"fd02::9", ""},
		{"fe80::1%eth0", ""},
		{"0.0.0.0", RuleAddress},
		{"::", RuleAddress},
		{"127.0.0.1", RuleAddress},
		{"::1", RuleAddress},
		{"224.0.0.1", RuleAddress},
		{"ff02::1", RuleAddress},
		{"255.255.255.255", RuleAddress},
	} {
		if got := rule(g.CheckAddress(netip.MustParseAddr(c.address))); got != c.want {
			t.Errorf("%s: refused by %q, want %q", c.address, got, c.want)
		}
	}
	if got := rule(g.CheckAddress(netip.Addr{})); got != RuleAddress {
		t.Errorf("no address: refused by %q", got)
	}
}

func TestCheck(t *testing.T) {
	g := newGuard(t, Cap{}, prefix("10.0.0.1/32"), Protected{MAC: mac(1), Origin: "configuration"})
	addr := func(list ...string) (out []netip.Addr) {
		for _, s := range list {
			out = append(out, netip.MustParseAddr(s))
		}
		return out
	}
	for _, c := range []struct {
		name  string
		macs  []MAC
		addrs []netip.Addr
		want  Rule
	}{
		{"one MAC", []MAC{mac(2)}, nil, ""},
		{"with addresses", []MAC{mac(2)}, addr("10.0.0.2", "fe80::2"), ""},
		{"nothing to bind to", nil, addr("10.0.0.2"), RuleSubject},
		{"one of its MACs is protected", []MAC{mac(2), mac(1)}, nil, RuleProtectedMAC},
		{"has a protected address", []MAC{mac(2)}, addr("10.0.0.1"), RuleProtectedAddress},
		{"the same, mapped", []MAC{mac(2)}, addr("::ffff:10.0.0.1"), RuleProtectedAddress},
		{"has others beside a protected address", []MAC{mac(2)}, addr("fe80::2", "10.0.0.2", "10.0.0.1"), RuleProtectedAddress},
		{"only an impossible address", []MAC{mac(2)}, addr("0.0.0.0"), ""},
	} {
		if got := rule(g.Check(c.macs, c.addrs)); got != c.want {
			t.Errorf("%s: refused by %q, want %q", c.name, got, c.want)
		}
	}
}

func TestCap(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	ago := func(d ...time.Duration) (out []time.Time) {
		for _, d := range d {
			out = append(out, now.Add(-d))
		}
		return out
	}
	for _, c := range []struct {
		name    string
		limit   Cap
		inForce int
		more    int
		began   []time.Time
		want    Rule
		retry   time.Time
	}{
		{name: "no cap", inForce: 1 << 20, began: ago(0, 0, 0)},
		{name: "three MACs fit", limit: Cap{AtOnce: 4, New: 4, Window: time.Hour}, inForce: 1, more: 3, began: ago(time.Minute)},
		{name: "three MACs at once do not", limit: Cap{AtOnce: 4}, inForce: 2, more: 3, want: RuleCapTotal},
		{name: "three MACs wait for the second", limit: Cap{New: 4, Window: time.Hour}, more: 3, began: ago(time.Minute, 10*time.Minute, 5*time.Minute), want: RuleCapRate, retry: now.Add(55 * time.Minute)},
		{name: "more than ever fit", limit: Cap{New: 2, Window: time.Hour}, more: 3, want: RuleCapRate},
		{name: "below at once", limit: Cap{AtOnce: 2}, inForce: 1},
		{name: "at once reached", limit: Cap{AtOnce: 2}, inForce: 2, want: RuleCapTotal},
		{name: "over at once, after it was lowered", limit: Cap{AtOnce: 2}, inForce: 9, want: RuleCapTotal},
		{name: "below in the window", limit: Cap{New: 2, Window: time.Hour}, began: ago(time.Minute)},
		{name: "window reached", limit: Cap{New: 2, Window: time.Hour}, began: ago(time.Minute, 10*time.Minute), want: RuleCapRate, retry: now.Add(50 * time.Minute)},
		{name: "out of the window", limit: Cap{New: 2, Window: time.Hour}, began: ago(time.Minute, time.Hour)},
		{name: "clock set back", limit: Cap{New: 1, Window: time.Hour}, began: ago(-time.Minute), want: RuleCapRate, retry: now.Add(time.Hour + time.Minute)},
		{name: "both: at once speaks first", limit: Cap{AtOnce: 1, New: 1, Window: time.Hour}, inForce: 1, began: ago(0), want: RuleCapTotal},
	} {
		more := max(c.more, 1)
		r := c.limit.CheckTotal(c.inForce, more)
		if r == nil {
			r = c.limit.CheckRate(c.began, more, now)
		}
		if rule(r) != c.want {
			t.Errorf("%s: refused by %q, want %q", c.name, rule(r), c.want)
			continue
		}
		if r != nil && (!r.RetryAt.Equal(c.retry) || r.Error() == "") {
			t.Errorf("%s: %+v, want a retry at %s", c.name, r, c.retry)
		}
	}
}

func TestNothingMoreAlwaysPasses(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	limit := Cap{AtOnce: 1, New: 1, Window: time.Hour}
	if limit.CheckTotal(9, 0) != nil || limit.CheckRate([]time.Time{now, now}, 0, now) != nil {
		t.Error("an order that adds no MAC was refused")
	}
	if !limit.Fits(1) || limit.Fits(2) || !(Cap{}).Fits(64) {
		t.Error("Fits is wrong")
	}
}

func TestNewRefusesNonsense(t *testing.T) {
	for _, c := range []struct {
		name      string
		limit     Cap
		protected []Protected
	}{
		{"negative", Cap{AtOnce: -1}, nil},
		{"no window", Cap{New: 5}, nil},
		{"prefix around the mapped addresses", Cap{}, []Protected{prefix("::ffff:0:0/90")}},
	} {
		if _, err := New(c.protected, c.limit); err == nil {
			t.Errorf("%s: accepted", c.name)
		}
	}
}
