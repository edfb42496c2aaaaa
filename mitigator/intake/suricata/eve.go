// Package suricata reads Suricata's EVE records, one JSON object a line, from
// the file or the socket that Suricata writes them to.
package suricata

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/cordon-security/cordon/mitigator/endpoint"
	"github.com/cordon-security/cordon/mitigator/event"
)

// MaxLine bounds one record in bytes.
const MaxLine = 1 << 20

// maxDepth bounds the nesting of a record; Suricata's own stay below ten.
const maxDepth = 64

// maxText bounds each text that is taken out of a record; Raw keeps the whole.
const maxText = 2048

// ErrNotAlert says that a record is well-formed and no alert: nothing to do.
var ErrNotAlert = errors.New("no alert")

// record is what is read of an EVE record. What is not of the essence is kept as
// it came and read tolerantly afterwards, so that an odd field costs its own
// content and not the alert.
type record struct {
	Timestamp string          `json:"timestamp"`
	EventType string          `json:"event_type"`
	SrcIP     string          `json:"src_ip"`
	SrcPort   uint16          `json:"src_port"`
	DestIP    string          `json:"dest_ip"`
	DestPort  uint16          `json:"dest_port"`
	Proto     json.RawMessage `json:"proto"`
	Alert     *alert          `json:"alert"`
	Direction json.RawMessage `json:"direction"`
	AppProto  json.RawMessage `json:"app_proto"`
	FlowID    json.RawMessage `json:"flow_id"`
	Flow      json.RawMessage `json:"flow"`
	Ether     json.RawMessage `json:"ether"`
	HTTP      json.RawMessage `json:"http"`
	TLS       json.RawMessage `json:"tls"`
	DNS       json.RawMessage `json:"dns"`
}

type alert struct {
	GID         uint32          `json:"gid"`
	SignatureID *uint32         `json:"signature_id"`
	Rev         uint32          `json:"rev"`
	Signature   string          `json:"signature"`
	Category    string          `json:"category"`
	Severity    json.RawMessage `json:"severity"`
	Metadata    json.RawMessage `json:"metadata"`
	Source      json.RawMessage `json:"source"`
	Target      json.RawMessage `json:"target"`
}

type end struct {
	IP   string `json:"ip"`
	Port uint16 `json:"port"`
}

type flow struct {
	PktsToServer  uint64 `json:"pkts_toserver"`
	PktsToClient  uint64 `json:"pkts_toclient"`
	BytesToClient uint64 `json:"bytes_toclient"`
	Start         string `json:"start"`
	SrcIP         string `json:"src_ip"`
	SrcPort       uint16 `json:"src_port"`
	State         string `json:"state"`
}

// Parse reads one record, without its line end. It returns ErrNotAlert for a
// record of another type; any other error says in words why the record cannot be
// used. The event's Source, Key and Received are the caller's to set; Raw is a
// copy. It never panics, whatever the line.
func Parse(line []byte) (event.Event, error) {
	if len(line) > MaxLine {
		return event.Event{}, fmt.Errorf("the record has %d bytes, the limit is %d", len(line), MaxLine)
	}
	if err := checkDepth(line); err != nil {
		return event.Event{}, err
	}
	var r record
	err := json.Unmarshal(line, &r)
	var odd *json.UnmarshalTypeError
	if errors.As(err, &odd) && r.EventType != "" && r.EventType != "alert" {
		return event.Event{}, ErrNotAlert
	}
	if err != nil {
		return event.Event{}, fmt.Errorf("not an EVE record: %w", err)
	}
	if r.EventType == "" {
		return event.Event{}, errors.New("not an EVE record: event_type is missing")
	}
	if r.EventType != "alert" {
		return event.Event{}, ErrNotAlert
	}
	e, err := normalise(&r)
	if err != nil {
		return event.Event{}, err
	}
	e.Raw = bytes.Clone(line)
	return e, nil
}

// checkDepth refuses deep nesting before the decoder walks it.
func checkDepth(line []byte) error {
	depth, quoted, escaped := 0, false, false
	for _, c := range line {
		switch {
		case escaped:
			escaped = false
		case quoted && c == '\\':
			escaped = true
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return fmt.Errorf("nested deeper than %d levels", maxDepth)
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return nil
}

func normalise(r *record) (event.Event, error) {
	a := r.Alert
	if a == nil || a.SignatureID == nil {
		return event.Event{}, errors.New("an alert without alert.signature_id")
	}
	at, err := parseTime(r.Timestamp)
	if err != nil {
		return event.Event{}, err
	}
	e := event.Event{
		Time: at, GID: a.GID, SignatureID: *a.SignatureID, Rev: a.Rev,
		Kind:      fmt.Sprintf("suricata:%d:%d", a.GID, *a.SignatureID),
		Signature: clean(a.Signature), Category: clean(a.Category),
		Proto: parseProto(r.Proto), AppProto: clean(text(r.AppProto)), FlowID: number(r.FlowID),
	}
	if e.Src, err = parseEnd("src", r.SrcIP, r.SrcPort); err != nil {
		return event.Event{}, err
	}
	if e.Dst, err = parseEnd("dest", r.DestIP, r.DestPort); err != nil {
		return event.Event{}, err
	}
	var ether struct {
		SrcMAC  string `json:"src_mac"`
		DestMAC string `json:"dest_mac"`
	}
	loose(r.Ether, &ether)
	e.SrcMAC, e.DstMAC = parseMAC(ether.SrcMAC), parseMAC(ether.DestMAC)
	readFlow(&e, r)
	readNames(&e, r)
	readMeaning(&e, a)
	return e, nil
}

// parseTime reads Suricata's time. Its zone comes without a colon, in newer
// versions and by other writers with one, and in old versions not at all: that
// is UTC then.
func parseTime(s string) (time.Time, error) {
	if len(s) > 64 {
		return time.Time{}, errors.New("timestamp is too long")
	}
	for _, layout := range [...]string{"2006-01-02T15:04:05.999999999Z0700", time.RFC3339Nano, "2006-01-02T15:04:05.999999999"} {
		if t, err := time.Parse(layout, s); err == nil {
			return checkYear(t.UTC())
		}
	}
	return time.Time{}, fmt.Errorf("timestamp %q is not a time such as 2026-01-31T12:00:00.000000+0100", clean(s))
}

// checkYear holds times to what every store can hold.
func checkYear(t time.Time) (time.Time, error) {
	if t.Year() < 1970 || t.Year() > 2200 {
		return time.Time{}, fmt.Errorf("timestamp's year %d is out of range", t.Year())
	}
	return t, nil
}

// parseEnd reads one side; a missing address is allowed (an alert of the decoder
// has none), a broken one is not.
func parseEnd(side, ip string, port uint16) (netip.AddrPort, error) {
	if ip == "" {
		return netip.AddrPort{}, nil
	}
	a, err := netip.ParseAddr(ip)
	if err != nil || a.Zone() != "" {
		return netip.AddrPort{}, fmt.Errorf("%s_ip %q is not an address", side, clean(ip))
	}
	return netip.AddrPortFrom(a.Unmap(), port), nil
}

func parseMAC(s string) endpoint.MAC {
	if s == "" || len(s) > 32 {
		return endpoint.MAC{}
	}
	m, err := endpoint.ParseMAC(s)
	if err != nil {
		return endpoint.MAC{}
	}
	return m
}

var protoNumbers = map[string]uint8{
	"icmp": 1, "igmp": 2, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "ah": 51, "ipv6-icmp": 58, "icmpv6": 58, "sctp": 132,
}

// parseProto reads a name, or the number that Suricata writes for protocols that
// it has no name for.
func parseProto(raw json.RawMessage) uint8 {
	s := text(raw)
	if n, ok := protoNumbers[strings.ToLower(s)]; ok {
		return n
	}
	n, err := strconv.ParseUint(strings.TrimLeft(s, "0"), 10, 8)
	if err != nil {
		return 0
	}
	return uint8(n)
}

// readNames takes the name that was asked for.
func readNames(e *event.Event, r *record) {
	var http struct {
		Hostname string `json:"hostname"`
		URL      string `json:"url"`
	}
	var tls struct {
		SNI string `json:"sni"`
	}
	loose(r.HTTP, &http)
	loose(r.TLS, &tls)
	e.URL = clean(http.URL)
	for _, name := range [...]string{dnsName(r.DNS), tls.SNI, http.Hostname} {
		if name != "" {
			e.Domain = strings.ToLower(strings.TrimSuffix(clean(name), "."))
			return
		}
	}
}

// dnsName reads the question of both shapes: version 2 has a list under query,
// version 3 under queries; records of type dns have rrname itself.
func dnsName(raw json.RawMessage) string {
	type question struct {
		RRName string `json:"rrname"`
	}
	var dns struct {
		RRName  string          `json:"rrname"`
		Query   json.RawMessage `json:"query"`
		Queries json.RawMessage `json:"queries"`
	}
	loose(raw, &dns)
	if dns.RRName != "" {
		return dns.RRName
	}
	for _, list := range [...]json.RawMessage{dns.Query, dns.Queries} {
		var questions []question
		loose(list, &questions)
		if len(questions) > 0 {
			return questions[0].RRName
		}
	}
	return ""
}

// loose reads what fits and leaves the rest at its zero value.
func loose(raw json.RawMessage, into any) {
	if len(raw) > 0 {
		_ = json.Unmarshal(raw, into)
	}
}

// text reads a string, or a number as its digits; anything else is "".
func text(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	if len(raw) > 0 && (raw[0] == '-' || (raw[0] >= '0' && raw[0] <= '9')) {
		return string(raw)
	}
	return ""
}

// number reads a non-negative number, also one in quotes; anything else is 0.
func number(raw json.RawMessage) uint64 {
	n, err := strconv.ParseUint(text(raw), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// clean makes text fit to be stored and shown on a terminal: valid UTF-8, no
// control characters, bounded.
func clean(s string) string {
	if len(s) > maxText {
		s = s[:maxText]
	}
	s = strings.ToValidUTF8(s, "\uFFFD")
	return strings.Map(func(r rune) rune {
		if r < 0x20 || (r >= 0x7f && r < 0xa0) {
			return '\uFFFD'
		}
		return r
	}, s)
}
