package fleet

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

const (
	maxTaskID   = 128
	maxBindings = 1024
)

// Report implements AgentService.
func (s *service) Report(ctx context.Context, req *connect.Request[wirev1.ReportRequest]) (*connect.Response[wirev1.ReportResponse], error) {
	f := s.fleet
	id, err := f.authorize(ctx)
	if err != nil {
		return nil, err
	}
	result := req.Msg.GetResult()
	if n := len(result.GetTaskId()); n == 0 || n > maxTaskID {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("the result's task id has %d bytes, want 1 to %d", n, maxTaskID))
	}
	err = f.engine.Report(ctx, id, result)
	if errors.Is(err, ErrNotYourTask) {
		f.log.Warn("result refused", "agent", id, "task", cleanText(result.GetTaskId(), maxTaskID), "error", err)
		return nil, connect.NewError(connect.CodePermissionDenied, ErrNotYourTask)
	}
	if err != nil {
		return nil, f.internal("take a result in", id, err)
	}
	f.touch(ctx, id)
	return connect.NewResponse(&wirev1.ReportResponse{}), nil
}

// Observe implements AgentService.
func (s *service) Observe(ctx context.Context, req *connect.Request[wirev1.ObserveRequest]) (*connect.Response[wirev1.ObserveResponse], error) {
	f := s.fleet
	id, err := f.authorize(ctx)
	if err != nil {
		return nil, err
	}
	m := req.Msg
	if err := checkBindings(m.GetBindings()); err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	m.Hostname = cleanText(m.GetHostname(), maxHostname)
	if err := f.engine.Observe(ctx, id, peerOf(ctx).source, m); err != nil {
		return nil, f.internal("take an observation in", id, err)
	}
	f.touch(ctx, id)
	return connect.NewResponse(&wirev1.ObserveResponse{}), nil
}

func checkBindings(bindings []*wirev1.AddressBinding) error {
	if len(bindings) > maxBindings {
		return fmt.Errorf("%d address bindings, at most %d are taken", len(bindings), maxBindings)
	}
	for i, b := range bindings {
		if n := len(b.GetAddress()); n != 4 && n != 16 {
			return fmt.Errorf("binding %d: its address has %d bytes, want 4 or 16", i, n)
		}
		if n := len(b.GetMac()); n != 0 && n != 6 {
			return fmt.Errorf("binding %d: its MAC has %d bytes, want 6, or none", i, n)
		}
		if at := b.GetSeenAt(); at != nil && !at.IsValid() {
			return fmt.Errorf("binding %d: its time is not valid", i)
		}
	}
	return nil
}

func (f *Fleet) touch(ctx context.Context, id string) {
	if err := f.store.TouchAgent(ctx, id, f.now(), "", ""); err != nil {
		f.log.Warn("cannot record an agent's sign of life", "agent", id, "error", err)
	}
}
