package main

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

// before is a moment so long before noon.
func before(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(noon.Add(-d)) }

// tell fills the appliance with a small story: a threat on alice that was
// cleaned, one on bob that was not.
func (a *appliance) tell() {
	alice := &wirev1.Threat{
		Id: 1, State: "resolved", Ended: true, Severity: "high", Role: "attacker", Signature: "ET MALWARE Beacon", Kind: "c2",
		EndpointId: 3, EndpointName: "alice", Addresses: []string{"192.0.2.10"}, Macs: []string{"02:00:00:00:00:0a"},
		Remote: "198.51.100.7:443", EventCount: 4, FirstSeen: before(2 * time.Hour), LastSeen: before(90 * time.Minute),
	}
	bob := &wirev1.Threat{
		Id: 2, State: "quarantined", Severity: "critical", Role: "attacker", Signature: "ET MALWARE Beacon", Kind: "c2",
		EndpointId: 4, EndpointName: "bob", Addresses: []string{"192.0.2.11", "2001:db8::11"}, Macs: []string{"02:00:00:00:00:0b"},
		Remote: "198.51.100.7:443", EventCount: 1, FirstSeen: before(31 * time.Second), LastSeen: before(30 * time.Second),
		QuarantineId: "q-bob", WaitingFor: "a person", Contained: true,
	}
	quarantine := &wirev1.QuarantineInfo{
		Id: "q-bob", EndpointId: 4, EndpointName: "bob", ThreatId: 2, Macs: bob.Macs, Access: "limited", Reason: "cannot be cleaned",
		Actor: "policy", CreatedAt: before(29 * time.Second), InForceAt: before(28 * time.Second), State: "in-force",
	}
	source := &wirev1.Source{
		Name: "eve", Kind: "suricata-file", Target: "/var/log/suricata/eve.json", Healthy: true, Events: 1244, Rejected: 2, LastEventAt: before(30 * time.Second),
	}
	faulty := &wirev1.Source{Name: "socket", Kind: "suricata-socket", Target: "/run/cordon/eve.sock", Error: "nobody is connected"}
	event := &wirev1.Event{
		Id: 9, Source: "eve", At: before(30 * time.Second), ReceivedAt: before(30 * time.Second), Signature: "ET MALWARE Beacon", Severity: "critical",
		Protocol: "tcp", Src: "192.0.2.11:51000", Dst: "198.51.100.7:443", Disposition: "threat", ThreatId: 2, Raw: []byte(`{"event_type":"alert"}`),
	}
	a.answers["GetStatus"] = &wirev1.GetStatusResponse{
		Version: "1.0", Mode: "enforce", StartedAt: before(50 * time.Hour), ThreatsOpen: 1, ThreatsWaiting: 1, Agents: 2, AgentsConnected: 1,
		Devices: []*wirev1.DeviceStatus{
			{Name: "local", Connected: true, Ordered: &wirev1.Revision{Epoch: 1, Number: 7}, Held: &wirev1.Revision{Epoch: 1, Number: 7}, Desired: 1, InForce: 1},
			{Name: "floor2", Error: "connection refused", Ordered: &wirev1.Revision{Epoch: 1, Number: 7}, Held: &wirev1.Revision{Epoch: 1, Number: 5}, Desired: 1,
				BreakGlass: &wirev1.BreakGlass{On: true, Since: before(time.Hour), Actor: "root", Reason: "outage"}},
		},
		Sources: []*wirev1.Source{source, faulty},
		Alarms:  []string{"device floor2 is not connected, orders wait: connection refused"},
	}
	a.answers["ListThreats"] = func(r *wirev1.ListThreatsRequest) *wirev1.ListThreatsResponse {
		m := &wirev1.ListThreatsResponse{}
		for _, one := range []*wirev1.Threat{bob, alice} {
			if (r.GetBeforeId() == 0 || one.GetId() < r.GetBeforeId()) && !(r.GetOpenOnly() && one.GetEnded()) {
				m.Threats = append(m.Threats, one)
			}
		}
		return m
	}
	a.answers["GetThreat"] = &wirev1.GetThreatResponse{
		Threat: bob, Quarantine: quarantine, Events: []*wirev1.Event{event},
		Timeline: []*wirev1.Transition{
			{From: "", To: "detected", At: before(30 * time.Second), Cause: "ET MALWARE Beacon to 198.51.100.7:443", Actor: "source:eve"},
			{From: "detected", To: "assessing", At: before(30*time.Second - 12*time.Millisecond), Cause: "bob has an agent", Actor: "policy"},
			{From: "assessing", To: "confirmed", At: before(29800 * time.Millisecond), Cause: "the agent found it", Actor: "agent:bob"},
			{From: "confirmed", To: "confirmed", At: before(29799 * time.Millisecond), Cause: "quarantine ordered", Actor: "policy"},
			{From: "confirmed", To: "quarantined", At: before(28 * time.Second), Cause: "in force", Actor: "device:local"},
		},
		Tasks: []*wirev1.TaskInfo{{
			Id: "t-1", Kind: wirev1.TaskKind_TASK_KIND_CLEAN, State: "done", AgentId: "agent-bob", CreatedAt: before(30 * time.Second),
			DeliveredAt: before(30 * time.Second), EndedAt: before(29 * time.Second),
			Result: &wirev1.TaskResult{
				Status: wirev1.TaskStatus_TASK_STATUS_UNRESOLVED, Verdict: wirev1.Verdict_VERDICT_CONFIRMED,
				Reasons: []string{"/mnt/ro/x is on a read-only mount"}, StartedAt: before(30 * time.Second), FinishedAt: before(29 * time.Second),
				StoppedAt: before(29940 * time.Millisecond), Observer: "bpf",
				Objects: []*wirev1.Object{
					{Id: "p1", Kind: wirev1.ObjectKind_OBJECT_KIND_PROCESS, Name: "pid 4711 /mnt/ro/x -d", Reason: "holds the connection", Pid: 4711},
					{Id: "f1", Kind: wirev1.ObjectKind_OBJECT_KIND_FILE, Name: "/mnt/ro/x", Reason: "runs as pid 4711", Sha256: "ab12"},
					{Id: "c1", Kind: wirev1.ObjectKind_OBJECT_KIND_PERSISTENCE, Name: "cron /etc/cron.d/x line 1", Reason: "starts it"},
				},
				Actions: []*wirev1.Action{
					{Verb: "stop", ObjectId: "p1", Outcome: wirev1.ActionOutcome_ACTION_OUTCOME_DONE},
					{Verb: "vault", ObjectId: "f1", Outcome: wirev1.ActionOutcome_ACTION_OUTCOME_FAILED, Error: "read-only file system"},
					{Verb: "disable", ObjectId: "c1", Outcome: wirev1.ActionOutcome_ACTION_OUTCOME_DONE, VaultId: "v-9"},
					{Verb: "stop", ObjectId: "p2", Outcome: wirev1.ActionOutcome_ACTION_OUTCOME_REFUSED, Error: "sshd is protected"},
				},
			},
		}},
	}
	a.answers["CloseThreat"] = &wirev1.CloseThreatResponse{Threat: &wirev1.Threat{Id: 2, State: "closed", EndpointName: "bob", QuarantineId: "q-bob"}}
	a.answers["ListEvents"] = func(r *wirev1.ListEventsRequest) *wirev1.ListEventsResponse {
		if r.GetBeforeId() != 0 {
			return &wirev1.ListEventsResponse{}
		}
		return &wirev1.ListEventsResponse{Events: []*wirev1.Event{event, {Id: 8, Source: "eve", At: before(time.Hour), Signature: "ET SCAN", Severity: "low", Src: "203.0.113.1", Dst: "203.0.113.2", Disposition: "kept"}}}
	}
	a.answers["ListEndpoints"] = func(r *wirev1.ListEndpointsRequest) *wirev1.ListEndpointsResponse {
		if r.GetAfterId() != 0 {
			return &wirev1.ListEndpointsResponse{}
		}
		return &wirev1.ListEndpointsResponse{Endpoints: []*wirev1.Endpoint{
			{Id: 3, Hostname: "alice", Macs: alice.Macs, Addresses: alice.Addresses, AgentId: "agent-alice", AgentConnected: true, LastSeen: before(time.Second)},
			{Id: 4, Hostname: "bob", Macs: bob.Macs, Addresses: bob.Addresses, AgentId: "agent-bob", LastSeen: before(26 * time.Hour), QuarantineId: "q-bob"},
			{Id: 5, Hostname: "プリンター", Macs: []string{"02:00:00:00:00:0c"}, Addresses: []string{"192.0.2.12"}, LastSeen: before(time.Minute)},
		}}
	}
	a.answers["ListQuarantines"] = &wirev1.ListQuarantinesResponse{Quarantines: []*wirev1.QuarantineInfo{quarantine, {
		Id: "q-old", EndpointName: "printer", Macs: []string{"02:00:00:00:00:0c"}, Access: "none", Reason: "looks odd", Actor: "admin:carol",
		CreatedAt: before(3 * time.Hour), ExpiresAt: timestamppb.New(noon.Add(5 * time.Hour)), State: "held", Detail: "the cap of 10 in 1h is reached",
	}}}
	a.answers["QuarantineEndpoint"] = &wirev1.QuarantineEndpointResponse{Quarantine: quarantine}
	released := &wirev1.QuarantineInfo{Id: "q-bob", EndpointName: "bob", State: "ended", EndedAt: before(0), EndedBy: "admin:carol", Confirmation: "reinstalled"}
	a.answers["ReleaseEndpoint"] = &wirev1.ReleaseEndpointResponse{Quarantines: []*wirev1.QuarantineInfo{released}}
	a.answers["ListAgents"] = &wirev1.ListAgentsResponse{Agents: []*wirev1.Agent{
		{Id: "agent-alice", Hostname: "alice", Version: "1.0", Connected: true, EnrolledAt: before(24 * time.Hour), LastSeen: before(0), CertificateExpiresAt: timestamppb.New(noon.Add(29 * 24 * time.Hour)), Observer: "bpf"},
		{Id: "agent-eve", Hostname: "eve", Version: "0.9", LastSeen: before(48 * time.Hour), RevokedAt: before(47 * time.Hour), Observer: "poll"},
	}}
	a.answers["CreateAgentToken"] = &wirev1.CreateAgentTokenResponse{Token: "cordon1-secret-fingerprint@appliance.example:7443", ExpiresAt: timestamppb.New(noon.Add(time.Hour))}
	a.answers["ListSources"] = &wirev1.ListSourcesResponse{Sources: []*wirev1.Source{source, faulty}}
	a.answers["ListRejects"] = &wirev1.ListRejectsResponse{Rejects: []*wirev1.Reject{
		{Source: "eve", Reason: "not JSON", Raw: []byte("{\"event_type\": \"al\x1b]0;owned\x07\xff"), Size: 21, ReceivedAt: before(time.Minute)},
	}}
}
