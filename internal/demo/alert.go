package demo

import (
	"bufio"
	"bytes"
	_ "embed" // the alert
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"
)

// ownAlert is a record as Suricata 7 writes it. Rule, category, severity and
// protocol are those of an alert that a real sensor raised; the rest is made up.
//
//go:embed alert.json
var ownAlert []byte

// eveTime is how Suricata writes times.
const eveTime = "2006-01-02T15:04:05.000000-0700"

// maxAlert bounds a record that is read, in bytes.
const maxAlert = 1 << 20

// alert is a Suricata EVE alert whose addresses, ports and times are to be
// replaced; every other field stays as it came.
type alert struct {
	fields    map[string]json.RawMessage
	flow      map[string]json.RawMessage
	signature string
	id        int64
	// age is the time from the flow's start to the alert.
	age time.Duration
}

// loadAlert reads the first record of a file, or the package's own.
func loadAlert(path string) (alert, error) {
	if path == "" {
		return parseAlert(ownAlert)
	}
	f, err := os.Open(path)
	if err != nil {
		return alert{}, fmt.Errorf("read the alert: %w", err)
	}
	defer f.Close()
	line, err := bufio.NewReader(io.LimitReader(f, maxAlert)).ReadBytes('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return alert{}, fmt.Errorf("read the alert: %w", err)
	}
	a, err := parseAlert(line)
	if err != nil {
		return alert{}, fmt.Errorf("%s: %w", path, err)
	}
	return a, nil
}

func parseAlert(line []byte) (alert, error) {
	var a alert
	if err := json.Unmarshal(line, &a.fields); err != nil {
		return alert{}, fmt.Errorf("its first line is no EVE record: %w", err)
	}
	var known struct {
		Type  string `json:"event_type"`
		Proto string `json:"proto"`
		Time  string `json:"timestamp"`
		Alert struct {
			ID        int64  `json:"signature_id"`
			Signature string `json:"signature"`
		} `json:"alert"`
		Flow struct {
			Start string `json:"start"`
		} `json:"flow"`
	}
	if err := json.Unmarshal(line, &known); err != nil {
		return alert{}, fmt.Errorf("its first line is no EVE record: %w", err)
	}
	if known.Type != "alert" || known.Proto != "TCP" {
		return alert{}, fmt.Errorf("its first record is %q of %q, not an alert of TCP", known.Type, known.Proto)
	}
	a.signature, a.id = known.Alert.Signature, known.Alert.ID
	if flow, ok := a.fields["flow"]; ok {
		if err := json.Unmarshal(flow, &a.flow); err != nil {
			return alert{}, fmt.Errorf("its flow: %w", err)
		}
	}
	seen, err1 := time.Parse(eveTime, known.Time)
	start, err2 := time.Parse(eveTime, known.Flow.Start)
	if err1 == nil && err2 == nil && seen.After(start) {
		a.age = seen.Sub(start)
	}
	return a, nil
}

// line is the record of a connection from src to dst that is seen now, as
// Suricata appends it.
func (a alert) line(src, dst netip.AddrPort, at time.Time) ([]byte, error) {
	flow := make(map[string]any)
	for k, v := range a.flow {
		flow[k] = v
	}
	if a.age > 0 {
		flow["start"] = at.Add(-a.age).Format(eveTime)
	}
	// Suricata 7 repeats the flow's ends there.
	if _, ok := a.flow["src_ip"]; ok {
		flow["src_ip"], flow["src_port"], flow["dest_ip"], flow["dest_port"] = src.Addr(), src.Port(), dst.Addr(), dst.Port()
	}
	record := make(map[string]any)
	for k, v := range a.fields {
		record[k] = v
	}
	if len(flow) > 0 {
		record["flow"] = flow
	}
	record["timestamp"] = at.Format(eveTime)
	record["src_ip"], record["src_port"] = src.Addr(), src.Port()
	record["dest_ip"], record["dest_port"] = dst.Addr(), dst.Port()
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(record); err != nil {
		return nil, fmt.Errorf("write the alert: %w", err)
	}
	return out.Bytes(), nil
}
