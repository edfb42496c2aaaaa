package suricata

import (
	"encoding/json"
	"net/netip"
	"strconv"
	"strings"

	"github.com/cordon-security/cordon/mitigator/event"
)

// ephemeralPort is the lowest port that Linux takes for outgoing connections;
// other systems begin higher.
const ephemeralPort = 32768

// readFlow finds out who opened the flow and whether both sides took part.
func readFlow(e *event.Event, r *record) {
	var f flow
	loose(r.Flow, &f)
	if start, err := parseTime(f.Start); err == nil {
		e.FlowStart = start
	}
	e.Initiator, e.InitiatorGuessed = initiator(e, f, text(r.Direction))
	if e.Proto != event.ProtoTCP {
		return
	}
	known := e.AppProto != "" && e.AppProto != "failed" && e.AppProto != "unknown"
	e.Established = f.State == "established" ||
		event.EstablishedTCP(f.PktsToServer, f.PktsToClient, f.BytesToClient, e.Src.Addr().Is6(), known)
}

// initiator concludes from the most certain evidence first: the flow's own ends
// and the packet's direction (Suricata 7), a flow in which one side alone has
// sent, and at last the ports.
func initiator(e *event.Event, f flow, direction string) (side event.Side, guessed bool) {
	if a, err := netip.ParseAddr(f.SrcIP); err == nil {
		opener := netip.AddrPortFrom(a.Unmap(), f.SrcPort)
		switch {
		case opener == e.Src && opener != e.Dst:
			return event.SrcSide, false
		case opener == e.Dst && opener != e.Src:
			return event.DstSide, false
		}
	}
	switch direction {
	case "to_server":
		return event.SrcSide, false
	case "to_client":
		return event.DstSide, false
	}
	if f.PktsToServer > 0 && f.PktsToClient == 0 {
		return event.SrcSide, false
	}
	src, dst := e.Src.Port(), e.Dst.Port()
	switch {
	case src >= ephemeralPort && dst > 0 && dst < 1024:
		return event.SrcSide, true
	case dst >= ephemeralPort && src > 0 && src < 1024:
		return event.DstSide, true
	}
	return event.UnknownSide, false
}

// compromiseClasses are the categories of signatures that show a machine which
// is compromised already and acts.
var compromiseClasses = map[string]bool{
	"malware command and control activity detected": true,
	"a network trojan was detected":                 true,
	"domain observed used for c2 detected":          true,
	"crypto currency mining activity detected":      true,
}

// attemptClasses are the categories of signatures that match an attack on its
// way to the receiver of the packet.
var attemptClasses = map[string]bool{
	"attempted administrator privilege gain": true,
	"attempted user privilege gain":          true,
	"web application attack":                 true,
	"exploit kit activity detected":          true,
	"attempted denial of service":            true,
	"executable code was detected":           true,
}

// mildClasses say nothing about an endpoint's being attacked or compromised:
// policy, decoder anomalies. Their rule sets give some of them priority 1.
var mildClasses = map[string]bool{
	"potential corporate privacy violation": true,
	"not suspicious traffic":                true,
	"generic protocol command decode":       true,
	"misc activity":                         true,
}

// readMeaning takes severity, target and class of the signature.
func readMeaning(e *event.Event, a *alert) {
	meta := readMetadata(a.Metadata)
	class := strings.ToLower(e.Category)
	e.Severity = severity(number(a.Severity), class, meta["signature_severity"])
	e.Attempt = attemptClasses[class]
	e.Victim = targetSide(e, a)
	e.Target = target(meta["attack_target"])
	e.CompromiseBy = compromise(e, class, meta)
	e.Compromise = e.CompromiseBy != ""
}

// severity maps the signature's own word when it has one, else the priority of
// its class.
func severity(priority uint64, class string, words []string) event.Severity {
	for _, w := range words {
		switch strings.ToLower(w) {
		case "critical":
			return event.Critical
		case "major":
			return event.High
		case "minor":
			return event.Low
		case "informational":
			return event.Info
		}
	}
	s := event.Info
	switch priority {
	case 1:
		s = event.High
	case 2:
		s = event.Medium
	case 3:
		s = event.Low
	}
	if mildClasses[class] {
		return min(s, event.Low)
	}
	return s
}

// targetSide reads what Suricata adds for a signature with the target keyword.
func targetSide(e *event.Event, a *alert) event.Side {
	if len(a.Target) == 0 {
		return event.UnknownSide
	}
	var t end
	loose(a.Target, &t)
	addr, err := netip.ParseAddr(t.IP)
	if err != nil {
		return event.UnknownSide
	}
	addr = addr.Unmap()
	switch {
	case addr == e.Src.Addr() && addr != e.Dst.Addr():
		return event.SrcSide
	case addr == e.Dst.Addr() && addr != e.Src.Addr():
		return event.DstSide
	}
	return event.UnknownSide
}

func target(words []string) event.Target {
	for _, w := range words {
		switch strings.ToLower(w) {
		case "client_endpoint", "mobile_client":
			return event.TargetClient
		case "server", "web_server", "http_server", "sql_server", "smtp_server", "dns_server", "ftp_server", "smb_server",
			"ssh_server", "ntp_server", "dc", "domain_controller", "rdp_server", "networking_equipment", "iot", "ics", "server_endpoint":
			return event.TargetServer
		}
	}
	return event.TargetUnknown
}

// compromise says what in the signature shows a compromised machine, or "".
func compromise(e *event.Event, class string, meta map[string][]string) string {
	if compromiseClasses[class] {
		return "the signature's class is \"" + e.Category + "\""
	}
	for _, tactic := range meta["mitre_tactic_id"] {
		switch strings.ToUpper(tactic) {
		case "TA0011":
			return "the signature's tactic is command and control (TA0011)"
		case "TA0010":
			return "the signature's tactic is exfiltration (TA0010)"
		}
	}
	for _, key := range [...]string{"tag", "malware_family"} {
		for _, v := range meta[key] {
			if namesC2(v) {
				return "the signature's " + key + " is " + clean(v)
			}
		}
	}
	if namesC2(e.Signature) {
		return "the signature names command and control"
	}
	return ""
}

// namesC2 reports whether a word of the text means command and control.
func namesC2(s string) bool {
	words := strings.FieldsFunc(strings.ToLower(s), func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '&'
	})
	for _, w := range words {
		switch w {
		case "cnc", "c2", "c&c":
			return true
		}
	}
	return false
}

// readMetadata reads values that are lists of texts (as Suricata writes them) or
// single texts.
func readMetadata(raw json.RawMessage) map[string][]string {
	var fields map[string]json.RawMessage
	loose(raw, &fields)
	out := make(map[string][]string, len(fields))
	for key, value := range fields {
		var list []json.RawMessage
		loose(value, &list)
		if len(list) == 0 {
			list = []json.RawMessage{value}
		}
		for _, v := range list {
			if t := text(v); t != "" {
				out[strings.ToLower(key)] = append(out[strings.ToLower(key)], unquote(t))
			}
		}
	}
	return out
}

// unquote takes off the quotes that some rule writers put inside the value.
func unquote(s string) string {
	if u, err := strconv.Unquote(s); err == nil {
		return u
	}
	return s
}
