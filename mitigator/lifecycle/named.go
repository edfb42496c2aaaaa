package lifecycle

import (
	"context"
	"fmt"

	"github.com/cordon-security/cordon/mitigator/endpoint"
)

// EndpointByPerson finds the endpoint of a MAC that an administrator named, or
// makes it: a machine may be cut off before it was ever seen.
func (e *Engine) EndpointByPerson(ctx context.Context, m endpoint.MAC) (endpoint.Endpoint, error) {
	var ep endpoint.Endpoint
	if !m.IsEndpoint() {
		return ep, fmt.Errorf("%w: %s can be no machine's MAC", ErrRefused, m)
	}
	err := e.urgently(ctx, func(j *job) error {
		var ok bool
		var err error
		if ep, ok, err = j.tx.EndpointByMAC(m); ok || err != nil {
			return err
		}
		ep = endpoint.Endpoint{MACs: []endpoint.MAC{m}, FirstSeen: j.now, LastSeen: j.now}
		return j.tx.AddEndpoint(&ep)
	})
	return ep, err
}
