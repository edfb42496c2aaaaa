package console

import (
	"slices"
	"strings"
	"sync"
	"time"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

// hostile is what an attacker may have put into an alert, a host name or a
// process's name.
var hostile = sync.OnceValue(func() []string {
	return []string{
		`<script>window.pwned=1</script>`,
		`"><img src=x onerror="window.pwned=1">`,
		`'" autofocus onfocus=window.pwned=1 x='`,
		`</pre></details></main><iframe src="javascript:window.pwned=1"></iframe>`,
		`javascript:window.pwned=1`,
		`{{.Admin}}<!-- ]]> --><svg/onload=window.pwned=1>`,
		"invoice\u202egnp.exe\u2066\u2067\u200f",
		"tab\tline\nreturn\rnull\x00escape\x1b[31mbell\x07del\x7f",
		"broken \xff\xfe\xc0\xaf utf-8",
		"zero\u200bwidth\ufeff\u2060\u00ad\u3164\u2800",
		"tags\U000e0041\U000e0042 lines\u2028\u2029end",
		"Z" + strings.Repeat("\u0334\u0321\u0489", 200) + "algo",
		strings.Repeat("A", 1<<20),
		strings.Repeat("\u202e", 1<<20),
		strings.Repeat("\U0001f4a9", 1<<18),
		strings.Repeat("العربية ", 1000),
		"",
		" \t ",
	}
})

// hostileStory has every text that comes from outside be hostile.
func hostileStory() *api {
	all := hostile()
	next := 0
	bad := func() string {
		next++
		return all[next%len(all)]
	}
	threat := &wirev1.GetThreatResponse{Threat: hostileThreat(66, bad)}
	a := &api{status: &wirev1.GetStatusResponse{Version: bad(), Mode: bad(), StartedAt: at(0)}}
	for range all {
		threat.Timeline = append(threat.Timeline, &wirev1.Transition{From: bad(), To: bad(), At: at(0), Cause: bad(), Actor: "agent:" + bad()})
		a.status.Alarms = append(a.status.Alarms, bad())
		a.status.Devices = append(a.status.Devices, &wirev1.DeviceStatus{Name: bad(), Error: bad()},
			&wirev1.DeviceStatus{Name: bad(), Connected: true, BreakGlass: &wirev1.BreakGlass{On: true, Actor: bad(), Reason: bad()}})
		a.status.Sources = append(a.status.Sources, &wirev1.Source{Name: bad(), Kind: bad(), Error: bad(), LastEventAt: at(time.Second)})
		threat.Tasks = append(threat.Tasks, hostileTask(bad))
		a.endpoints = append(a.endpoints, &wirev1.Endpoint{Id: int64(next), Hostname: bad(), Macs: all, Addresses: all, AgentId: bad(), QuarantineId: bad()})
		a.quarantines = append(a.quarantines, hostileQuarantine(bad))
		a.threats = append(a.threats, &wirev1.GetThreatResponse{Threat: hostileThreat(int64(1000+next), bad)})
	}
	for _, raw := range slices.Concat(all, records()) {
		e := &wirev1.Event{Id: int64(next), Source: bad(), At: at(0), Signature: bad(), Category: bad(), Severity: bad(), Protocol: bad(),
			Src: bad(), Dst: bad(), Disposition: bad(), Raw: []byte(raw)}
		threat.Events = append(threat.Events, e)
		a.events = append(a.events, e)
	}
	threat.Quarantine = hostileQuarantine(bad)
	a.threats = append(a.threats, threat)
	return a
}

// records are hostile raw records that are JSON, or nearly.
func records() []string {
	return []string{
		`{"alert":{"signature":"</pre><script>window.pwned=1</script>\u202e"}}`,
		strings.Repeat(`{"a":`, 10_000) + "1" + strings.Repeat("}", 10_000),
		`["` + strings.Repeat("]", 9_000) + `",` + strings.Repeat("[", 5_000) + strings.Repeat("]", 5_000) + `]`,
		strings.Repeat("[", 30) + strings.Repeat("1,", 15_000) + "1" + strings.Repeat("]", 30),
		`{"payload":"` + strings.Repeat("B", 1<<20) + `"}`,
		"{\"a\":\"\xff\u202e\"}",
	}
}

func hostileThreat(id int64, bad func() string) *wirev1.Threat {
	return &wirev1.Threat{Id: id, State: bad(), Severity: bad(), Role: bad(), Signature: bad(), Kind: bad(), EndpointName: bad(),
		Addresses: hostile(), Macs: hostile(), Remote: bad(), WaitingFor: bad(), QuarantineId: bad(), Contained: true, LastSeen: at(0)}
}

func hostileQuarantine(bad func() string) *wirev1.QuarantineInfo {
	return &wirev1.QuarantineInfo{Id: bad(), EndpointName: bad(), Macs: hostile(), Access: bad(), Reason: bad(), Actor: "admin:" + bad(),
		CreatedAt: at(0), EndedAt: at(0), EndedBy: bad(), Confirmation: bad(), State: bad(), Detail: bad()}
}

func hostileTask(bad func() string) *wirev1.TaskInfo {
	r := &wirev1.TaskResult{Status: wirev1.TaskStatus(next(bad)), Verdict: wirev1.Verdict(next(bad)), Observer: bad(), AgentVersion: bad(), StartedAt: at(0), FinishedAt: at(-time.Hour)}
	for range 12 {
		id := bad()
		r.Reasons = append(r.Reasons, bad())
		r.Objects = append(r.Objects, &wirev1.Object{Id: id, Kind: wirev1.ObjectKind(next(bad)), Name: bad(), Reason: bad(), Sha256: bad(), Deleted: true})
		r.Actions = append(r.Actions, &wirev1.Action{Verb: bad(), ObjectId: id, Outcome: wirev1.ActionOutcome(next(bad)), Error: bad(), VaultId: bad()})
	}
	return &wirev1.TaskInfo{Id: bad(), Kind: wirev1.TaskKind(next(bad)), State: "done", AgentId: bad(), CreatedAt: at(0), Result: r}
}

// next draws a number, also ones that no enumeration has.
func next(bad func() string) int32 { return int32(len(bad())%9) - 1 }
