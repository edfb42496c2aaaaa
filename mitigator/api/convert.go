package api

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	"google.golang.org/protobuf/proto"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
	"github.com/cordon-security/cordon/mitigator/endpoint"
	"github.com/cordon-security/cordon/mitigator/event"
	"github.com/cordon-security/cordon/mitigator/store"
	"github.com/cordon-security/cordon/mitigator/threat"
)

func macs(in []endpoint.MAC) []string {
	out := make([]string, len(in))
	for i, m := range in {
		out[i] = m.String()
	}
	return out
}

// addressesOf lists the addresses that the endpoint has now.
func addressesOf(v store.View, ep endpoint.Endpoint) ([]string, error) {
	if len(ep.MACs) == 0 && ep.Address.IsValid() {
		return []string{ep.Address.String()}, nil
	}
	var out []string
	for _, m := range ep.MACs {
		bindings, err := v.BindingsOfMAC(m)
		if err != nil {
			return nil, err
		}
		for _, b := range bindings {
			out = append(out, b.Addr.String())
		}
	}
	return out, nil
}

// nameOf is the endpoint's name; a history may name one that is gone.
func nameOf(v store.View, id int64) (string, error) {
	ep, err := v.Endpoint(id)
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Sprintf("endpoint %d", id), nil
	}
	return ep.Name(), err
}

func threatOf(v store.View, t threat.Threat) (*wirev1.Threat, error) {
	out := &wirev1.Threat{
		Id: t.ID, State: string(t.State), Ended: t.State.Ended(), Severity: t.Severity.String(), Role: t.Role.String(),
		Signature: t.Signature, Kind: t.Kind, EndpointId: t.EndpointID, EventCount: count(t.EventCount),
		FirstSeen: stamp(t.FirstSeen), LastSeen: stamp(t.LastSeen), UpdatedAt: stamp(t.UpdatedAt),
		QuarantineId: t.QuarantineID, WaitingFor: t.WaitingFor,
	}
	if len(t.Flows) > 0 {
		out.Remote = endOf(t.Flows[0].Remote)
	}
	ep, err := v.Endpoint(t.EndpointID)
	if errors.Is(err, store.ErrNotFound) {
		out.EndpointName = fmt.Sprintf("endpoint %d", t.EndpointID)
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	out.EndpointName, out.Macs = ep.Name(), macs(ep.MACs)
	if out.Addresses, err = addressesOf(v, ep); err != nil {
		return nil, err
	}
	q, ok, err := v.ActiveQuarantine(ep.ID)
	out.Contained = ok && q.State == threat.QuarantineInForce
	return out, err
}

func (a *API) endpointOf(v store.View, ep endpoint.Endpoint) (*wirev1.Endpoint, error) {
	out := &wirev1.Endpoint{
		Id: ep.ID, Hostname: ep.Hostname, Macs: macs(ep.MACs), AgentId: ep.AgentID,
		AgentConnected: ep.AgentID != "" && a.Fleet.Connected(ep.AgentID),
		FirstSeen:      stamp(ep.FirstSeen), LastSeen: stamp(ep.LastSeen),
	}
	var err error
	if out.Addresses, err = addressesOf(v, ep); err != nil {
		return nil, err
	}
	q, ok, err := v.ActiveQuarantine(ep.ID)
	if ok {
		out.QuarantineId = q.ID
	}
	return out, err
}

func transition(t threat.Transition) *wirev1.Transition {
	return &wirev1.Transition{From: string(t.From), To: string(t.To), At: stamp(t.At), Cause: t.Cause, Actor: t.Actor}
}

func taskInfo(t threat.Task) (*wirev1.TaskInfo, error) {
	out := &wirev1.TaskInfo{
		Id: t.ID, State: string(t.State), AgentId: t.AgentID,
		CreatedAt: stamp(t.CreatedAt), DeliveredAt: stamp(t.DeliveredAt), EndedAt: stamp(t.EndedAt),
	}
	switch t.Kind {
	case threat.Assess:
		out.Kind = wirev1.TaskKind_TASK_KIND_ASSESS
	case threat.Clean:
		out.Kind = wirev1.TaskKind_TASK_KIND_CLEAN
	}
	if len(t.Result) == 0 {
		return out, nil
	}
	out.Result = &wirev1.TaskResult{}
	if err := proto.Unmarshal(t.Result, out.Result); err != nil {
		return nil, fmt.Errorf("result of task %s: %w", t.ID, err)
	}
	return out, nil
}

func quarantine(q threat.Quarantine, name string) *wirev1.QuarantineInfo {
	return &wirev1.QuarantineInfo{
		Id: q.ID, EndpointId: q.EndpointID, EndpointName: name, ThreatId: q.ThreatID, Macs: macs(q.MACs),
		Access: string(q.Access), Reason: q.Reason, Actor: q.Actor, CreatedAt: stamp(q.CreatedAt),
		ExpiresAt: stamp(q.ExpiresAt), InForceAt: stamp(q.InForceAt), EndedAt: stamp(q.EndedAt),
		EndedBy: q.EndedBy, Confirmation: q.Confirmation, State: string(q.State), Detail: q.Detail,
	}
}

// eventOf leaves the record itself out.
func eventOf(e event.Record) *wirev1.Event {
	return &wirev1.Event{
		Id: e.ID, Source: e.Source, At: stamp(e.Time), ReceivedAt: stamp(e.Received), Signature: e.Signature,
		Category: e.Category, Severity: e.Severity.String(), Protocol: protocol(e.Proto),
		Src: endOf(e.Src), Dst: endOf(e.Dst), Disposition: string(e.Disposition), ThreatId: e.ThreatID,
	}
}

// endOf writes an end of a flow; one without a port is an address alone.
func endOf(a netip.AddrPort) string {
	switch {
	case !a.Addr().IsValid():
		return ""
	case a.Port() == 0:
		return a.Addr().String()
	}
	return a.String()
}

func protocol(n uint8) string {
	switch n {
	case 0:
		return ""
	case event.ProtoTCP:
		return "tcp"
	case event.ProtoUDP:
		return "udp"
	case event.ProtoICMP:
		return "icmp"
	case event.ProtoICMPv6:
		return "icmpv6"
	}
	return strconv.Itoa(int(n))
}
