package suricata

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/cordon-security/cordon/mitigator/event"
)

// beacon is an alert as Suricata 7 writes it, of a flow of documentation addresses.
const beacon = `{"timestamp":"2026-03-04T05:06:07.123456+0100","flow_id":1234567890123456,"in_iface":"lan0","event_type":"alert",` +
	`"src_ip":"10.1.0.7","src_port":49152,"dest_ip":"203.0.113.9","dest_port":443,"proto":"TCP","direction":"to_server",` +
	`"ether":{"src_mac":"02:00:00:00:00:07","dest_mac":"02:00:00:00:00:01"},` +
	`"alert":{"action":"allowed","gid":1,"signature_id":9000001,"rev":3,"signature":"TEST Beacon","category":"Malware Command and Control Activity Detected","severity":1,` +
	`"metadata":{"signature_severity":["Critical"],"attack_target":["Client_Endpoint"],"mitre_tactic_id":["TA0011"]}},` +
	`"tls":{"sni":"C2.Example.NET."},"app_proto":"tls",` +
	`"flow":{"pkts_toserver":5,"pkts_toclient":4,"bytes_toserver":800,"bytes_toclient":3000,"start":"2026-03-04T05:06:06.000001+0100","src_ip":"10.1.0.7","dest_ip":"203.0.113.9","src_port":49152,"dest_port":443}}`

// alertWith is a small alert with fields added or replaced (the last of a name
// counts).
func alertWith(top, inAlert string) string {
	return `{"timestamp":"2026-03-04T05:06:07.123456+0000","event_type":"alert","src_ip":"10.1.0.7","src_port":40000,"dest_ip":"203.0.113.9","dest_port":80,"proto":"TCP"` +
		top + `,"alert":{"gid":1,"signature_id":9000002,"rev":1,"signature":"TEST","category":"Misc Attack","severity":2` + inAlert + `}}`
}

func TestParseWhole(t *testing.T) {
	e, err := Parse([]byte(beacon))
	if err != nil {
		t.Fatal(err)
	}
	if want := time.Date(2026, 3, 4, 4, 6, 7, 123456000, time.UTC); !e.Time.Equal(want) || e.Time.Location() != time.UTC {
		t.Errorf("time %s, want %s", e.Time, want)
	}
	if e.Kind != "suricata:1:9000001" || e.Severity != event.Critical || e.Proto != event.ProtoTCP || e.FlowID != 1234567890123456 {
		t.Errorf("kind %s, severity %s, protocol %d, flow %d", e.Kind, e.Severity, e.Proto, e.FlowID)
	}
	if e.Src != netip.MustParseAddrPort("10.1.0.7:49152") || e.Dst != netip.MustParseAddrPort("203.0.113.9:443") {
		t.Errorf("ends %s and %s", e.Src, e.Dst)
	}
	if e.SrcMAC.String() != "02:00:00:00:00:07" || e.DstMAC.String() != "02:00:00:00:00:01" {
		t.Errorf("MACs %s and %s", e.SrcMAC, e.DstMAC)
	}
	if !e.Established || e.Initiator != event.SrcSide || e.InitiatorGuessed || !e.Compromise || e.Target != event.TargetClient {
		t.Errorf("established %v, initiator %d, guessed %v, compromise %v, target %d", e.Established, e.Initiator, e.InitiatorGuessed, e.Compromise, e.Target)
	}
	if e.Domain != "c2.example.net" || e.AppProto != "tls" || string(e.Raw) != beacon || e.FlowStart.IsZero() {
		t.Errorf("domain %q, protocol %q, raw kept %v, start %s", e.Domain, e.AppProto, string(e.Raw) == beacon, e.FlowStart)
	}
}

// TestParseOdd holds that odd content costs no more than itself.
func TestParseOdd(t *testing.T) {
	tests := map[string]struct {
		line string
		ok   func(event.Event) bool
	}{
		"zone with colon":       {strings.Replace(alertWith("", ""), "+0000", "+02:00", 1), func(e event.Event) bool { return e.Time.Hour() == 3 }},
		"no zone":               {strings.Replace(alertWith("", ""), "+0000", "", 1), func(e event.Event) bool { return e.Time.Hour() == 5 }},
		"zulu":                  {strings.Replace(alertWith("", ""), "+0000", "Z", 1), func(e event.Event) bool { return e.Time.Hour() == 5 }},
		"flow is a text":        {alertWith(`,"flow":"x"`, ""), func(e event.Event) bool { return !e.Established }},
		"negative counters":     {alertWith(`,"flow":{"pkts_toserver":-1,"pkts_toclient":9}`, ""), func(e event.Event) bool { return !e.Established }},
		"flow id too large":     {alertWith(`,"flow_id":99999999999999999999999`, ""), func(e event.Event) bool { return e.FlowID == 0 }},
		"http is a list":        {alertWith(`,"http":[1]`, ""), func(e event.Event) bool { return e.Domain == "" }},
		"http host":             {alertWith(`,"http":{"hostname":"A.example","url":"/x"}`, ""), func(e event.Event) bool { return e.Domain == "a.example" && e.URL == "/x" }},
		"dns version 2":         {alertWith(`,"dns":{"query":[{"rrname":"q.example"}]}`, ""), func(e event.Event) bool { return e.Domain == "q.example" }},
		"dns version 3":         {alertWith(`,"dns":{"queries":[{"rrname":"r.example"}]}`, ""), func(e event.Event) bool { return e.Domain == "r.example" }},
		"protocol as number":    {alertWith(`,"proto":"017"`, ""), func(e event.Event) bool { return e.Proto == 17 }},
		"protocol out of range": {alertWith(`,"proto":999`, ""), func(e event.Event) bool { return e.Proto == 0 }},
		"metadata as text":      {alertWith("", `,"metadata":{"signature_severity":"Major"}`), func(e event.Event) bool { return e.Severity == event.High }},
		"metadata is a number":  {alertWith("", `,"metadata":7`), func(e event.Event) bool { return e.Severity == event.Medium }},
		"severity as text":      {alertWith("", `,"severity":"1"`), func(e event.Event) bool { return e.Severity == event.High }},
		"severity 4":            {alertWith("", `,"severity":4`), func(e event.Event) bool { return e.Severity == event.Info }},
		"policy of priority 1":  {alertWith("", `,"severity":1,"category":"Potential Corporate Privacy Violation"`), func(e event.Event) bool { return e.Severity == event.Low }},
		"broken MAC":            {alertWith(`,"ether":{"src_mac":"zz"}`, ""), func(e event.Event) bool { return !e.SrcMAC.IsEndpoint() }},
		"no addresses":          {alertWith(`,"src_ip":"","dest_ip":""`, ""), func(e event.Event) bool { return !e.Src.IsValid() }},
		"mapped address":        {alertWith(`,"src_ip":"::ffff:10.1.0.7"`, ""), func(e event.Event) bool { return e.Src.Addr().Is4() }},
		"duplicate keys":        {alertWith(`,"src_ip":"10.1.0.8"`, ""), func(e event.Event) bool { return e.Src.Addr().String() == "10.1.0.8" }},
		"control characters":    {alertWith("", `,"signature":"a\u001b[31m\u0000b"`), func(e event.Event) bool { return !strings.ContainsAny(e.Signature, "\x00\x1b") }},
		"invalid UTF-8":         {alertWith("", ",\"signature\":\"a\xff\xfeb\""), func(e event.Event) bool { return utf8.ValidString(e.Signature) }},
		"long signature":        {alertWith("", `,"signature":"`+strings.Repeat("ä", 5000)+`"`), func(e event.Event) bool { return len(e.Signature) <= maxText+4 && utf8.ValidString(e.Signature) }},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			e, err := Parse([]byte(tt.line))
			if err != nil {
				t.Fatal(err)
			}
			if !tt.ok(e) {
				t.Errorf("read as %+v", e)
			}
		})
	}
}

// hostile are lines that must be refused with a reason, by what they are.
var hostile = map[string]string{
	"no JSON":             "Mar  4 05:06:07 sensor suricata: hello",
	"half a record":       beacon[:len(beacon)/2],
	"two records":         beacon + beacon,
	"a list":              "[1,2,3]",
	"a number":            "7",
	"null":                "null",
	"NULs":                strings.Repeat("\x00", 100),
	"deep nesting":        strings.Repeat(`{"a":`, 10000) + "1" + strings.Repeat("}", 10000),
	"deep nesting inside": alertWith(`,"x":`+strings.Repeat("[", 200)+strings.Repeat("]", 200), ""),
	"unclosed nesting":    strings.Repeat("[", 100000),
	"port too high":       alertWith(`,"src_port":65536`, ""),
	"port negative":       alertWith(`,"dest_port":-1`, ""),
	"port is a text":      alertWith(`,"src_port":"80"`, ""),
	"port is a fraction":  alertWith(`,"src_port":1.5`, ""),
	"not an address":      alertWith(`,"src_ip":"alice"`, ""),
	"address with zone":   alertWith(`,"src_ip":"fe80::1%eth0"`, ""),
	"address of numbers":  alertWith(`,"dest_ip":[10,1,0,7]`, ""),
	"signature too large": alertWith("", `,"signature_id":4294967296`),
	"signature missing":   `{"timestamp":"2026-03-04T05:06:07+0000","event_type":"alert","alert":{}}`,
	"alert missing":       `{"timestamp":"2026-03-04T05:06:07+0000","event_type":"alert"}`,
	"alert is a list":     `{"timestamp":"2026-03-04T05:06:07+0000","event_type":"alert","alert":[]}`,
	"no time":             strings.Replace(alertWith("", ""), `"2026-03-04T05:06:07.123456+0000"`, `""`, 1),
	"year 9999":           strings.Replace(alertWith("", ""), "2026", "9999", 1),
	"no type":             `{"timestamp":"2026-03-04T05:06:07+0000"}`,
	"too long":            alertWith("", `,"x":"`+strings.Repeat("a", 2<<20)+`"`),
}

func TestParseHostile(t *testing.T) {
	for name, line := range hostile {
		t.Run(name, func(t *testing.T) {
			_, err := Parse([]byte(line))
			if err == nil || errors.Is(err, ErrNotAlert) {
				t.Fatalf("not refused: %v", err)
			}
			if len(err.Error()) > 3*maxText {
				t.Errorf("the reason has %d bytes", len(err.Error()))
			}
		})
	}
}

func TestOtherTypesAreNoFaults(t *testing.T) {
	for _, line := range []string{`{"event_type":"flow"}`, `{"event_type":"stats","src_port":"x"}`, `{"event_type":"dns","alert":7}`} {
		if _, err := Parse([]byte(line)); !errors.Is(err, ErrNotAlert) {
			t.Errorf("%s: %v, want ErrNotAlert", line, err)
		}
	}
}

func TestInitiator(t *testing.T) {
	ports := func(src, dst int) string { return fmt.Sprintf(`,"src_port":%d,"dest_port":%d`, src, dst) }
	tests := map[string]struct {
		fields  string
		want    event.Side
		guessed bool
	}{
		"direction to server":      {ports(5000, 6000) + `,"direction":"to_server"`, event.SrcSide, false},
		"direction to client":      {ports(5000, 6000) + `,"direction":"to_client"`, event.DstSide, false},
		"flow's source is ours":    {ports(5000, 6000) + `,"flow":{"src_ip":"10.1.0.7","src_port":5000}`, event.SrcSide, false},
		"flow's source is theirs":  {ports(5000, 6000) + `,"flow":{"src_ip":"203.0.113.9","src_port":6000},"direction":"to_server"`, event.DstSide, false},
		"only one side has sent":   {ports(5000, 6000) + `,"flow":{"pkts_toserver":1,"pkts_toclient":0}`, event.SrcSide, false},
		"ports say source":         {ports(40000, 80), event.SrcSide, true},
		"ports say destination":    {ports(80, 40000), event.DstSide, true},
		"ports say nothing":        {ports(5000, 6000), event.UnknownSide, false},
		"low port to service port": {ports(80, 3389), event.UnknownSide, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			e, err := Parse([]byte(alertWith(tt.fields, "")))
			if err != nil {
				t.Fatal(err)
			}
			if e.Initiator != tt.want || e.InitiatorGuessed != tt.guessed {
				t.Errorf("initiator %d, guessed %v; want %d, %v", e.Initiator, e.InitiatorGuessed, tt.want, tt.guessed)
			}
		})
	}
}

func TestMeaning(t *testing.T) {
	tests := map[string]struct {
		inAlert string
		ok      func(event.Event) bool
	}{
		"target keyword":       {`,"source":{"ip":"203.0.113.9","port":80},"target":{"ip":"10.1.0.7","port":40000}`, func(e event.Event) bool { return e.Victim == event.SrcSide }},
		"target of neither":    {`,"target":{"ip":"192.0.2.1"}`, func(e event.Event) bool { return e.Victim == event.UnknownSide }},
		"target is a text":     {`,"target":"x"`, func(e event.Event) bool { return e.Victim == event.UnknownSide }},
		"web server":           {`,"metadata":{"attack_target":["Web_Server"]}`, func(e event.Event) bool { return e.Target == event.TargetServer }},
		"both ends":            {`,"metadata":{"attack_target":["Client_and_Server"]}`, func(e event.Event) bool { return e.Target == event.TargetUnknown }},
		"trojan":               {`,"category":"A Network Trojan was detected"`, func(e event.Event) bool { return e.Compromise }},
		"exfiltration":         {`,"metadata":{"mitre_tactic_id":["TA0010"]}`, func(e event.Event) bool { return e.Compromise }},
		"tag":                  {`,"metadata":{"tag":["Some_CnC"]}`, func(e event.Event) bool { return e.Compromise }},
		"name":                 {`,"signature":"TEST Known C2 Server"`, func(e event.Event) bool { return e.Compromise }},
		"a word that holds c2": {`,"signature":"TEST EC2 instance asked"`, func(e event.Event) bool { return !e.Compromise }},
		"attempt":              {`,"category":"Attempted User Privilege Gain"`, func(e event.Event) bool { return e.Attempt && !e.Compromise }},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			e, err := Parse([]byte(alertWith("", tt.inAlert)))
			if err != nil {
				t.Fatal(err)
			}
			if !tt.ok(e) {
				t.Errorf("read as %+v", e)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(beacon))
	f.Add([]byte(alertWith(`,"dns":{"query":[{"rrname":"a"}]},"flow":{"state":"established"}`, `,"metadata":{"tag":["c2"]},"target":{"ip":"10.1.0.7"}`)))
	for _, line := range hostile {
		if len(line) < 4096 {
			f.Add([]byte(line))
		}
	}
	home := event.HomeNetworks{Include: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::/0")}}
	f.Fuzz(func(t *testing.T, line []byte) {
		e, err := Parse(line)
		if err != nil {
			return
		}
		if string(e.Raw) != string(line) || !utf8.ValidString(e.Signature) || !utf8.ValidString(e.Domain) || e.Time.IsZero() {
			t.Errorf("read as %+v", e)
		}
		if e.Established && e.Proto != event.ProtoTCP {
			t.Errorf("protocol %d has no handshake", e.Proto)
		}
		for _, l := range event.Locate(e, home) {
			if ok, why := l.Containable(e.SrcMAC); why == "" || (ok && l.Role != event.Attacker) {
				t.Errorf("containable %v as %s: %q", ok, l.Role, why)
			}
		}
	})
}
