package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"

	"github.com/cordon-security/cordon/enforcer/device"
	"github.com/cordon-security/cordon/enforcer/flow"
	"github.com/cordon-security/cordon/enforcer/local"
	"github.com/cordon-security/cordon/enforcer/neighbor"
	"github.com/cordon-security/cordon/enforcer/nft"
	"github.com/cordon-security/cordon/internal/service"
)

type runCommand struct{}

// gcPercent trades processor time, of which the device needs little, for
// memory: its heap is the desired set, which hardly changes.
const gcPercent = 25

// Run runs the device as a service. It exits itself, with the service's code.
func (runCommand) Run(c *cli) error {
	os.Exit(service.Main("cordon-enforcer", func(ctx context.Context, ready func()) error {
		cfg, err := c.load()
		if err != nil {
			return err
		}
		return run(ctx, cfg, slog.Default(), ready)
	}))
	return nil
}

func run(ctx context.Context, cfg Config, log *slog.Logger, ready func()) (err error) {
	debug.SetGCPercent(gcPercent)
	if err := local.AssertBridge(); err != nil {
		return err
	}
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		return err
	}
	method, err := nft.New(nft.Options{Allow: cfg.allowed(), Log: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, method.Close()) }()
	d, err := device.New(device.Options{
		Name: cfg.Name, Version: service.Version(), StateDir: cfg.StateDir, RunDir: filepath.Dir(cfg.Socket),
		Protected: cfg.protected(), Cap: cfg.limit(), Method: method, Flows: flow.Tracking{}, Locals: local.New(cfg.StateDir, log),
		Sources: []neighbor.Source{neighbor.NewKernel(log)}, Log: log,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if len(cfg.Allow) == 0 {
		log.Warn("allow is empty: limited access reaches nothing, not even the mitigator")
	}
	if err := d.Start(); err != nil {
		return err
	}
	debug.FreeOSMemory()
	return serve(ctx, cfg, d, method, log, ready)
}

func serve(ctx context.Context, cfg Config, d *device.Device, method *nft.Method, log *slog.Logger, ready func()) error {
	next, err := method.Watch()
	if err != nil {
		return err
	}
	// What changed between the first comparison and the watch.
	d.Disturbed(device.Disturbance{Tables: true, By: "somebody"})
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
	go watch(next, d, log)
	ready()
	return device.Serve(ctx, l, device.NewService(d))
}

// watch hands what others do to our tables to the device until the method is
// closed.
func watch(next func() (nft.Change, error), d *device.Device, log *slog.Logger) {
	for {
		c, err := next()
		if errors.Is(err, nft.ErrClosed) {
			return
		}
		if err != nil {
			log.Error("changes of our tables are not seen, everything is compared instead", "err", err)
			c = nft.Change{Overrun: true, By: "somebody"}
		}
		d.Disturbed(device.Disturbance{Everything: c.Overrun, Tables: c.Tables, Members: c.Members, By: c.By})
	}
}
