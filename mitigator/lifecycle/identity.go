package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
	"github.com/cordon-security/cordon/mitigator/endpoint"
	"github.com/cordon-security/cordon/mitigator/event"
	"github.com/cordon-security/cordon/mitigator/threat"
)

// seen is one observation of a binding.
type seen struct {
	endpoint.Binding
	present bool
}

// maxBindings bounds what one message may claim.
const maxBindings = 4096

func parseBindings(in []*wirev1.AddressBinding, source string) ([]seen, error) {
	if len(in) > maxBindings {
		return nil, fmt.Errorf("%d address bindings in one message: at most %d", len(in), maxBindings)
	}
	var out []seen
	now := time.Now().UTC()
	for _, b := range in {
		addr, ok := netip.AddrFromSlice(b.GetAddress())
		if !ok {
			return nil, fmt.Errorf("address of %d bytes: want 4 or 16", len(b.GetAddress()))
		}
		mac, err := endpoint.MACFrom(b.GetMac())
		if err != nil {
			return nil, err
		}
		addr = addr.Unmap()
		if !mac.IsEndpoint() || !isUnicast(addr) {
			continue
		}
		at := timeOr(b.GetSeenAt(), now)
		out = append(out, seen{
			Binding: endpoint.Binding{Addr: addr, MAC: mac, From: at, LastSeen: at, Source: source},
			present: b.GetPresent(),
		})
	}
	return out, nil
}

func isUnicast(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// neighborCache remembers which bindings the store has as holding, so that a
// device that confirms the same neighbours every few seconds costs no commits.
type neighborCache struct {
	mu    sync.Mutex
	holds map[netip.Addr]heldBinding
}

type heldBinding struct {
	mac      endpoint.MAC
	recorded time.Time
}

// confirmEvery is how stale a binding's LastSeen may become in the store.
const confirmEvery = 5 * time.Minute

func (c *neighborCache) known(b seen) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	h, ok := c.holds[b.Addr]
	if !b.present {
		return false
	}
	return ok && h.mac == b.MAC && b.LastSeen.Sub(h.recorded) < confirmEvery
}

func (c *neighborCache) record(b seen) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.holds == nil {
		c.holds = map[netip.Addr]heldBinding{}
	}
	if !b.present {
		delete(c.holds, b.Addr)
		return
	}
	c.holds[b.Addr] = heldBinding{mac: b.MAC, recorded: b.LastSeen}
}

// DeviceBindings takes in the address bindings that a device sees on its network.
func (e *Engine) DeviceBindings(ctx context.Context, device string, in []*wirev1.AddressBinding) error {
	all, err := parseBindings(in, "device:"+device)
	if err != nil {
		return fmt.Errorf("bindings from device %s: %w", device, err)
	}
	news := slices.DeleteFunc(all, e.neighbors.known)
	if len(news) == 0 {
		return nil
	}
	err = e.update(ctx, func(j *job) error {
		for _, b := range news {
			if err := e.deviceBinding(j, b); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, b := range news {
		e.neighbors.record(b)
	}
	return nil
}

func (e *Engine) deviceBinding(j *job, b seen) error {
	if !b.present {
		return j.tx.CloseBinding(b.Addr, b.MAC, b.LastSeen)
	}
	if _, ok, err := j.tx.EndpointByMAC(b.MAC); err != nil {
		return err
	} else if !ok {
		ep := endpoint.Endpoint{MACs: []endpoint.MAC{b.MAC}, FirstSeen: b.From, LastSeen: b.LastSeen}
		if err := j.tx.AddEndpoint(&ep); err != nil {
			return err
		}
	}
	return e.bind(j, b)
}

// bind opens a binding and gives threats that waited for it their endpoint.
func (e *Engine) bind(j *job, b seen) error {
	if err := j.tx.OpenBinding(b.Binding); err != nil {
		return err
	}
	nameless, ok, err := j.tx.EndpointByAddress(b.Addr)
	if err != nil || !ok {
		return err
	}
	return e.identify(j, nameless, b)
}

// identify moves the threats of an endpoint that was known by an address alone
// to the endpoint whose MAC held the address at their time. A binding that came
// later than the alert says nothing about it.
func (e *Engine) identify(j *job, nameless endpoint.Endpoint, b seen) error {
	open, err := j.tx.ThreatsOfEndpoint(nameless.ID)
	if err != nil {
		return err
	}
	for _, t := range open {
		if _, fits := endpoint.At([]endpoint.Binding{b.Binding}, t.LastSeen); !fits {
			return nil
		}
	}
	ep, ok, err := j.tx.EndpointByMAC(b.MAC)
	if err != nil || !ok {
		return errors.Join(err, fmt.Errorf("endpoint of %s is not known", b.MAC))
	}
	if err := j.tx.MergeEndpoint(nameless.ID, ep.ID); err != nil {
		return err
	}
	for _, t := range open {
		t.EndpointID = ep.ID
		f, ep, err := j.facts(t)
		if err != nil {
			return err
		}
		if err := e.apply(j, t, f, ep, threat.OnIdentified(e.policy, f)); err != nil {
			return err
		}
	}
	return nil
}

// resolve finds the endpoint that an event's local side was at the event's own
// time. The binding's MAC is nil when only the address is known.
func (e *Engine) resolve(j *job, local event.Local, at time.Time) (endpoint.Endpoint, *endpoint.MAC, error) {
	bindings, err := j.tx.Bindings(local.Addr)
	if err != nil {
		return endpoint.Endpoint{}, nil, fmt.Errorf("bindings of %s: %w", local.Addr, err)
	}
	if b, ok := endpoint.At(bindings, at); ok {
		ep, ok, err := j.tx.EndpointByMAC(b.MAC)
		if err != nil {
			return ep, nil, fmt.Errorf("endpoint of %s: %w", b.MAC, err)
		}
		if ok {
			return ep, &b.MAC, nil
		}
	}
	ep, ok, err := j.tx.EndpointByAddress(local.Addr)
	if err != nil || ok {
		return ep, nil, err
	}
	ep = endpoint.Endpoint{Address: local.Addr, FirstSeen: at, LastSeen: at}
	return ep, nil, j.tx.AddEndpoint(&ep)
}

// agentEndpoint finds or makes the endpoint of an agent, with the MACs that it
// says are its own.
func (e *Engine) agentEndpoint(j *job, agentID, hostname string, bindings []seen) (endpoint.Endpoint, error) {
	ep, ok, err := j.tx.EndpointByAgent(agentID)
	if err != nil {
		return ep, err
	}
	before := ep
	before.MACs = slices.Clone(ep.MACs)
	if !ok {
		ep = endpoint.Endpoint{AgentID: agentID, Hostname: hostname, FirstSeen: j.now}
	}
	ep.Hostname, ep.LastSeen = hostname, j.now
	merge := map[int64]bool{}
	for _, b := range bindings {
		if slices.Contains(ep.MACs, b.MAC) {
			continue
		}
		other, taken, err := j.tx.EndpointByMAC(b.MAC)
		if err != nil {
			return ep, err
		}
		if taken && other.AgentID != "" && other.AgentID != agentID {
			j.say("an agent claims a MAC that another agent holds; ignored", "agent", agentID, "mac", b.MAC, "holder", other.AgentID)
			continue
		}
		if taken && other.ID != ep.ID {
			merge[other.ID] = true
		}
		ep.MACs = append(ep.MACs, b.MAC)
	}
	if !ok {
		if err := j.tx.AddEndpoint(&ep); err != nil {
			return ep, err
		}
	} else if err := j.tx.SetEndpoint(ep); err != nil {
		return ep, err
	}
	for id := range merge {
		if err := j.tx.MergeEndpoint(id, ep.ID); err != nil {
			return ep, err
		}
	}
	return ep, e.widen(j, ep)
}

// widen makes the endpoint's active quarantine cover MACs that were learned
// since it was ordered.
func (e *Engine) widen(j *job, ep endpoint.Endpoint) error {
	q, ok, err := j.tx.ActiveQuarantine(ep.ID)
	if err != nil || !ok {
		return err
	}
	var added bool
	for _, m := range ep.MACs {
		if !slices.Contains(q.MACs, m) {
			q.MACs, added = append(q.MACs, m), true
		}
	}
	if !added {
		return nil
	}
	refusal, err := e.check(j, ep)
	if err != nil || (refusal != nil && !e.guard.AtCap(refusal)) {
		return err
	}
	if err := j.tx.SetQuarantine(q); err != nil {
		return err
	}
	if !q.State.Ordered() {
		return nil
	}
	return e.send(j, q.ID)
}
