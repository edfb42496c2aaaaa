package main

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"github.com/cordon-security/cordon/enforcer/device"
	"github.com/cordon-security/cordon/enforcer/flow"
	"github.com/cordon-security/cordon/enforcer/local"
	"github.com/cordon-security/cordon/enforcer/neighbor"
	"github.com/cordon-security/cordon/enforcer/nft"
	"github.com/cordon-security/cordon/internal/guard"
	"github.com/cordon-security/cordon/internal/service"
)

type runCommand struct{}

// gcPercent trades processor time, of which the device needs little, for
// memory: its heap is the desired set, which hardly changes once it is read.
const gcPercent = 25

// Run runs the device as a service.
func (runCommand) Run(c *cli) error {
	return service.Code(service.Main("cordon-enforcer", func(ctx context.Context, ready func()) error {
		cfg, err := c.load()
		if err != nil {
			return err
		}
		return run(ctx, cfg, slog.Default(), ready)
	}))
}

func run(ctx context.Context, cfg Config, log *slog.Logger, ready func()) (err error) {
	if err := local.AssertBridge(); err != nil {
		return err
	}
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		return err
	}
	machine := local.New(cfg.StateDir, log)
	reserved, err := reserved(cfg, machine)
	if err != nil {
		return err
	}
	method, err := nft.New(nft.Options{Allow: cfg.allowed(), Reserved: reserved, Log: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, method.Close()) }()
	d, err := device.New(device.Options{
		Name: cfg.Name, Version: service.Version(), StateDir: cfg.StateDir, RunDir: filepath.Dir(cfg.Socket),
		Protected: cfg.protected(), Cap: cfg.limit(), Method: method, Flows: flow.Tracking{}, Locals: machine,
		Sources: []neighbor.Source{neighbor.NewKernel(log)}, Log: log,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if len(cfg.Allow) == 0 {
		log.Warn("allow is empty: limited access reaches nothing, not even the mitigator")
	}
	// From before the first comparison on, so that nothing changes unseen between
	// it and the watch.
	next, err := method.Watch()
	if err != nil {
		return err
	}
	if err := d.Start(); err != nil {
		return err
	}
	debug.SetGCPercent(gcPercent)
	debug.FreeOSMemory()
	return serve(ctx, cfg, d, next, log, ready)
}

// reserved lists what no endpoint with limited access may claim to be: whatever
// is protected, and what the machine itself and its gateways are at the start.
func reserved(cfg Config, machine *local.Machine) ([]netip.Prefix, error) {
	entries, err := machine.Protected(func(guard.MAC) bool { return true }) // learns no MAC
	if err != nil {
		return nil, err
	}
	var out []netip.Prefix
	for _, p := range append(entries, cfg.protected()...) {
		if p.Prefix.IsValid() {
			out = append(out, p.Prefix)
		}
	}
	return out, nil
}

func serve(ctx context.Context, cfg Config, d *device.Device, next func() (nft.Change, error), log *slog.Logger, ready func()) error {
	l, err := device.Listen(cfg.Socket, cfg.SocketGroup)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wait sync.WaitGroup
	defer wait.Wait()
	defer cancel()
	wait.Go(func() { _ = d.Run(ctx) })
	go watch(ctx, next, d, log)
	unit := service.From(ctx)
	unit.Watch(d.Healthy)
	unit.Status("%s", d.Summary())
	ready()
	wait.Go(func() { unit.KeepStatus(ctx, d.Summary) })
	return device.Serve(ctx, l, device.NewService(d))
}

// disturbed is what the device does about a change.
type disturbed interface{ Disturbed(device.Disturbance) }

const (
	minBackoff = 100 * time.Millisecond
	maxBackoff = 30 * time.Second
)

// watch hands what others do to our tables to the device until the method is
// closed or ctx ends. While that cannot be seen, everything is compared now and
// then, more and more seldom.
func watch(ctx context.Context, next func() (nft.Change, error), d disturbed, log *slog.Logger) {
	delay := minBackoff
	for ctx.Err() == nil {
		c, err := next()
		if errors.Is(err, nft.ErrClosed) {
			return
		}
		if err == nil {
			delay = minBackoff
			d.Disturbed(device.Disturbance{Everything: c.Overrun, Tables: c.Tables, Members: c.Members, By: c.By})
			continue
		}
		log.Error("changes of our tables are not seen, everything is compared instead", "err", err, "again_in", delay)
		d.Disturbed(device.Disturbance{Everything: true, By: "somebody"})
		select {
		case <-ctx.Done():
		case <-time.After(delay):
		}
		delay = min(2*delay, maxBackoff)
	}
}
