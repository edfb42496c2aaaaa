package suricata

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/cordon-security/cordon/mitigator/endpoint"
	"github.com/cordon-security/cordon/mitigator/event"
)

// TestFromAlertToContainment follows whole records, each to what policy may do
// about our side of it.
func TestFromAlertToContainment(t *testing.T) {
	mac := endpoint.MAC{2, 0, 0, 0, 0, 7}
	ether := `,"ether":{"src_mac":"02:00:00:00:00:07","dest_mac":"02:00:00:00:00:01"}`
	swapped := `,"src_ip":"203.0.113.9","src_port":40000,"dest_ip":"10.1.0.7","dest_port":80`
	trojan := `,"category":"A Network Trojan was detected"`
	both := `,"flow":{"pkts_toserver":9,"pkts_toclient":8,"bytes_toserver":900,"bytes_toclient":9000}`
	flood := `,"flow":{"pkts_toserver":40,"pkts_toclient":90,"bytes_toserver":2400,"bytes_toclient":6660}`
	tests := map[string]struct {
		top, inAlert string
		role         event.Role
		containable  bool
		reason       string
	}{
		"infected machine asks its master": {`,"direction":"to_server"` + both, trojan, event.Attacker, true, "established"},
		"the same from an older Suricata":  {both, trojan, event.Attacker, true, "established"},
		"attacked server": {swapped + `,"direction":"to_server"` + both, `,"category":"Web Application Attack"`,
			event.Victim, false, "victim"},
		"attacked server, target keyword": {swapped + both, `,"target":{"ip":"10.1.0.7","port":80}`, event.Victim, false, "victim"},
		"forged UDP source": {`,"proto":"UDP","direction":"to_server","app_proto":"dns"` + both, trojan,
			event.Attacker, false, "UDP has no handshake"},
		"forged SYN flood": {`,"direction":"to_server"` + flood, `,"category":"Attempted Denial of Service"`,
			event.Attacker, false, "never established"},
		"answer to a forged question": {swapped + `,"proto":"UDP","direction":"to_client","ether":{"src_mac":"02:00:00:00:00:01","dest_mac":"02:00:00:00:00:07"}`,
			trojan, event.Attacker, false, "UDP has no handshake"},
		"UDP from the machine's own MAC": {`,"proto":"UDP","direction":"to_server"` + ether, trojan, event.Attacker, true, "owned the address"},
		"UDP with another's MAC": {`,"proto":"UDP","direction":"to_server"` + strings.Replace(ether, "07", "66", 1), trojan,
			event.Attacker, false, "belonged to"},
		"nobody knows who opened": {`,"src_port":5000,"dest_port":6000` + both, trojan, event.Unknown, false, "not known"},
	}
	home := event.HomeNetworks{Include: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")}}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			e, err := Parse([]byte(alertWith(tt.top, tt.inAlert)))
			if err != nil {
				t.Fatal(err)
			}
			locals := event.Locate(e, home)
			if len(locals) != 1 {
				t.Fatalf("%d sides are ours, want 1", len(locals))
			}
			ok, why := locals[0].Containable(mac)
			if locals[0].Role != tt.role || ok != tt.containable || !strings.Contains(why, tt.reason) {
				t.Errorf("%s, containable %v (%s); want %s, %v (%s)", locals[0].Role, ok, why, tt.role, tt.containable, tt.reason)
			}
		})
	}
}
