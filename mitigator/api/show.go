package api

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
	"github.com/cordon-security/cordon/mitigator/device"
	"github.com/cordon-security/cordon/mitigator/intake"
	"github.com/cordon-security/cordon/mitigator/store"
	"github.com/cordon-security/cordon/mitigator/threat"
)

const (
	maxList = 1000
	// maxShownEvents and maxShownRaw bound the events that come with one threat,
	// in number and in bytes of their records.
	maxShownEvents = 50
	maxShownRaw    = 4 << 20
)

// bounded is a list's limit as asked for, within what is answered at once.
func bounded(n uint32) int { return int(min(n, maxList)) }

func count[T int | uint64](n T) uint32 { return uint32(min(uint64(max(n, 0)), math.MaxUint32)) }

func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// GetStatus implements AdminService.
func (a *API) GetStatus(ctx context.Context, _ *connect.Request[wirev1.GetStatusRequest]) (*connect.Response[wirev1.GetStatusResponse], error) {
	out := &wirev1.GetStatusResponse{
		Version: a.Version, Mode: string(a.Lifecycle.Policy().Mode), StartedAt: stamp(a.Started),
		AgentsConnected: count(a.Fleet.ConnectedCount()),
	}
	err := a.Store.View(ctx, func(v store.View) error {
		open, waiting, err := v.CountThreats()
		if err != nil {
			return err
		}
		out.ThreatsOpen, out.ThreatsWaiting = count(open), count(waiting)
		agents, err := v.Agents()
		if err != nil {
			return err
		}
		for _, one := range agents {
			if one.RevokedAt.IsZero() {
				out.Agents++
			}
		}
		out.Sources, err = a.sources(v)
		return err
	})
	if err != nil {
		return nil, wireError(err)
	}
	var states []device.State
	for _, d := range a.Devices {
		states = append(states, d.State())
		out.Devices = append(out.Devices, deviceStatus(states[len(states)-1]))
	}
	out.Alarms = append(a.Lifecycle.Alarms(), modeAlarms(out.GetMode(), out.GetDevices())...)
	out.Alarms = append(out.Alarms, partAlarms(states, a.Sources.Statuses())...)
	return connect.NewResponse(out), nil
}

// modeAlarms says that observe mode does not lift what was ordered before it.
func modeAlarms(mode string, devices []*wirev1.DeviceStatus) (out []string) {
	for _, d := range devices {
		if mode == string(threat.Observe) && d.GetDesired() > 0 {
			out = append(out, fmt.Sprintf("observe mode, but device %s still enforces %d quarantines of before: they end when they are released", d.GetName(), d.GetDesired()))
		}
	}
	return out
}

// partAlarms says of the running parts what a person should look at.
func partAlarms(devices []device.State, sources []intake.Status) (out []string) {
	for _, d := range devices {
		switch {
		case !d.Connected:
			out = append(out, fmt.Sprintf("device %s is not connected, orders wait: %s", d.Name, orUnknown(d.Err)))
			continue
		case d.BreakGlass.GetOn():
			out = append(out, fmt.Sprintf("device %s enforces nothing: break glass is on (`cordon-enforcer resume` there ends it)", d.Name))
		case d.Err != "":
			out = append(out, fmt.Sprintf("device %s: %s", d.Name, d.Err))
		}
		for _, alarm := range d.Alarms {
			out = append(out, fmt.Sprintf("device %s says: %s", d.Name, alarm))
		}
	}
	for _, s := range sources {
		if !s.Healthy {
			out = append(out, fmt.Sprintf("source %s delivers nothing: %s", s.Name, orUnknown(s.Error)))
		}
		if !s.TooOld.IsZero() {
			out = append(out, fmt.Sprintf("source %s: its last event is of %s, too old to become a threat (filters.max_age): is the detector's clock right?",
				s.Name, s.TooOld.UTC().Format(time.RFC3339)))
		}
	}
	return out
}

func orUnknown(why string) string {
	if why == "" {
		return "the reason is not known yet"
	}
	return why
}

func deviceStatus(s device.State) *wirev1.DeviceStatus {
	return &wirev1.DeviceStatus{
		Name: s.Name, Connected: s.Connected, Error: s.Err, Ordered: s.Ordered, Held: s.Held,
		Desired: s.Desired, InForce: s.InForce, BreakGlass: s.BreakGlass,
	}
}

// ListThreats implements AdminService.
func (a *API) ListThreats(ctx context.Context, r *connect.Request[wirev1.ListThreatsRequest]) (*connect.Response[wirev1.ListThreatsResponse], error) {
	out := &wirev1.ListThreatsResponse{}
	err := a.Store.View(ctx, func(v store.View) error {
		all, err := v.Threats(r.Msg.GetOpenOnly(), r.Msg.GetBeforeId(), bounded(r.Msg.GetLimit()))
		if err != nil {
			return err
		}
		for _, t := range all {
			one, err := threatOf(v, t)
			if err != nil {
				return err
			}
			out.Threats = append(out.Threats, one)
		}
		return nil
	})
	return connect.NewResponse(out), wireError(err)
}

// GetThreat implements AdminService.
func (a *API) GetThreat(ctx context.Context, r *connect.Request[wirev1.GetThreatRequest]) (*connect.Response[wirev1.GetThreatResponse], error) {
	out := &wirev1.GetThreatResponse{}
	err := a.Store.View(ctx, func(v store.View) error { return showThreat(v, r.Msg.GetId(), out) })
	return connect.NewResponse(out), wireError(err)
}

func showThreat(v store.View, id int64, out *wirev1.GetThreatResponse) error {
	t, err := v.Threat(id)
	if err != nil {
		return fmt.Errorf("threat %d: %w", id, err)
	}
	if out.Threat, err = threatOf(v, t); err != nil {
		return err
	}
	steps, err := v.Timeline(id)
	if err != nil {
		return err
	}
	for _, s := range steps {
		out.Timeline = append(out.Timeline, transition(s))
	}
	tasks, err := v.TasksOfThreat(id)
	if err != nil {
		return err
	}
	for _, task := range tasks {
		one, err := taskInfo(task)
		if err != nil {
			return err
		}
		out.Tasks = append(out.Tasks, one)
	}
	events, err := v.EventsOfThreat(id, maxShownEvents)
	if err != nil {
		return err
	}
	room := maxShownRaw
	for _, e := range events {
		one := eventOf(e)
		if len(e.Raw) <= room {
			one.Raw = e.Raw
			room -= len(e.Raw)
		}
		out.Events = append(out.Events, one)
	}
	if t.QuarantineID == "" {
		return nil
	}
	q, err := v.Quarantine(t.QuarantineID)
	if err != nil {
		return err
	}
	out.Quarantine = quarantine(q, out.GetThreat().GetEndpointName())
	return nil
}

// ListEvents implements AdminService. The records themselves come with the
// threat that they led to.
func (a *API) ListEvents(ctx context.Context, r *connect.Request[wirev1.ListEventsRequest]) (*connect.Response[wirev1.ListEventsResponse], error) {
	out := &wirev1.ListEventsResponse{}
	err := a.Store.View(ctx, func(v store.View) error {
		all, err := v.Events(r.Msg.GetBeforeId(), bounded(r.Msg.GetLimit()))
		for _, e := range all {
			out.Events = append(out.Events, eventOf(e))
		}
		return err
	})
	return connect.NewResponse(out), wireError(err)
}

// ListEndpoints implements AdminService.
func (a *API) ListEndpoints(ctx context.Context, r *connect.Request[wirev1.ListEndpointsRequest]) (*connect.Response[wirev1.ListEndpointsResponse], error) {
	out := &wirev1.ListEndpointsResponse{}
	err := a.Store.View(ctx, func(v store.View) error {
		all, err := v.Endpoints(r.Msg.GetAfterId(), bounded(r.Msg.GetLimit()))
		if err != nil {
			return err
		}
		for _, ep := range all {
			one, err := a.endpointOf(v, ep)
			if err != nil {
				return err
			}
			out.Endpoints = append(out.Endpoints, one)
		}
		return nil
	})
	return connect.NewResponse(out), wireError(err)
}

// ListQuarantines implements AdminService.
func (a *API) ListQuarantines(ctx context.Context, r *connect.Request[wirev1.ListQuarantinesRequest]) (*connect.Response[wirev1.ListQuarantinesResponse], error) {
	out := &wirev1.ListQuarantinesResponse{}
	err := a.Store.View(ctx, func(v store.View) error {
		all, err := v.Quarantines(r.Msg.GetActiveOnly(), bounded(r.Msg.GetLimit()))
		if err != nil {
			return err
		}
		if r.Msg.GetActiveOnly() {
			// Until the device has let it go, the endpoint is cut off.
			going, err := v.QuarantinesIn(threat.QuarantineReleasing, bounded(r.Msg.GetLimit()))
			if err != nil {
				return err
			}
			all = append(going, all...)
			if n := bounded(r.Msg.GetLimit()); n > 0 {
				all = all[:min(n, len(all))]
			}
		}
		for _, q := range all {
			name, err := nameOf(v, q.EndpointID)
			if err != nil {
				return err
			}
			out.Quarantines = append(out.Quarantines, quarantine(q, name))
		}
		return nil
	})
	return connect.NewResponse(out), wireError(err)
}

// ListAgents implements AdminService.
func (a *API) ListAgents(ctx context.Context, _ *connect.Request[wirev1.ListAgentsRequest]) (*connect.Response[wirev1.ListAgentsResponse], error) {
	out := &wirev1.ListAgentsResponse{}
	err := a.Store.View(ctx, func(v store.View) error {
		all, err := v.Agents()
		if err != nil {
			return err
		}
		for _, one := range all {
			ep, _, err := v.EndpointByAgent(one.ID)
			if err != nil {
				return err
			}
			out.Agents = append(out.Agents, &wirev1.Agent{
				Id: one.ID, Hostname: one.Hostname, Version: one.Version, Connected: a.Fleet.Connected(one.ID),
				EnrolledAt: stamp(one.EnrolledAt), LastSeen: stamp(one.LastSeen), CertificateExpiresAt: stamp(one.CertExpires),
				RevokedAt: stamp(one.RevokedAt), Observer: one.Observer, EndpointId: ep.ID,
			})
		}
		return nil
	})
	return connect.NewResponse(out), wireError(err)
}

// ListSources implements AdminService.
func (a *API) ListSources(ctx context.Context, _ *connect.Request[wirev1.ListSourcesRequest]) (*connect.Response[wirev1.ListSourcesResponse], error) {
	out := &wirev1.ListSourcesResponse{}
	err := a.Store.View(ctx, func(v store.View) (err error) {
		out.Sources, err = a.sources(v)
		return err
	})
	return connect.NewResponse(out), wireError(err)
}

// sources are the configured ones, with what each delivered ever.
func (a *API) sources(v store.View) (out []*wirev1.Source, err error) {
	for _, s := range a.Sources.Statuses() {
		events, rejected, err := v.SourceCounts(s.Name)
		if err != nil {
			return nil, err
		}
		out = append(out, sourceOf(s, events, rejected))
	}
	return out, nil
}

func sourceOf(s intake.Status, events, rejected uint64) *wirev1.Source {
	return &wirev1.Source{
		Name: s.Name, Kind: s.Kind, Target: s.Target, Healthy: s.Healthy, Error: s.Error,
		Events: events, Rejected: rejected, LastEventAt: stamp(s.LastEvent),
	}
}

// ListRejects implements AdminService.
func (a *API) ListRejects(ctx context.Context, r *connect.Request[wirev1.ListRejectsRequest]) (*connect.Response[wirev1.ListRejectsResponse], error) {
	out := &wirev1.ListRejectsResponse{}
	name := r.Msg.GetSource()
	known := func(s intake.Status) bool { return s.Name == name }
	err := a.Store.View(ctx, func(v store.View) error {
		all, err := v.Rejects(name, bounded(r.Msg.GetLimit()))
		if err == nil && len(all) == 0 && name != "" && !slices.ContainsFunc(a.Sources.Statuses(), known) {
			return connect.NewError(connect.CodeNotFound, fmt.Errorf("there is no source %q", name))
		}
		for _, one := range all {
			out.Rejects = append(out.Rejects, &wirev1.Reject{
				Source: one.Source, Reason: one.Reason, Raw: one.Raw, Size: one.Size, ReceivedAt: stamp(one.Received),
			})
		}
		return err
	})
	return connect.NewResponse(out), wireError(err)
}
