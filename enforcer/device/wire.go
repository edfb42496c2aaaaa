package device

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cordon-security/cordon/enforcer/breakglass"
	"github.com/cordon-security/cordon/enforcer/desired"
	"github.com/cordon-security/cordon/enforcer/neighbor"
	"github.com/cordon-security/cordon/internal/guard"
	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

func revisionOf(r *wirev1.Revision) desired.Revision {
	return desired.Revision{Epoch: r.GetEpoch(), Number: r.GetNumber()}
}

func revisionTo(r desired.Revision) *wirev1.Revision {
	return &wirev1.Revision{Epoch: r.Epoch, Number: r.Number}
}

// orderOf reads a quarantine off the wire. One that has no usable id is an
// error of the whole order, since nobody could be told about it. Any other
// fault is the quarantine's own and is refused with its words, so that one bad
// order never blocks the good ones beside it.
func orderOf(w *wirev1.Quarantine) (ordered, error) {
	if w.GetId() == "" || len(w.GetId()) > desired.MaxID {
		return ordered{}, fmt.Errorf("a quarantine's id must have 1 to %d bytes, this has %d", desired.MaxID, len(w.GetId()))
	}
	q := &desired.Quarantine{ID: w.GetId(), Reason: clip(w.GetReason(), desired.MaxReason)}
	switch w.GetAccess() {
	case wirev1.Access_ACCESS_NONE:
		q.Access = desired.AccessNone
	case wirev1.Access_ACCESS_LIMITED:
		q.Access = desired.AccessLimited
	default:
		q.Fault = fmt.Sprintf("this device knows no access level %d", w.GetAccess())
	}
	if at := w.GetExpiresAt(); at != nil {
		if err := at.CheckValid(); err != nil {
			q.Fault = "its expiry is no time: " + err.Error()
		} else {
			q.Expires = expiryOf(at.AsTime())
		}
	}
	if err := macsOf(q, w.GetMacs()); err != nil {
		q.Fault = err.Error()
	}
	return ordered{quarantine: q, bindings: bindingsOf(q.MACs, w.GetBindings())}, nil
}

// expiryOf is an expiry in nanoseconds since 1970. What nanoseconds cannot count
// is the nearest that they can: never 0, which would mean until released.
func expiryOf(at time.Time) int64 { return max(nanoseconds(at), 1) }

// nanoseconds since 1970, within what they can count from there on.
func nanoseconds(at time.Time) int64 {
	switch {
	case at.Unix() < 0:
		return 0
	case at.Unix() >= math.MaxInt64/int64(time.Second):
		return math.MaxInt64
	}
	return at.UnixNano()
}

// clip cuts text to n bytes without cutting a character.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}

func macsOf(q *desired.Quarantine, macs [][]byte) error {
	if len(macs) == 0 {
		return errors.New("it names no MAC address to bind to")
	}
	if len(macs) > desired.MaxMACs {
		return fmt.Errorf("it names %d MAC addresses, the most is %d", len(macs), desired.MaxMACs)
	}
	for _, b := range macs {
		m, err := guard.MACFrom(b)
		if err != nil {
			return err
		}
		if !slices.Contains(q.MACs, m) {
			q.MACs = append(q.MACs, m)
		}
	}
	return nil
}

// bindingsOf keeps the newest bindings that are usable.
func bindingsOf(macs []guard.MAC, list []*wirev1.AddressBinding) []desired.Binding {
	var out []desired.Binding
	for _, w := range list {
		m, err := guard.MACFrom(w.GetMac())
		a, ok := netip.AddrFromSlice(w.GetAddress())
		a = a.Unmap()
		if err != nil || !ok || !w.GetPresent() || !slices.Contains(macs, m) || a.IsMulticast() || a.IsUnspecified() || a.IsLoopback() {
			continue
		}
		out = append(out, desired.Binding{Address: a, MAC: m, Seen: time.Unix(0, nanoseconds(w.GetSeenAt().AsTime())).UTC()})
	}
	slices.SortStableFunc(out, func(a, b desired.Binding) int { return a.Seen.Compare(b.Seen) })
	return out[max(0, len(out)-desired.MaxBindings):]
}

func bindingTo(o neighbor.Observation) *wirev1.AddressBinding {
	return &wirev1.AddressBinding{
		Address: o.Address.AsSlice(), Mac: slices.Clone(o.MAC[:]), SeenAt: timestamppb.New(o.Seen), Present: o.Present,
	}
}

func stateTo(p desired.Phase) wirev1.EnforcementState {
	switch p {
	case desired.InForce:
		return wirev1.EnforcementState_ENFORCEMENT_STATE_IN_FORCE
	case desired.Suspended:
		return wirev1.EnforcementState_ENFORCEMENT_STATE_SUSPENDED
	case desired.Held:
		return wirev1.EnforcementState_ENFORCEMENT_STATE_HELD
	case desired.Refused:
		return wirev1.EnforcementState_ENFORCEMENT_STATE_REFUSED
	}
	return wirev1.EnforcementState_ENFORCEMENT_STATE_PENDING
}

// status is what is known of a quarantine. The caller holds the lock.
func (d *Device) status(now time.Time, q *desired.Quarantine) *wirev1.QuarantineStatus {
	s := stateTo(q.Status.Phase)
	out := &wirev1.QuarantineStatus{
		QuarantineId: q.ID, State: s, Detail: q.Status.Detail, Revision: revisionTo(d.store.Revision()), Sequence: d.next(),
		Methods: []*wirev1.MethodStatus{{
			Method: d.opts.Method.Name(), State: s, Detail: q.Status.Detail,
			Since: timestamppb.New(time.Unix(0, q.Status.Since)),
		}},
	}
	if q.Status.Phase != desired.InForce {
		return out
	}
	view := d.view(now)
	out.Detail = view.LeftOut(q)
	if alarm := d.alarm(); alarm != "" && out.Detail == "" {
		out.Detail = alarm
	}
	for _, m := range q.MACs {
		for _, b := range d.store.Bindings(m) {
			if view.Access(addressMember(b.Address)) != 0 {
				out.Bindings = append(out.Bindings, bindingTo(neighbor.Observation{
					Address: b.Address, MAC: m, Seen: b.Seen, Present: true}))
			}
		}
	}
	return out
}

// next numbers what is said of quarantines. The caller holds the lock, so that
// the numbers have the order of what they stand for.
func (d *Device) next() uint64 {
	d.said++
	return d.said
}

// gone is the status of a quarantine that is no longer held. The caller holds
// the lock.
func (d *Device) gone(id string, how phaseGone, now time.Time, pending string) *wirev1.QuarantineStatus {
	s := wirev1.EnforcementState_ENFORCEMENT_STATE_REMOVED
	if how == expired {
		s = wirev1.EnforcementState_ENFORCEMENT_STATE_EXPIRED
	}
	if pending != "" {
		s, pending = wirev1.EnforcementState_ENFORCEMENT_STATE_PENDING, "not read back as gone yet, it is tried again: "+pending
	}
	return &wirev1.QuarantineStatus{
		QuarantineId: id, State: s, Detail: pending, Revision: revisionTo(d.store.Revision()), Sequence: d.next(),
		Methods: []*wirev1.MethodStatus{{Method: d.opts.Method.Name(), State: s, Detail: pending, Since: timestamppb.New(now)}},
	}
}

func breakGlassTo(o breakglass.Order, on bool) *wirev1.BreakGlass {
	if !on && o.Since.IsZero() {
		return &wirev1.BreakGlass{}
	}
	return &wirev1.BreakGlass{On: on, Since: timestamppb.New(o.Since), Actor: o.Actor, Reason: o.Reason}
}

func statusEvent(s *wirev1.QuarantineStatus) *wirev1.WatchResponse {
	return &wirev1.WatchResponse{Event: &wirev1.WatchResponse_Status{Status: s}}
}

func bindingEvent(o neighbor.Observation) *wirev1.WatchResponse {
	return &wirev1.WatchResponse{Event: &wirev1.WatchResponse_Binding{Binding: bindingTo(o)}}
}

func driftEvent(detail string, at time.Time, repaired bool) *wirev1.WatchResponse {
	return &wirev1.WatchResponse{Event: &wirev1.WatchResponse_Drift{Drift: &wirev1.Drift{
		Detail: detail, At: timestamppb.New(at), Repaired: repaired}}}
}

func breakGlassEvent(o breakglass.Order, on bool) *wirev1.WatchResponse {
	return &wirev1.WatchResponse{Event: &wirev1.WatchResponse_BreakGlass{BreakGlass: breakGlassTo(o, on)}}
}
