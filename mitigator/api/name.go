package api

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"connectrpc.com/connect"

	"github.com/cordon-security/cordon/mitigator/endpoint"
	"github.com/cordon-security/cordon/mitigator/store"
)

// maxName bounds what an administrator calls an endpoint by, in bytes.
const maxName = 255

// endpointNamed finds the endpoint that an administrator means by its id, a MAC,
// an address that it has now, or its host name.
func (a *API) endpointNamed(ctx context.Context, name string) (ep endpoint.Endpoint, err error) {
	name = strings.TrimSpace(name)
	if name == "" || len(name) > maxName {
		return ep, invalid("say which endpoint: its id, a MAC, an address or its host name")
	}
	err = a.Store.View(ctx, func(v store.View) error {
		var ok bool
		ep, ok, err = find(v, name)
		if err == nil && !ok {
			err = connect.NewError(connect.CodeNotFound, fmt.Errorf("no endpoint %q is known; `cordon endpoints` lists them", name))
		}
		return err
	})
	return ep, err
}

func find(v store.View, name string) (endpoint.Endpoint, bool, error) {
	if id, err := strconv.ParseInt(name, 10, 64); err == nil {
		ep, err := v.Endpoint(id)
		if errors.Is(err, store.ErrNotFound) {
			return ep, false, nil
		}
		return ep, err == nil, err
	}
	if m, err := endpoint.ParseMAC(name); err == nil {
		return v.EndpointByMAC(m)
	}
	if addr, err := netip.ParseAddr(name); err == nil {
		return byAddress(v, addr.Unmap())
	}
	return byHostname(v, name)
}

// byAddress goes by who has the address now; who had it before is another
// machine, and an administrator means the one that is there.
func byAddress(v store.View, addr netip.Addr) (endpoint.Endpoint, bool, error) {
	bindings, err := v.Bindings(addr)
	if err != nil {
		return endpoint.Endpoint{}, false, err
	}
	var holders []endpoint.Binding
	for _, b := range bindings {
		if b.Until.IsZero() {
			holders = append(holders, b)
		}
	}
	switch len(holders) {
	case 0:
		return v.EndpointByAddress(addr)
	case 1:
		ep, ok, err := v.EndpointByMAC(holders[0].MAC)
		if err != nil || !ok {
			return ep, ok, err
		}
		return ep, true, notClaimed(v, addr, ep, bindings)
	}
	return endpoint.Endpoint{}, false, invalid("%d machines claim %s now (%s and %s): name one by its MAC", len(holders), addr, holders[0].MAC, holders[1].MAC)
}

func byHostname(v store.View, name string) (endpoint.Endpoint, bool, error) {
	all, err := v.EndpointsByHostname(name)
	if err != nil || len(all) == 0 {
		return endpoint.Endpoint{}, false, err
	}
	if len(all) > 1 {
		return endpoint.Endpoint{}, false, invalid("%d endpoints are called %s (ids %d and %d): name one by its id or MAC", len(all), name, all[0].ID, all[1].ID)
	}
	return all[0], true, nil
}

// notClaimed refuses an address that passed from one quarantined machine to
// another: to claim it is all that an attacker would have to do to be released in
// the other's stead.
func notClaimed(v store.View, addr netip.Addr, now endpoint.Endpoint, bindings []endpoint.Binding) error {
	q, ok, err := v.ActiveQuarantine(now.ID)
	if err != nil || !ok {
		return err
	}
	for _, b := range bindings {
		before, ok, err := v.EndpointByMAC(b.MAC)
		if err != nil {
			return err
		}
		if !ok || before.ID == now.ID {
			continue
		}
		other, ok, err := v.ActiveQuarantine(before.ID)
		if err != nil {
			return err
		}
		if ok && !b.Until.Before(other.CreatedAt) {
			return invalid("two quarantined machines had %s since: %s has it now (%s), %s had it when it was quarantined (%s); name one by its MAC or id",
				addr, now.Name(), q.ID, before.Name(), other.ID)
		}
	}
	return nil
}
