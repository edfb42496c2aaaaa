package demo

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

// flat is a record with its flow's fields beside the others.
func flat(t *testing.T, line []byte) map[string]any {
	t.Helper()
	out := make(map[string]any)
	if err := json.Unmarshal(line, &out); err != nil {
		t.Fatal(err)
	}
	flow, _ := out["flow"].(map[string]any)
	for k, v := range flow {
		out["flow."+k] = v
	}
	delete(out, "flow")
	return out
}

func TestAlertKeepsEveryFieldButAddressesPortsAndTimes(t *testing.T) {
	suricata7 := []byte(`{"timestamp":"2026-01-02T03:04:06.000000+0000","event_type":"alert","proto":"TCP","direction":"to_server","src_ip":"1.2.3.4","src_port":1,` +
		`"dest_ip":"5.6.7.8","dest_port":2,"alert":{"signature_id":9007199254740993,"signature":"<&>"},"flow":{"start":"2026-01-02T03:04:05.000000+0000","src_ip":"1.2.3.4",` +
		`"src_port":1,"dest_ip":"5.6.7.8","dest_port":2,"pkts_toserver":3}}`)
	for name, c := range map[string]struct {
		line []byte
		age  time.Duration
		may  []string
	}{
		"the package's own": {ownAlert, 92709 * time.Microsecond, []string{"dest_ip", "dest_port", "flow.dest_ip", "flow.dest_port", "flow.src_ip", "flow.src_port", "flow.start", "src_ip", "src_port", "timestamp"}},
		"Suricata 7": {suricata7, time.Second, []string{"dest_ip", "dest_port", "flow.dest_ip", "flow.dest_port", "flow.src_ip", "flow.src_port", "flow.start",
			"src_ip", "src_port", "timestamp"}},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := parseAlert(c.line)
			if err != nil {
				t.Fatal(err)
			}
			at := time.Date(2026, 11, 24, 12, 0, 0, 5000, time.UTC)
			line, err := a.line(netip.MustParseAddrPort("10.77.0.10:40000"), c2At, at)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Count(string(line), "\n") != 1 || line[len(line)-1] != '\n' {
				t.Errorf("it is not one line: %q", line)
			}
			if strings.Contains(string(c.line), "9007199254740993") && !strings.Contains(string(line), "9007199254740993") {
				t.Error("a large number lost digits")
			}
			before, after := flat(t, c.line), flat(t, line)
			var differ []string
			for k := range after {
				if !reflect.DeepEqual(before[k], after[k]) {
					differ = append(differ, k)
				}
				delete(before, k)
			}
			slices.Sort(differ)
			if len(before) > 0 || !slices.Equal(differ, c.may) {
				t.Errorf("%v are gone, %v differ; only %v may", before, differ, c.may)
			}
			if after["timestamp"] != "2026-11-24T12:00:00.000005+0000" || after["src_port"] != float64(40000) || after["dest_ip"] != "198.51.100.66" {
				t.Errorf("the record is %s", line)
			}
			start, err := time.Parse(eveTime, after["flow.start"].(string))
			if err != nil || !start.Equal(at.Add(-c.age).Truncate(time.Microsecond)) {
				t.Errorf("the flow started at %s, %v", start, err)
			}
		})
	}
}

func TestAlertRefused(t *testing.T) {
	for _, line := range []string{"", "x", "[]", `{"event_type":"flow","proto":"TCP"}`, `{"event_type":"alert","proto":"UDP"}`, `{"event_type":"alert","proto":"TCP","flow":3}`} {
		if _, err := parseAlert([]byte(line)); err == nil {
			t.Errorf("%q was taken", line)
		}
	}
}

func TestChoose(t *testing.T) {
	for _, c := range []struct{ asked, want string }{
		{"", "abcdef"}, {"a", "a"}, {"d", "cd"}, {"f,a", "abf"}, {"F, e", "bef"}, {"c,d", "cd"},
	} {
		var asked []string
		if c.asked != "" {
			asked = strings.Split(c.asked, ",")
		}
		scenes, err := choose(asked)
		have := ""
		for _, s := range scenes {
			have += s.letter
		}
		if err != nil || have != c.want {
			t.Errorf("choose(%q) = %q, %v, want %q", c.asked, have, err, c.want)
		}
	}
	if _, err := choose([]string{"a", "g"}); err == nil {
		t.Error("there is no scene g")
	}
}

func TestChangedOnly(t *testing.T) {
	before := snapshot{"/etc/a": "1", "/etc/b": "1", "/etc/c": "1"}
	for _, c := range []struct {
		after snapshot
		want  string // in the error; empty for none
	}{
		{snapshot{"/etc/a": "1", "/etc/b": "2"}, ""},
		{snapshot{"/etc/a": "1", "/etc/b": "2", "/etc/c": "1"}, "/etc/c is as it was"},
		{snapshot{"/etc/a": "2", "/etc/b": "2"}, "/etc/a was touched"},
		{snapshot{"/etc/b": "2"}, "/etc/a was touched"},
		{snapshot{"/etc/a": "1", "/etc/b": "2", "/etc/d": "1"}, "/etc/d was touched"},
	} {
		err := changedOnly(before, c.after, "/etc/b", "/etc/c")
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %q", c.after, err, c.want)
		}
	}
}

// threatOf is a threat with these transitions, a second apart, and cleanups
// from the second second to the end.
func threatOf(start time.Time, cleanups int, states ...string) *wirev1.GetThreatResponse {
	t := &wirev1.GetThreatResponse{}
	from := ""
	for n, s := range states {
		t.Timeline = append(t.Timeline, &wirev1.Transition{From: from, To: s, At: timestamppb.New(start.Add(time.Duration(n) * time.Second))})
		from = s
	}
	for range cleanups {
		t.Tasks = append(t.Tasks, &wirev1.TaskInfo{Kind: wirev1.TaskKind_TASK_KIND_CLEAN, State: "done",
			CreatedAt: timestamppb.New(start.Add(2 * time.Second)), EndedAt: timestamppb.New(start.Add(4 * time.Second))})
	}
	return t
}

func TestOnce(t *testing.T) {
	start := time.Now()
	whole := []string{"detected", "assessing", "confirmed", "cleaning", "resolved"}
	for _, c := range []struct {
		name   string
		threat *wirev1.GetThreatResponse
		killed time.Duration
		ok     bool
	}{
		{"as it should be", threatOf(start, 1, whole...), 3500 * time.Millisecond, true},
		{"notes do not count", threatOf(start, 1, "detected", "assessing", "confirmed", "cleaning", "cleaning", "resolved"), 3500 * time.Millisecond, true},
		{"killed too late", threatOf(start, 1, whole...), 5 * time.Second, false},
		{"killed too early", threatOf(start, 1, whole...), time.Second, false},
		{"cleaned twice", threatOf(start, 2, whole...), 3500 * time.Millisecond, false},
		{"never cleaned", threatOf(start, 0, whole...), 3500 * time.Millisecond, false},
		{"ended twice", threatOf(start, 1, append(slices.Clone(whole), "released", "resolved")...), 3500 * time.Millisecond, false},
		{"ended otherwise", threatOf(start, 1, "detected", "assessing", "confirmed", "cleaning", "unresolved"), 3500 * time.Millisecond, false},
	} {
		if err := once(c.threat, start.Add(c.killed)); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestFirstDropped(t *testing.T) {
	start := time.Now()
	var sent []time.Time
	for n := range 200 {
		sent = append(sent, start.Add(time.Duration(n)*time.Millisecond))
	}
	for _, c := range []struct {
		answered int
		want     time.Duration
		ok       bool
	}{{99, 100 * time.Millisecond, true}, {199, 0, false}, {180, 0, false}, {-1, 0, false}} {
		tr := &trickle{sent: sent, answered: c.answered, stop: func() {}}
		at, ok := tr.firstDropped()
		if ok != c.ok || ok && at.Sub(start) != c.want {
			t.Errorf("answered up to %d: %s, %t", c.answered, at.Sub(start), ok)
		}
	}
}
