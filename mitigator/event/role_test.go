package event

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/cordon-security/cordon/mitigator/endpoint"
)

var (
	home = HomeNetworks{
		Include: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24"), netip.MustParsePrefix("fd00::/64")},
		Exclude: []netip.Prefix{netip.MustParsePrefix("10.1.0.1/32")},
	}
	ours    = netip.MustParseAddrPort("10.1.0.7:49152")
	second  = netip.MustParseAddrPort("10.1.0.8:445")
	foreign = netip.MustParseAddrPort("203.0.113.9:80")
	mac     = endpoint.MAC{2, 0, 0, 0, 0, 7}
)

// TestRoles follows the table of docs/data-sources.md, rule by rule.
func TestRoles(t *testing.T) {
	c2 := "the class says so"
	tests := []struct {
		name string
		e    Event
		want Role // of the packet's source when that is ours, else of its destination
	}{
		{"1 compromised, opened it", Event{Src: ours, Dst: foreign, Initiator: SrcSide, Compromise: true, CompromiseBy: c2}, Attacker},
		{"1 compromised, answer matched", Event{Src: foreign, Dst: ours, Initiator: DstSide, Compromise: true, CompromiseBy: c2}, Attacker},
		{"1 beats the target keyword", Event{Src: ours, Dst: foreign, Initiator: SrcSide, Victim: SrcSide, Compromise: true, CompromiseBy: c2}, Attacker},
		{"1 beats the metadata target", Event{Src: ours, Dst: foreign, Initiator: SrcSide, Target: TargetClient, Compromise: true, CompromiseBy: c2}, Attacker},
		{"1 not for who was connected to", Event{Src: foreign, Dst: ours, Initiator: SrcSide, Compromise: true, CompromiseBy: c2}, Victim},
		{"1 not when nobody knows who opened", Event{Src: ours, Dst: foreign, Compromise: true, CompromiseBy: c2}, Unknown},
		{"2 target keyword names us", Event{Src: foreign, Dst: ours, Initiator: SrcSide, Victim: DstSide}, Victim},
		{"2 target keyword names us, our side opened", Event{Src: ours, Dst: foreign, Initiator: SrcSide, Victim: SrcSide}, Victim},
		{"2 target keyword names the other", Event{Src: ours, Dst: foreign, Victim: DstSide}, Attacker},
		{"3 initiator unknown", Event{Src: ours, Dst: foreign, Target: TargetServer}, Unknown},
		{"4 client target, the client", Event{Src: ours, Dst: foreign, Initiator: SrcSide, Target: TargetClient}, Victim},
		{"4 client target, the server", Event{Src: foreign, Dst: ours, Initiator: SrcSide, Target: TargetClient}, Unknown},
		{"4 server target, the server", Event{Src: foreign, Dst: ours, Initiator: SrcSide, Target: TargetServer}, Victim},
		{"4 server target, the client", Event{Src: ours, Dst: foreign, Initiator: SrcSide, Target: TargetServer}, Attacker},
		{"5 exploit in the answer", Event{Src: foreign, Dst: ours, Initiator: DstSide, Attempt: true}, Victim},
		{"5 exploit sent by the opener", Event{Src: ours, Dst: foreign, Initiator: SrcSide, Attempt: true}, Attacker},
		{"6 scan from inside", Event{Src: ours, Dst: foreign, Initiator: SrcSide}, Attacker},
		{"7 attacked server", Event{Src: foreign, Dst: ours, Initiator: SrcSide}, Victim},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := Locate(tt.e, home)
			if len(got) != 1 {
				t.Fatalf("%d sides are ours, want 1: %+v", len(got), got)
			}
			if got[0].Role != tt.want || got[0].RoleReason == "" {
				t.Errorf("role %s (%s), want %s", got[0].Role, got[0].RoleReason, tt.want)
			}
		})
	}
}

func TestLateralMovementGivesBothSides(t *testing.T) {
	got := Locate(Event{Src: ours, Dst: second, Initiator: SrcSide, SrcMAC: mac, DstMAC: endpoint.MAC{2, 0, 0, 0, 0, 8}}, home)
	if len(got) != 2 || got[0].Role != Attacker || got[1].Role != Victim {
		t.Fatalf("got %+v, want an attacker and a victim", got)
	}
	if got[0].MAC != mac || got[1].MAC != (endpoint.MAC{}) {
		t.Errorf("MACs %s and %s: only a sender's frame proves anything", got[0].MAC, got[1].MAC)
	}
	if got[0].Remote != second || got[1].Remote != ours || !got[0].Outbound || got[1].Outbound {
		t.Errorf("ends and directions are wrong: %+v", got)
	}
}

func TestHomeNetworks(t *testing.T) {
	wide := HomeNetworks{Include: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}}
	tests := []struct {
		h    HomeNetworks
		a    string
		want bool
	}{
		{home, "10.1.0.7", true}, {home, "::ffff:10.1.0.7", true}, {home, "fd00::7", true},
		{home, "10.1.0.1", false}, {home, "10.1.0.0", false}, {home, "10.1.0.255", false}, {home, "10.1.1.7", false},
		{wide, "0.0.0.0", false}, {wide, "255.255.255.255", false}, {wide, "224.0.0.251", false}, {wide, "127.0.0.1", false},
		{wide, "169.254.3.4", false}, {wide, "::", false}, {wide, "::1", false}, {wide, "ff02::1", false}, {wide, "fe80::1", true},
		{HomeNetworks{Include: []netip.Prefix{netip.MustParsePrefix("10.9.9.9/32")}}, "10.9.9.9", true},
		{HomeNetworks{Include: []netip.Prefix{netip.MustParsePrefix("10.9.9.8/31")}}, "10.9.9.9", true},
		{HomeNetworks{}, "10.1.0.7", false},
	}
	for _, tt := range tests {
		if got := tt.h.Contains(netip.MustParseAddr(tt.a)); got != tt.want {
			t.Errorf("%v contains %s: %v, want %v", tt.h.Include, tt.a, got, tt.want)
		}
	}
	if home.Contains(netip.Addr{}) {
		t.Error("no address is an endpoint")
	}
}

func TestContainable(t *testing.T) {
	other := endpoint.MAC{2, 0, 0, 0, 0, 9}
	attacker := Event{Src: ours, Dst: foreign, Initiator: SrcSide, Proto: ProtoTCP}
	with := func(change func(*Event)) Event { e := attacker; change(&e); return e }
	tests := []struct {
		name    string
		e       Event
		binding endpoint.MAC
		want    bool
		reason  string
	}{
		{"established TCP", with(func(e *Event) { e.Established = true }), endpoint.MAC{}, true, "established"},
		{"SYN without MAC", attacker, mac, false, "never established"},
		{"spoofed UDP", with(func(e *Event) { e.Proto = ProtoUDP }), mac, false, "UDP has no handshake"},
		{"UDP said to be established", with(func(e *Event) { e.Proto, e.Established = ProtoUDP, true }), mac, false, "UDP has no handshake"},
		{"spoofed ICMP", with(func(e *Event) { e.Proto = ProtoICMP }), mac, false, "ICMP has no handshake"},
		{"UDP, MAC verified", with(func(e *Event) { e.Proto, e.SrcMAC = ProtoUDP, mac }), mac, true, "owned the address"},
		{"UDP, MAC of another", with(func(e *Event) { e.Proto, e.SrcMAC = ProtoUDP, other }), mac, false, "belonged to"},
		{"UDP, owner unknown", with(func(e *Event) { e.Proto, e.SrcMAC = ProtoUDP, mac }), endpoint.MAC{}, false, "not known which MAC"},
		{"group MAC", with(func(e *Event) { e.SrcMAC = endpoint.MAC{1, 0, 0, 0, 0, 1} }), endpoint.MAC{1, 0, 0, 0, 0, 1}, false, "recorded no MAC"},
		{"victim, established", Event{Src: foreign, Dst: ours, Initiator: SrcSide, Proto: ProtoTCP, Established: true}, mac, false, "victim"},
		{"unknown, established", Event{Src: ours, Dst: foreign, Proto: ProtoTCP, Established: true}, mac, false, "not known"},
		{"answer to a forged question", Event{Src: foreign, Dst: ours, Initiator: DstSide, Proto: ProtoUDP, DstMAC: mac}, mac, false, "UDP"},
		{"opener guessed", with(func(e *Event) { e.Established, e.InitiatorGuessed = true, true }), mac, false, "guessed"},
		{"opener guessed, command and control outside", with(func(e *Event) {
			e.Established, e.InitiatorGuessed, e.Compromise, e.CompromiseBy = true, true, true, "x"
		}), mac, true, "established"},
		{"opener guessed, command and control inside", Event{Src: ours, Dst: second, Initiator: SrcSide, InitiatorGuessed: true,
			Proto: ProtoTCP, Established: true, Compromise: true, CompromiseBy: "x"}, mac, false, "guessed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ok, why := Locate(tt.e, home)[0].Containable(tt.binding)
			if ok != tt.want || !strings.Contains(why, tt.reason) {
				t.Errorf("containable %v (%s), want %v because %q", ok, why, tt.want, tt.reason)
			}
		})
	}
}

func TestEstablishedTCP(t *testing.T) {
	tests := []struct {
		name                    string
		toServer, toClient, got uint64
		ipv6, app, want         bool
	}{
		{"one SYN", 1, 0, 0, false, false, false},
		{"SYN and SYN-ACK", 1, 1, 74, false, false, false},
		{"forged SYNs, retransmitted SYN-ACKs", 9, 30, 30 * 74, false, false, false},
		{"the same with a VLAN tag", 9, 30, 30 * 78, false, false, false},
		{"the same over IPv6", 9, 30, 30 * 94, true, false, false},
		{"forged SYN, SYN-ACK, the owner's RST", 2, 1, 74, false, false, false},
		{"refused connections", 20, 20, 20 * 60, false, false, false},
		{"an answer", 5, 4, 3*66 + 500, false, false, true},
		{"protocol recognised", 4, 3, 210, false, true, true},
		{"protocol recognised in one direction alone", 4, 0, 0, false, true, false},
		{"counters at their limits", ^uint64(0), ^uint64(0), ^uint64(0), false, false, false},
	}
	for _, tt := range tests {
		if got := EstablishedTCP(tt.toServer, tt.toClient, tt.got, tt.ipv6, tt.app); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestNamesReadBack(t *testing.T) {
	for s := Info; s <= Critical; s++ {
		text, err := s.MarshalText()
		var back Severity
		if err != nil || back.UnmarshalText(text) != nil || back != s {
			t.Errorf("severity %s reads back as %s", s, back)
		}
	}
	for r := Unknown; r <= Victim; r++ {
		text, err := r.MarshalText()
		var back Role
		if err != nil || back.UnmarshalText(text) != nil || back != r {
			t.Errorf("role %s reads back as %s", r, back)
		}
	}
	if new(Severity).UnmarshalText([]byte("bad")) == nil || new(Role).UnmarshalText([]byte("bad")) == nil {
		t.Error("an unknown name was taken")
	}
}

func TestKeys(t *testing.T) {
	raw := []byte("x")
	all := []Key{FileKey("a", 1, 2, raw), FileKey("a", 1, 3, raw), FileKey("a", 2, 2, raw), FileKey("b", 1, 2, raw),
		FileKey("a", 1, 2, []byte("y")), StreamKey("a", raw), StreamKey("b", raw)}
	seen := map[Key]int{}
	for i, k := range all {
		if j, ok := seen[k]; ok {
			t.Errorf("keys %d and %d are equal", i, j)
		}
		seen[k] = i
	}
	if FileKey("a", 1, 2, raw) != all[0] {
		t.Error("a key is not stable")
	}
}
