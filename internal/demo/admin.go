package demo

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/cordon-security/cordon/internal/testlan"
	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

const (
	// patience is how long something may take that should be quick.
	patience = 45 * time.Second
	// askPause is between two questions to the mitigator.
	askPause = 100 * time.Millisecond
)

// administrator is who sits at the appliance and types commands.
type administrator struct{ host *testlan.Host }

// types runs the command line on the appliance and returns what it prints.
func (a administrator) types(ctx context.Context, args ...string) (string, error) {
	return a.host.Run(ctx, append([]string{programDir + "/" + cli, "--token-file", adminToken}, args...)...)
}

// asks runs the command line and reads its JSON.
func (a administrator) asks(ctx context.Context, into proto.Message, args ...string) error {
	out, err := a.types(ctx, append([]string{"--output", "json"}, args...)...)
	if err != nil {
		return err
	}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal([]byte(out), into); err != nil {
		return fmt.Errorf("read the JSON of cordon %v: %w", args, err)
	}
	return nil
}

// errFinal wraps what will not change any more: there is nothing to wait for.
var errFinal = errors.New("it will not change any more")

// until asks again and again until it is so, and says at last what was not. It
// gives up at once when the answer wraps errFinal.
func until(ctx context.Context, what string, is func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var last error
	for {
		err := is(ctx)
		if err == nil {
			return nil
		}
		if errors.Is(err, errFinal) {
			return fmt.Errorf("%s: %w", what, err)
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not within %s: %w", what, patience, last)
		case <-time.After(askPause):
		}
	}
}

func (a administrator) threats(ctx context.Context) ([]*wirev1.Threat, error) {
	var list wirev1.ListThreatsResponse
	err := a.asks(ctx, &list, "threats", "--all")
	return list.GetThreats(), err
}

func (a administrator) threat(ctx context.Context, id int64) (*wirev1.GetThreatResponse, error) {
	var t wirev1.GetThreatResponse
	err := a.asks(ctx, &t, "threat", "show", strconv.FormatInt(id, 10))
	return &t, err
}

// newest returns the newest threat on the endpoint that has the address, and
// whose id is above after.
func (a administrator) newest(ctx context.Context, endpoint netip.Addr, after int64) (*wirev1.Threat, error) {
	all, err := a.threats(ctx)
	if err != nil {
		return nil, err
	}
	var found *wirev1.Threat
	for _, t := range all {
		if t.GetId() > after && slices.Contains(t.GetAddresses(), endpoint.String()) && t.GetId() > found.GetId() {
			found = t
		}
	}
	if found == nil {
		return nil, fmt.Errorf("the mitigator has no new threat on %s, of %d threats", endpoint, len(all))
	}
	return found, nil
}

// waitThreat waits until the newest threat on an endpoint is as wanted, and
// returns all that is known of it.
func (a administrator) waitThreat(ctx context.Context, endpoint netip.Addr, after int64, state string) (*wirev1.GetThreatResponse, error) {
	id, err := a.waitState(ctx, endpoint, after, state)
	if err != nil {
		return nil, err
	}
	return a.threat(ctx, id)
}

// stuck is how often a threat must be seen to wait for a person, who never
// comes, until it is believed.
const stuck = 20

// waitState waits until the newest threat on an endpoint is as wanted, and
// returns its number. It does not wait for what cannot come any more.
func (a administrator) waitState(ctx context.Context, endpoint netip.Addr, after int64, state string) (int64, error) {
	id, waiting := int64(0), 0
	err := until(ctx, fmt.Sprintf("the threat on %s is %s", endpoint, state), func(ctx context.Context) error {
		t, err := a.newest(ctx, endpoint, after)
		if err != nil {
			return err
		}
		id = t.GetId()
		if t.GetState() == "unresolved" && t.GetWaitingFor() != "" {
			waiting++
		}
		switch now := t.GetState(); {
		case now == state:
			return nil
		case t.GetEnded(), now == "quarantined" && state != "released", waiting > stuck:
			return fmt.Errorf("threat %d is %s, waits for %q: %w", id, now, t.GetWaitingFor(), errFinal)
		default:
			return fmt.Errorf("threat %d is %s, waits for %q", id, now, t.GetWaitingFor())
		}
	})
	return id, err
}

// lastThreat is the highest id so far.
func (a administrator) lastThreat(ctx context.Context) (int64, error) {
	all, err := a.threats(ctx)
	var last int64
	for _, t := range all {
		last = max(last, t.GetId())
	}
	return last, err
}

// connected waits until the agents of the hosts are connected, and their
// endpoints known.
func (a administrator) connected(ctx context.Context, hosts ...string) error {
	return until(ctx, fmt.Sprintf("the agents of %v are connected", hosts), func(ctx context.Context) error {
		var list wirev1.ListAgentsResponse
		if err := a.asks(ctx, &list, "agents"); err != nil {
			return err
		}
		for _, h := range hosts {
			if !slices.ContainsFunc(list.GetAgents(), func(g *wirev1.Agent) bool {
				return g.GetHostname() == h && g.GetConnected() && g.GetEndpointId() != 0
			}) {
				return fmt.Errorf("the agent of %s is not among the connected of %d", h, len(list.GetAgents()))
			}
		}
		return nil
	})
}

// inForce waits until the mitigator says that the endpoint's quarantine was
// read back.
func (a administrator) inForce(ctx context.Context, mac string) (*wirev1.QuarantineInfo, error) {
	var found *wirev1.QuarantineInfo
	err := until(ctx, "the quarantine of "+mac+" is in force", func(ctx context.Context) error {
		var list wirev1.ListQuarantinesResponse
		if err := a.asks(ctx, &list, "quarantines"); err != nil {
			return err
		}
		i := slices.IndexFunc(list.GetQuarantines(), func(q *wirev1.QuarantineInfo) bool {
			return slices.Contains(q.GetMacs(), mac) && q.GetEndedAt() == nil
		})
		if i < 0 {
			return errors.New("there is none")
		}
		found = list.GetQuarantines()[i]
		if found.GetState() != "in-force" {
			return fmt.Errorf("it is %s: %s", found.GetState(), found.GetDetail())
		}
		return nil
	})
	return found, err
}

// entered returns when the threat came into a state, and how often it did.
func entered(t *wirev1.GetThreatResponse, state string) (at time.Time, times int) {
	for _, s := range t.GetTimeline() {
		if s.GetTo() == state && s.GetFrom() != state {
			at = s.GetAt().AsTime()
			times++
		}
	}
	return at, times
}

// states lists what the threat went through.
func states(t *wirev1.GetThreatResponse) []string {
	var out []string
	for _, s := range t.GetTimeline() {
		if s.GetFrom() != s.GetTo() {
			out = append(out, s.GetTo())
		}
	}
	return out
}

// wentThrough checks that the threat went through these states and no others.
func wentThrough(t *wirev1.GetThreatResponse, want ...string) error {
	if have := states(t); !slices.Equal(have, want) {
		return fmt.Errorf("it went through %v, not %v", have, want)
	}
	return nil
}

// tasks returns the tasks of one kind.
func tasks(t *wirev1.GetThreatResponse, kind wirev1.TaskKind) []*wirev1.TaskInfo {
	return slices.DeleteFunc(slices.Clone(t.GetTasks()), func(i *wirev1.TaskInfo) bool { return i.GetKind() != kind })
}
