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
	"github.com/cordon-security/cordon/mitigator/store"
	"github.com/cordon-security/cordon/mitigator/threat"
)

// seen is one observation of a binding.
type seen struct {
	endpoint.Binding
	present bool
}

// maxBindings bounds what one message may claim.
const maxBindings = 4096

func (e *Engine) parseBindings(in []*wirev1.AddressBinding, source string) ([]seen, error) {
	if len(in) > maxBindings {
		return nil, fmt.Errorf("%d address bindings in one message: at most %d", len(in), maxBindings)
	}
	var out []seen
	now := e.now().UTC()
	for _, b := range in {
		addr, ok := netip.AddrFromSlice(b.GetAddress())
		if !ok {
			return nil, fmt.Errorf("address of %d bytes: want 4 or 16", len(b.GetAddress()))
		}
		if len(b.GetMac()) == 0 {
			continue // a tunnel's address: no MAC to bind it to
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

// maxNeighbors bounds the cache: addresses can be made up.
const maxNeighbors = 65536

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
	if len(c.holds) >= maxNeighbors {
		clear(c.holds) // forgotten ones cost a commit each, nothing else
	}
	c.holds[b.Addr] = heldBinding{mac: b.MAC, recorded: b.LastSeen}
}

// forget makes the next observation of the address count as news.
func (c *neighborCache) forget(a netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.holds, a)
}

// DeviceBindings takes in the address bindings that a device sees on its network.
// On a full disk they wait in memory: the device's orders must not wait for them.
func (e *Engine) DeviceBindings(ctx context.Context, device string, in []*wirev1.AddressBinding) error {
	all, err := e.parseBindings(in, endpoint.DeviceSource+device)
	if err != nil {
		return fmt.Errorf("bindings from device %s: %w", device, err)
	}
	news := slices.DeleteFunc(all, e.neighbors.known)
	if len(news) == 0 {
		return nil
	}
	if !e.backlog.hasBindings() { // else behind those that wait: they are dated in order
		err = e.takeBindings(ctx, news)
		if !errors.Is(err, store.ErrFull) {
			return err
		}
	}
	e.backlog.addBindings(news)
	return nil
}

func (e *Engine) takeBindings(ctx context.Context, news []seen) error {
	err := e.update(ctx, func(j *job) error {
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
	} else if !ok && !e.isOurs(b.Addr) {
		// A neighbour on the other side, as the provider's router, is no endpoint.
		return j.tx.OpenBinding(b.Binding)
	} else if !ok {
		ep := endpoint.Endpoint{MACs: []endpoint.MAC{b.MAC}, FirstSeen: b.From, LastSeen: b.LastSeen}
		if err := j.tx.AddEndpoint(&ep); err != nil {
			return err
		}
	}
	return e.bind(j, b)
}

// isOurs reports whether the address is one of our endpoints'. Where nobody said
// which networks are ours, all are.
func (e *Engine) isOurs(a netip.Addr) bool {
	return len(e.home.Include) == 0 || e.home.Contains(a)
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

// identify moves what hangs on an endpoint that was known by an address alone,
// its threats and its agent, to the endpoint whose MAC held the address at their
// time. A binding that came later says nothing about them.
func (e *Engine) identify(j *job, nameless endpoint.Endpoint, b seen) error {
	open, err := j.tx.ThreatsOfEndpoint(nameless.ID)
	if err != nil {
		return err
	}
	times := make([]time.Time, 0, len(open)+1)
	for _, t := range open {
		times = append(times, t.LastSeen)
	}
	if nameless.AgentID != "" {
		times = append(times, nameless.LastSeen)
	}
	for _, at := range times {
		if _, fits := endpoint.At([]endpoint.Binding{b.Binding}, at); !fits {
			return nil
		}
	}
	ep, ok, err := j.tx.EndpointByMAC(b.MAC)
	if err != nil || !ok {
		return errors.Join(err, fmt.Errorf("endpoint of %s is not known", b.MAC))
	}
	if nameless.AgentID != "" {
		ep.AgentID, ep.Hostname = nameless.AgentID, nameless.Hostname
	}
	if err := e.absorb(j, nameless, ep); err != nil {
		return err
	}
	if err := j.tx.SetEndpoint(ep); err != nil {
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
	ep, mac, err := byMAC(j.tx, local, at)
	if err != nil || mac != nil {
		return ep, mac, err
	}
	ep, ok, err := j.tx.EndpointByAddress(local.Addr)
	if err != nil || ok {
		return ep, nil, err
	}
	if ok, err = e.admitUnknown(j); err != nil {
		return ep, nil, err
	}
	if !ok {
		return ep, nil, errTooManyUnknown
	}
	ep = endpoint.Endpoint{Address: local.Addr, FirstSeen: at, LastSeen: at}
	return ep, nil, j.tx.AddEndpoint(&ep)
}

// byMAC finds the endpoint whose MAC held the address at the time; the MAC is nil
// when none is known to have.
func byMAC(v store.View, local event.Local, at time.Time) (endpoint.Endpoint, *endpoint.MAC, error) {
	bindings, err := v.Bindings(local.Addr)
	if err != nil {
		return endpoint.Endpoint{}, nil, fmt.Errorf("bindings of %s: %w", local.Addr, err)
	}
	b, ok := endpoint.At(bindings, at)
	if !ok {
		return endpoint.Endpoint{}, nil, nil
	}
	ep, ok, err := v.EndpointByMAC(b.MAC)
	if err != nil {
		return ep, nil, fmt.Errorf("endpoint of %s: %w", b.MAC, err)
	}
	if !ok {
		return ep, nil, nil
	}
	return ep, &b.MAC, nil
}

// agentEndpoint finds or makes the endpoint of an agent by where its connection
// comes from: the MAC that a device sees there, or, where no device does, the
// address alone.
func (e *Engine) agentEndpoint(j *job, agentID, hostname string, source netip.Addr) (endpoint.Endpoint, error) {
	ep, ok, err := j.tx.EndpointByAgent(agentID)
	if err != nil {
		return ep, err
	}
	if !ok {
		ep = endpoint.Endpoint{AgentID: agentID, FirstSeen: j.now}
	}
	ep.Hostname, ep.LastSeen = hostname, j.now
	mac, seen, err := e.seenAt(j, source)
	if err != nil {
		return ep, err
	}
	if !ok {
		if err := j.tx.AddEndpoint(&ep); err != nil {
			return ep, err
		}
	}
	if seen {
		err = e.proveMAC(j, &ep, mac)
	} else if len(ep.MACs) == 0 {
		err = e.proveAddress(j, &ep, source)
	}
	if err != nil {
		return ep, err
	}
	if err := e.fewerMACs(j, &ep, mac); err != nil {
		return ep, err
	}
	if err := j.tx.SetEndpoint(ep); err != nil {
		return ep, err
	}
	return ep, e.widen(j, ep)
}

// seenAt is the MAC that a device sees at the address now.
func (e *Engine) seenAt(j *job, a netip.Addr) (endpoint.MAC, bool, error) {
	if !isUnicast(a) {
		return endpoint.MAC{}, false, nil
	}
	bindings, err := j.tx.Bindings(a)
	if err != nil {
		return endpoint.MAC{}, false, fmt.Errorf("bindings of %s: %w", a, err)
	}
	for _, b := range bindings {
		if b.Until.IsZero() && b.ByDevice() {
			return b.MAC, true, nil
		}
	}
	return endpoint.MAC{}, false, nil
}

// proveMAC makes the MAC that the agent's connection comes from its endpoint's.
// An agent that had it before was enrolled anew, or has left the machine.
func (e *Engine) proveMAC(j *job, ep *endpoint.Endpoint, mac endpoint.MAC) error {
	ep.Address = netip.Addr{}
	if slices.Contains(ep.MACs, mac) {
		return nil
	}
	other, taken, err := j.tx.EndpointByMAC(mac)
	if err != nil {
		return err
	}
	ep.MACs = append(ep.MACs, mac)
	if !taken || other.ID == ep.ID {
		return nil
	}
	if other.AgentID != "" {
		j.say("another agent speaks from this MAC now", "mac", mac, "agent", ep.AgentID, "before", other.AgentID)
	}
	if other.AgentID != "" && len(other.MACs) > 1 {
		return e.lend(j, other, mac)
	}
	for _, m := range other.MACs {
		if !slices.Contains(ep.MACs, m) {
			ep.MACs = append(ep.MACs, m)
		}
	}
	return e.absorb(j, other, *ep)
}

// maxMACs is how many MACs one endpoint is known by: docks and adapters come and
// go, and a machine can make MACs up.
const maxMACs = 16

// fewerMACs drops, above the bound, the MACs of an endpoint that were not seen for
// the longest. spoke is the one that its agent speaks from now. A quarantine that
// stands on a dropped one stays on it.
func (e *Engine) fewerMACs(j *job, ep *endpoint.Endpoint, spoke endpoint.MAC) error {
	if len(ep.MACs) <= maxMACs {
		return nil
	}
	seen := map[endpoint.MAC]time.Time{}
	for _, m := range ep.MACs {
		bindings, err := j.tx.BindingsOfMAC(m)
		if err != nil {
			return fmt.Errorf("bindings of %s: %w", m, err)
		}
		for _, b := range bindings {
			if b.LastSeen.After(seen[m]) {
				seen[m] = b.LastSeen
			}
		}
	}
	seen[spoke] = j.now
	byAge := slices.Clone(ep.MACs)
	slices.SortStableFunc(byAge, func(a, b endpoint.MAC) int { return seen[b].Compare(seen[a]) })
	dropped := byAge[maxMACs:]
	ep.MACs = slices.DeleteFunc(slices.Clone(ep.MACs), func(m endpoint.MAC) bool { return slices.Contains(dropped, m) })
	j.say("an endpoint has more MACs than it is known by; those unseen longest are no longer its", "endpoint", ep.Name(),
		"dropped", fmt.Sprint(dropped), "most", maxMACs)
	return nil
}

// lend takes a MAC from an endpoint that has others: a dock or an adapter that
// went to a colleague's desk is no reason to take the two machines for one. A
// quarantine that stands on the MAC stays on it: only a release ends it.
func (e *Engine) lend(j *job, from endpoint.Endpoint, mac endpoint.MAC) error {
	from.MACs = slices.DeleteFunc(from.MACs, func(m endpoint.MAC) bool { return m == mac })
	if err := j.tx.SetEndpoint(from); err != nil {
		return err
	}
	q, ok, err := j.tx.ActiveQuarantine(from.ID)
	if err != nil || !ok || !slices.Contains(q.MACs, mac) {
		return err
	}
	holders, err := e.holders(j, q)
	if err != nil {
		return err
	}
	for _, t := range holders {
		if err := e.note(j, &t, from, threat.ByPolicy, fmt.Sprintf("another machine uses %s now, which stays quarantined until quarantine %s is released", mac, q.ID)); err != nil {
			return err
		}
		if err := j.tx.SetThreat(t); err != nil {
			return err
		}
	}
	return nil
}

// proveAddress makes an endpoint that no device sees known by the address that
// its agent's connection comes from, unless another agent comes from there too.
func (e *Engine) proveAddress(j *job, ep *endpoint.Endpoint, source netip.Addr) error {
	if !isUnicast(source) {
		return nil
	}
	other, taken, err := j.tx.EndpointByAddress(source)
	if err != nil || taken && other.ID == ep.ID {
		return err
	}
	if taken && other.AgentID != "" {
		j.say("two agents come from one address: neither is found by it", "address", source, "agent", ep.AgentID, "other", other.AgentID)
		return nil
	}
	ep.Address = source
	if !taken {
		return nil
	}
	return e.absorb(j, other, *ep)
}

// absorb moves what hangs on an endpoint to the one that it turned out to be.
func (e *Engine) absorb(j *job, from, into endpoint.Endpoint) error {
	from.AgentID, from.Address = "", netip.Addr{}
	if err := j.tx.SetEndpoint(from); err != nil {
		return err
	}
	if err := e.joinQuarantines(j, from, into); err != nil {
		return err
	}
	return j.tx.MergeEndpoint(from.ID, into.ID)
}
