package console

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
	"github.com/cordon-security/cordon/internal/wire/v1/wirev1connect"
)

const goodToken = "cordonadmin1-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

// admins knows tokens that a test can take away.
type admins struct {
	mu     sync.Mutex
	tokens map[string]string
}

func (a *admins) Authenticate(token string) (string, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	name, ok := a.tokens[token]
	return name, ok
}

func (a *admins) remove(token string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.tokens, token)
}

// api answers from memory as the mitigator does: newest first, before an id.
// Every call that a test did not prepare fails.
type api struct {
	wirev1connect.UnimplementedAdminServiceHandler
	status      *wirev1.GetStatusResponse
	threats     []*wirev1.GetThreatResponse // newest first
	events      []*wirev1.Event
	endpoints   []*wirev1.Endpoint
	quarantines []*wirev1.QuarantineInfo
	broken      bool
}

var errBroken = connect.NewError(connect.CodeUnavailable, errors.New("the disk said: secret path"))

func answer[A any](a *api, msg *A) (*connect.Response[A], error) {
	if a.broken {
		return nil, errBroken
	}
	return connect.NewResponse(msg), nil
}

func (a *api) GetStatus(context.Context, *connect.Request[wirev1.GetStatusRequest]) (*connect.Response[wirev1.GetStatusResponse], error) {
	return answer(a, a.status)
}

func (a *api) ListThreats(_ context.Context, r *connect.Request[wirev1.ListThreatsRequest]) (*connect.Response[wirev1.ListThreatsResponse], error) {
	out := &wirev1.ListThreatsResponse{}
	for _, t := range a.threats {
		th := t.GetThreat()
		if r.Msg.GetOpenOnly() && th.GetEnded() || r.Msg.GetBeforeId() != 0 && th.GetId() >= r.Msg.GetBeforeId() {
			continue
		}
		if len(out.Threats) < int(r.Msg.GetLimit()) {
			out.Threats = append(out.Threats, th)
		}
	}
	return answer(a, out)
}

func (a *api) GetThreat(_ context.Context, r *connect.Request[wirev1.GetThreatRequest]) (*connect.Response[wirev1.GetThreatResponse], error) {
	for _, t := range a.threats {
		if t.GetThreat().GetId() == r.Msg.GetId() {
			return answer(a, t)
		}
	}
	return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("no threat %d", r.Msg.GetId()))
}

func (a *api) ListEvents(_ context.Context, r *connect.Request[wirev1.ListEventsRequest]) (*connect.Response[wirev1.ListEventsResponse], error) {
	out := &wirev1.ListEventsResponse{}
	for _, e := range a.events {
		if b := r.Msg.GetBeforeId(); (b == 0 || e.GetId() < b) && len(out.Events) < int(r.Msg.GetLimit()) {
			out.Events = append(out.Events, e)
		}
	}
	return answer(a, out)
}

func (a *api) ListEndpoints(_ context.Context, r *connect.Request[wirev1.ListEndpointsRequest]) (*connect.Response[wirev1.ListEndpointsResponse], error) {
	out := &wirev1.ListEndpointsResponse{}
	for _, e := range a.endpoints {
		if e.GetId() > r.Msg.GetAfterId() && len(out.Endpoints) < int(r.Msg.GetLimit()) {
			out.Endpoints = append(out.Endpoints, e)
		}
	}
	return answer(a, out)
}

func (a *api) ListQuarantines(_ context.Context, r *connect.Request[wirev1.ListQuarantinesRequest]) (*connect.Response[wirev1.ListQuarantinesResponse], error) {
	out := &wirev1.ListQuarantinesResponse{}
	for _, q := range a.quarantines {
		if !r.Msg.GetActiveOnly() || q.GetState() != "ended" {
			out.Quarantines = append(out.Quarantines, q)
		}
	}
	return answer(a, out)
}

// day is when the story of the tests happens.
var day = time.Date(2026, 3, 24, 14, 37, 19, 37_000_000, time.UTC)

func at(after time.Duration) *timestamppb.Timestamp { return timestamppb.New(day.Add(after)) }

const record1 = `{"timestamp":"2026-03-24T14:37:19.037299+0000","flow_id":928532049924531,"event_type":"alert","src_ip":"192.0.2.66",` +
	`"src_port":443,"dest_ip":"10.47.8.150","dest_port":50112,"proto":"TCP","alert":{"action":"allowed","gid":1,"signature_id":2024897,` +
	`"rev":3,"signature":"ET MALWARE Known C2 Beacon","category":"Malware Command and Control Activity Detected","severity":1,` +
	`"metadata":{"affected_product":["Linux"]}},"flow":{"pkts_toserver":12,"pkts_toclient":9,"bytes_toserver":1480,"bytes_toclient":2210}}`

// story is three threats: one cleaned, one that was cut off, one that waits.
func story() *api {
	cleaned := cleanedThreat()
	cut := cutOffThreat()
	waiting := &wirev1.GetThreatResponse{
		Threat: &wirev1.Threat{Id: 9, State: "unresolved", Severity: "medium", Role: "victim", Signature: "ET SCAN Potential SSH Scan",
			EndpointId: 3, EndpointName: "printer", Addresses: []string{"10.47.8.20", "2001:db8::20"}, Macs: []string{"02:00:00:00:00:20"},
			Remote: "198.51.100.7:26078", EventCount: 1204, FirstSeen: at(0), LastSeen: at(8 * time.Minute),
			WaitingFor: "a person to decide: the endpoint is a victim"},
		Timeline: []*wirev1.Transition{
			{From: "detected", To: "detected", At: at(0), Cause: "ET SCAN Potential SSH Scan (role victim: flow's direction)", Actor: "source:suricata"},
			{From: "detected", To: "unresolved", At: at(time.Millisecond), Cause: "the endpoint has no agent", Actor: "policy"},
		},
	}
	return &api{
		status: &wirev1.GetStatusResponse{
			Version: "v0.1.0", Mode: "enforce", StartedAt: at(-26 * time.Hour), ThreatsOpen: 2, ThreatsWaiting: 1, Agents: 3, AgentsConnected: 2,
			Devices: []*wirev1.DeviceStatus{{Name: "enforcer", Connected: true, Desired: 2, InForce: 1}},
			Sources: []*wirev1.Source{
				{Name: "suricata", Kind: "suricata-file", Healthy: true, Events: 1312, Rejected: 2, LastEventAt: at(8 * time.Minute)},
				{Name: "dmz", Kind: "suricata-socket", Error: "no such file: /run/suricata/eve.sock"},
			},
			Alarms: []string{"Source dmz is not healthy: no such file: /run/suricata/eve.sock"},
		},
		threats: []*wirev1.GetThreatResponse{waiting, cut, cleaned},
		events: []*wirev1.Event{
			{Id: 72, Source: "suricata", At: at(8 * time.Minute), Signature: "ET SCAN Potential SSH Scan", Category: "Attempted Information Leak",
				Severity: "medium", Protocol: "TCP", Src: "198.51.100.7:26078", Dst: "10.47.8.20:22", Disposition: "threat", ThreatId: 9, Raw: []byte(record1)},
			{Id: 71, Source: "suricata", At: at(time.Minute), Signature: "GPL ICMP PING", Category: "Misc activity", Severity: "low",
				Protocol: "ICMP", Src: "198.51.100.7", Dst: "203.0.113.9", Disposition: "kept", Raw: []byte(`{"event_type":"alert"}`)},
		},
		endpoints: []*wirev1.Endpoint{
			{Id: 1, Hostname: "alice", Macs: []string{"02:00:00:00:00:0a"}, Addresses: []string{"10.47.8.150", "fd00::a"}, AgentId: "agent-1", AgentConnected: true, LastSeen: at(0)},
			{Id: 2, Hostname: "bob", Macs: []string{"02:00:00:00:00:0b"}, Addresses: []string{"10.47.8.151"}, AgentId: "agent-2", LastSeen: at(0), QuarantineId: "q-5f1c"},
			{Id: 3, Hostname: "printer", Macs: []string{"02:00:00:00:00:20"}, Addresses: []string{"10.47.8.20"}, LastSeen: at(0)},
			{Id: 4, Addresses: []string{"10.47.8.77"}, LastSeen: at(0)}, {Id: 5, LastSeen: at(0)},
		},
		quarantines: []*wirev1.QuarantineInfo{cut.GetQuarantine(), {Id: "q-0001", EndpointName: "carol", Access: "none", Reason: "worm", Actor: "admin:ann",
			CreatedAt: at(-time.Hour), EndedAt: at(-time.Minute), EndedBy: "admin:ann", Confirmation: "reinstalled", State: "ended"}},
	}
}

func cleanedThreat() *wirev1.GetThreatResponse {
	return &wirev1.GetThreatResponse{
		Threat: &wirev1.Threat{Id: 7, State: "resolved", Ended: true, Severity: "critical", Role: "attacker", Signature: "ET MALWARE Known C2 Beacon",
			Kind: "suricata:2024897", EndpointId: 1, EndpointName: "alice", Addresses: []string{"10.47.8.150", "fd00::a"}, Macs: []string{"02:00:00:00:00:0a"},
			Remote: "192.0.2.66:443", EventCount: 3, FirstSeen: at(0), LastSeen: at(2 * time.Second)},
		Timeline: []*wirev1.Transition{
			{From: "detected", To: "detected", At: at(0), Cause: "ET MALWARE Known C2 Beacon (role attacker: signature's metadata)", Actor: "source:suricata"},
			{From: "detected", To: "assessing", At: at(time.Millisecond), Cause: "assessment ordered from the agent on alice", Actor: "policy"},
			{From: "assessing", To: "confirmed", At: at(31 * time.Millisecond), Cause: "the process of the connection runs a dropped file", Actor: "agent:alice"},
			{From: "confirmed", To: "cleaning", At: at(32 * time.Millisecond), Cause: "cleanup ordered from the agent on alice", Actor: "policy"},
			{From: "cleaning", To: "resolved", At: at(1412 * time.Millisecond), Cause: "gone: assessed again", Actor: "agent:alice"},
		},
		Tasks: []*wirev1.TaskInfo{
			{Id: "t-1", Kind: wirev1.TaskKind_TASK_KIND_ASSESS, State: "done", AgentId: "alice", CreatedAt: at(time.Millisecond), DeliveredAt: at(2 * time.Millisecond), EndedAt: at(31 * time.Millisecond),
				Result: &wirev1.TaskResult{Status: wirev1.TaskStatus_TASK_STATUS_DONE, Verdict: wirev1.Verdict_VERDICT_CONFIRMED, Observer: "bpf",
					StartedAt: at(3 * time.Millisecond), FinishedAt: at(30 * time.Millisecond), Reasons: []string{"pid 4711 holds the connection to 192.0.2.66:443"},
					Objects: cleanedObjects()}},
			{Id: "t-2", Kind: wirev1.TaskKind_TASK_KIND_CLEAN, State: "done", AgentId: "alice", CreatedAt: at(32 * time.Millisecond), DeliveredAt: at(33 * time.Millisecond), EndedAt: at(1411 * time.Millisecond),
				Result: &wirev1.TaskResult{Status: wirev1.TaskStatus_TASK_STATUS_DONE, Verdict: wirev1.Verdict_VERDICT_CONFIRMED, Observer: "bpf",
					StartedAt: at(34 * time.Millisecond), StoppedAt: at(96 * time.Millisecond), FinishedAt: at(1410 * time.Millisecond),
					Objects: cleanedObjects(),
					Actions: []*wirev1.Action{
						{Verb: "stop", ObjectId: "p1", Outcome: wirev1.ActionOutcome_ACTION_OUTCOME_DONE, At: at(96 * time.Millisecond)},
						{Verb: "stop", ObjectId: "p2", Outcome: wirev1.ActionOutcome_ACTION_OUTCOME_DONE, At: at(96 * time.Millisecond)},
						{Verb: "vault", ObjectId: "f1", Outcome: wirev1.ActionOutcome_ACTION_OUTCOME_DONE, VaultId: "v-81c2", At: at(110 * time.Millisecond)},
						{Verb: "disable", ObjectId: "c1", Outcome: wirev1.ActionOutcome_ACTION_OUTCOME_DONE, VaultId: "v-81c3", At: at(120 * time.Millisecond)},
						{Verb: "vault", ObjectId: "f2", Outcome: wirev1.ActionOutcome_ACTION_OUTCOME_REFUSED, Error: "unchanged file of package python3.11", At: at(121 * time.Millisecond)},
						{Verb: "destroy-socket", ObjectId: "s1", Outcome: wirev1.ActionOutcome_ACTION_OUTCOME_ALREADY, At: at(122 * time.Millisecond)},
					}}},
		},
		Events: []*wirev1.Event{{Id: 61, Source: "suricata", At: at(0), Signature: "ET MALWARE Known C2 Beacon", Severity: "critical", Protocol: "TCP",
			Src: "10.47.8.150:50112", Dst: "192.0.2.66:443", Disposition: "threat", ThreatId: 7, Raw: []byte(record1)}},
	}
}

func cleanedObjects() []*wirev1.Object {
	return []*wirev1.Object{
		{Id: "p1", Kind: wirev1.ObjectKind_OBJECT_KIND_PROCESS, Name: "pid 4711 /var/tmp/.x/beacon -d", Reason: "holds the connection of the alert", Pid: 4711},
		{Id: "p2", Kind: wirev1.ObjectKind_OBJECT_KIND_PROCESS, Name: "pid 4712 /usr/bin/python3 -c …", Reason: "child of pid 4711", Pid: 4712, Parent: "p1"},
		{Id: "f1", Kind: wirev1.ObjectKind_OBJECT_KIND_FILE, Name: "/var/tmp/.x/beacon", Reason: "executable of pid 4711", Sha256: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"},
		{Id: "f2", Kind: wirev1.ObjectKind_OBJECT_KIND_FILE, Name: "/usr/bin/python3.11", Reason: "executable of pid 4712"},
		{Id: "c1", Kind: wirev1.ObjectKind_OBJECT_KIND_PERSISTENCE, Name: "cron /etc/cron.d/x line 3", Reason: "starts /var/tmp/.x/beacon"},
		{Id: "s1", Kind: wirev1.ObjectKind_OBJECT_KIND_SOCKET, Name: "TCP 10.47.8.150:50112 → 192.0.2.66:443", Reason: "the alert's flow"},
	}
}

func cutOffThreat() *wirev1.GetThreatResponse {
	return &wirev1.GetThreatResponse{
		Threat: &wirev1.Threat{Id: 8, State: "quarantined", Severity: "critical", Role: "attacker", Signature: "ET MALWARE Known C2 Beacon",
			EndpointId: 2, EndpointName: "bob", Addresses: []string{"10.47.8.151"}, Macs: []string{"02:00:00:00:00:0b"}, Remote: "192.0.2.66:443",
			EventCount: 5, FirstSeen: at(time.Second), LastSeen: at(3 * time.Minute), QuarantineId: "q-5f1c", Contained: true},
		Timeline: []*wirev1.Transition{
			{From: "detected", To: "detected", At: at(time.Second), Cause: "ET MALWARE Known C2 Beacon (role attacker: flow)", Actor: "source:suricata"},
			{From: "detected", To: "unresolved", At: at(2 * time.Second), Cause: "payload on a read-only mount", Actor: "agent:bob"},
			{From: "unresolved", To: "quarantined", At: at(2019 * time.Millisecond), Cause: "in force, read back", Actor: "device:enforcer"},
			{From: "quarantined", To: "quarantined", At: at(time.Minute), Cause: "follows the endpoint to 10.47.8.152", Actor: "device:enforcer"},
		},
		Tasks: []*wirev1.TaskInfo{{Id: "t-3", Kind: wirev1.TaskKind_TASK_KIND_CLEAN, State: "expired", AgentId: "bob", CreatedAt: at(time.Second), EndedAt: at(2 * time.Second)}},
		Quarantine: &wirev1.QuarantineInfo{Id: "q-5f1c", EndpointId: 2, EndpointName: "bob", ThreatId: 8, Macs: []string{"02:00:00:00:00:0b"}, Access: "limited",
			Reason: "payload on a read-only mount", Actor: "policy", CreatedAt: at(2 * time.Second), InForceAt: at(2019 * time.Millisecond), State: "in-force"},
	}
}
