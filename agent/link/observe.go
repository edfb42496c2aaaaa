package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"connectrpc.com/connect"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/timestamppb"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

const (
	// settle lets a burst of changes end before it is told.
	settle = time.Second
	// maxBindings is what the mitigator takes.
	maxBindings = 1024
)

// Binding is one address of this endpoint and the MAC of its interface.
type Binding struct {
	Address netip.Addr
	// MAC is nil where the interface has none of 48 bits.
	MAC net.HardwareAddr
}

// AddressSource tells the endpoint's own addresses.
type AddressSource interface {
	// Bindings lists what is now.
	Bindings() ([]Binding, error)
	// Watch calls changed, from any goroutine, when Bindings may tell something
	// new. It blocks until the context ends (nil) or it can no longer watch.
	Watch(ctx context.Context, changed func()) error
}

// KernelAddresses is the AddressSource over rtnetlink (rtnetlink(7)), of the
// network namespace that its methods are called in. Loopback, interfaces that
// are down and addresses that are not usable yet are left out.
type KernelAddresses struct{}

// Bindings implements AddressSource.
func (KernelAddresses) Bindings() ([]Binding, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	macs := make(map[int]net.HardwareAddr)
	for _, link := range links {
		attrs := link.Attrs()
		if attrs.Flags&net.FlagUp == 0 || attrs.Flags&net.FlagLoopback != 0 {
			continue
		}
		mac := attrs.HardwareAddr
		if len(mac) != 6 {
			mac = nil
		}
		macs[attrs.Index] = mac
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var bindings []Binding
	for _, a := range addrs {
		mac, ok := macs[a.LinkIndex]
		addr, valid := netip.AddrFromSlice(a.IP)
		if !ok || !valid || a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0 {
			continue
		}
		bindings = append(bindings, Binding{Address: addr.Unmap(), MAC: mac})
	}
	return bindings, nil
}

// Watch implements AddressSource.
func (KernelAddresses) Watch(ctx context.Context, changed func()) error {
	done := make(chan struct{})
	addrs := make(chan netlink.AddrUpdate)
	links := make(chan netlink.LinkUpdate)
	failed := make(chan error, 2)
	onError := func(err error) {
		select {
		case failed <- err:
		default:
		}
	}
	if err := netlink.AddrSubscribeWithOptions(addrs, done, netlink.AddrSubscribeOptions{ErrorCallback: onError}); err != nil {
		close(done)
		return fmt.Errorf("watch addresses: %w", err)
	}
	if err := netlink.LinkSubscribeWithOptions(links, done, netlink.LinkSubscribeOptions{ErrorCallback: onError}); err != nil {
		close(done)
		drain(addrs)
		return fmt.Errorf("watch interfaces: %w", err)
	}
	// The senders close their channels when they are through.
	defer func() {
		close(done)
		drain(addrs)
		drain(links)
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return fmt.Errorf("watch addresses: %w", err)
		case _, ok := <-addrs:
			if !ok {
				return errors.New("watch addresses: the kernel ended it")
			}
		case _, ok := <-links:
			if !ok {
				return errors.New("watch interfaces: the kernel ended it")
			}
		}
		changed()
	}
}

// drain lets a sender that is about to close its channel come to that.
func drain[T any](c <-chan T) {
	go func() {
		for range c {
			continue
		}
	}()
}

// observeLoop tells the mitigator the endpoint's addresses on each connection
// and after each change.
func (l *Link) observeLoop(ctx context.Context) {
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		l.watchAddresses(ctx)
	}()
	defer func() { <-watched }()
	var told []Binding
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.observe:
		}
		if !sleep(ctx, min(settle, l.options.BackoffCap)) {
			return
		}
		c := l.current.Load()
		if c == nil {
			continue
		}
		now, err := l.tellAddresses(ctx, c, told)
		if err == nil {
			told = now
			continue
		}
		if ctx.Err() != nil {
			return
		}
		l.log.Warn("addresses not told to the mitigator", "error", err)
		if !sleep(ctx, l.options.BackoffBase) {
			return
		}
		if l.current.Load() != nil {
			signal(l.observe)
		}
	}
}

// watchAddresses keeps a watch up; after each break it looks anew, since
// changes may have been missed.
func (l *Link) watchAddresses(ctx context.Context) {
	wait := backoff{base: l.options.BackoffBase, cap: l.options.BackoffCap}
	for ctx.Err() == nil {
		err := l.options.Addresses.Watch(ctx, func() { signal(l.observe) })
		if ctx.Err() != nil {
			return
		}
		pause := wait.next()
		l.log.Warn("addresses no longer watched", "error", err, "retry_in", pause)
		if !sleep(ctx, pause) {
			return
		}
		signal(l.observe)
	}
}

// tellAddresses tells what is there now, and of what was told before, what is
// gone. It returns what it told.
func (l *Link) tellAddresses(ctx context.Context, c *conn, told []Binding) ([]Binding, error) {
	now, err := l.options.Addresses.Bindings()
	if err != nil {
		return nil, err
	}
	if len(now) > maxBindings/2 {
		now = now[:maxBindings/2]
	}
	at := timestamppb.New(l.options.Now())
	request := &wirev1.ObserveRequest{Hostname: l.options.Hostname}
	present := make(map[string]bool, len(now))
	for _, b := range now {
		present[b.key()] = true
		request.Bindings = append(request.Bindings, b.wire(at, true))
	}
	for _, b := range told {
		if !present[b.key()] {
			request.Bindings = append(request.Bindings, b.wire(at, false))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, err := c.Observe(ctx, connect.NewRequest(request)); err != nil {
		return nil, err
	}
	return now, nil
}

func (b Binding) key() string { return b.Address.String() + " " + b.MAC.String() }

func (b Binding) wire(at *timestamppb.Timestamp, present bool) *wirev1.AddressBinding {
	return &wirev1.AddressBinding{Address: b.Address.WithZone("").AsSlice(), Mac: b.MAC, SeenAt: at, Present: present}
}
