package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

// asking are the commands that ask the appliance, with a field of their JSON.
var asking = []struct {
	golden string
	args   []string
	field  string
}{
	{"status", []string{"status"}, "devices"},
	{"threats", []string{"threats"}, "threats"},
	{"threats-all", []string{"threats", "--all"}, "threats"},
	{"threat-show", []string{"threat", "show", "2"}, "timeline"},
	{"threat-show-raw", []string{"threat", "show", "2", "--raw"}, "timeline"},
	{"threat-close", []string{"threat", "close", "2", "--note", "a false alarm"}, "threat"},
	{"endpoints", []string{"endpoints"}, "endpoints"},
	{"quarantines", []string{"quarantines"}, "quarantines"},
	{"quarantine", []string{"quarantine", "bob", "--reason", "odd"}, "quarantine"},
	{"release", []string{"release", "bob", "--threat-is-gone"}, "quarantines"},
	{"agents", []string{"agents"}, "agents"},
	{"agent-token", []string{"agent", "token"}, "token"},
	{"agent-revoke", []string{"agent", "revoke", "agent-eve", "--reason", "stolen"}, ""},
	{"sources", []string{"sources"}, "sources"},
	{"events", []string{"events"}, "events"},
	{"rejects", []string{"rejects", "eve"}, "rejects"},
}

func TestTables(t *testing.T) {
	a := newAppliance(t)
	a.tell()
	for _, c := range asking {
		got := a.run(c.args...)
		if got.code != exitOK {
			t.Errorf("%v: exit code %d, %s", c.args, got.code, got.err)
		}
		a.golden(t, c.golden, got.out)
	}
}

func TestEmptyTablesSayWhatToDo(t *testing.T) {
	a := newAppliance(t)
	for _, c := range asking {
		got := a.run(c.args...)
		if got.code != exitOK || strings.TrimSpace(got.out) == "" && c.golden != "agent-token" {
			t.Errorf("%v: exit code %d, output %q, %s", c.args, got.code, got.out, got.err)
		}
	}
}

// The JSON is one document with the wire's names, fields without a value
// included.
func TestJSON(t *testing.T) {
	a := newAppliance(t)
	a.tell()
	for _, c := range asking {
		got := a.run(append(c.args, "-o", "json")...)
		var document map[string]any
		if err := json.Unmarshal([]byte(got.out), &document); err != nil || got.code != exitOK {
			t.Errorf("%v: %v, exit code %d, %s", c.args, err, got.code, got.err)
			continue
		}
		if _, ok := document[c.field]; !ok && c.field != "" {
			t.Errorf("%v: no field %q in %s", c.args, c.field, got.out)
		}
	}
	a.golden(t, "threats-json", a.run("threats", "-o", "json").out)
}

func TestVersion(t *testing.T) {
	got := invocation{}.run("version")
	if got.code != exitOK || !strings.HasPrefix(got.out, "cordon ") {
		t.Errorf("%+v", got)
	}
}

// hostile is what a data source might put into any field: it sets the window's
// title, clears the screen (once by a C1 control character), turns the reading
// direction, fakes a line, and paints over others.
const hostile = "x\x1b]0;owned\x07\x1b[2J\u009b2J\u202egnp.exe\u2066\r\nALARM  all is well\u200b\U000e0041a" + "\u0301\u0301\u0301\u0301\u0301\u0301\u0301"

// poison puts the text into every field of a message, and one message into each list.
func poison(m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		value := func() protoreflect.Value {
			switch f.Kind() {
			case protoreflect.StringKind:
				return protoreflect.ValueOfString(hostile)
			case protoreflect.BytesKind:
				return protoreflect.ValueOfBytes([]byte(hostile + "\xff"))
			case protoreflect.BoolKind:
				return protoreflect.ValueOfBool(true)
			case protoreflect.EnumKind:
				return protoreflect.ValueOfEnum(1)
			}
			return protoreflect.Value{}
		}
		switch {
		case depth > 4:
		case f.IsList() && f.Kind() == protoreflect.MessageKind:
			poison(m.Mutable(f).List().AppendMutable().Message(), depth+1)
		case f.IsList():
			m.Mutable(f).List().Append(value())
		case f.Kind() == protoreflect.MessageKind:
			poison(m.Mutable(f).Message(), depth+1)
		case value().IsValid():
			m.Set(f, value())
		}
	}
}

func TestHostileTextDoesNotReachTheTerminal(t *testing.T) {
	a := newAppliance(t)
	services := wirev1.File_internal_wire_v1_admin_proto.Services().ByName("AdminService").Methods()
	for i := range services.Len() {
		method := services.Get(i)
		m := answerOf(t, string(method.Name()))
		poison(m.ProtoReflect(), 0)
		a.answers[string(method.Name())] = m
	}
	for _, c := range asking {
		for _, output := range []string{"table", "json"} {
			got := a.run(append(c.args, "-o", output)...)
			if got.code != exitOK || !strings.Contains(got.out, "owned") && c.field != "" {
				t.Errorf("%v: exit code %d, %s%s", c.args, got.code, got.out, got.err)
			}
			checkSafe(t, fmt.Sprint(c.args, output), got.out+got.err)
			if output == "json" && !json.Valid([]byte(got.out)) {
				t.Errorf("%v: not JSON: %s", c.args, got.out)
			}
			if output == "table" && strings.Contains(got.out, "\nALARM  all is well") {
				t.Errorf("%v: a text made a line of its own:\n%s", c.args, got.out)
			}
		}
	}
}

// answerOf is an empty answer of a method.
func answerOf(t *testing.T, method string) proto.Message {
	t.Helper()
	for _, m := range []proto.Message{
		&wirev1.GetStatusResponse{}, &wirev1.ListThreatsResponse{}, &wirev1.GetThreatResponse{}, &wirev1.ListEventsResponse{},
		&wirev1.ListEndpointsResponse{}, &wirev1.ListQuarantinesResponse{}, &wirev1.QuarantineEndpointResponse{},
		&wirev1.ReleaseEndpointResponse{}, &wirev1.ListAgentsResponse{}, &wirev1.CreateAgentTokenResponse{},
		&wirev1.RevokeAgentResponse{}, &wirev1.ListSourcesResponse{}, &wirev1.CloseThreatResponse{}, &wirev1.ListRejectsResponse{},
	} {
		if string(m.ProtoReflect().Descriptor().Name()) == method+"Response" {
			return m
		}
	}
	t.Fatalf("no answer of %s", method)
	return nil
}

func checkSafe(t *testing.T, what, output string) {
	t.Helper()
	for i, r := range output {
		if r != '\n' && !unicode.IsPrint(r) && !unicode.Is(unicode.M, r) {
			t.Errorf("%s: %U at %d of\n%q", what, r, i, output)
			return
		}
	}
}

// A server that never comes to an end of a list does not hold the command.
func TestListsThatDoNotEnd(t *testing.T) {
	a := newAppliance(t)
	a.answers["ListThreats"] = &wirev1.ListThreatsResponse{Threats: []*wirev1.Threat{{Id: 9}, {Id: 8}}}
	got := a.run("threats", "-o", "json")
	if got.code != exitOK || strings.Count(got.out, `"id"`) != 2 {
		t.Errorf("%+v", got)
	}
}

func TestLongListsComeInPages(t *testing.T) {
	a := newAppliance(t)
	a.answers["ListEndpoints"] = func(r *wirev1.ListEndpointsRequest) *wirev1.ListEndpointsResponse {
		m := &wirev1.ListEndpointsResponse{}
		for id := r.GetAfterId() + 1; id <= r.GetAfterId()+10 && id <= 25; id++ {
			m.Endpoints = append(m.Endpoints, &wirev1.Endpoint{Id: id})
		}
		return m
	}
	for limit, want := range map[string]int{"1": 1, "10": 10, "17": 17, "25": 25, "100": 25} {
		got := a.run("endpoints", "--limit", limit, "-o", "json")
		if n := strings.Count(got.out, `"id"`); n != want {
			t.Errorf("--limit %s: %d endpoints, want %d", limit, n, want)
		}
	}
	if got := a.run("endpoints", "--limit", "3"); !strings.Contains(got.err, "--limit") {
		t.Errorf("nothing says that there is more: %q", got.err)
	}
}
