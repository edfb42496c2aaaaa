// Package device is an enforcement device: it takes orders, keeps them, decides
// by its own guard, drives the enforcement methods until what is wanted is in
// force and read back, and says what it found.
package device

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cordon-security/cordon/enforcer/breakglass"
	"github.com/cordon-security/cordon/enforcer/desired"
	"github.com/cordon-security/cordon/enforcer/neighbor"
	"github.com/cordon-security/cordon/enforcer/reconcile"
	"github.com/cordon-security/cordon/internal/guard"
)

// Method is one means of enforcement. Each call is idempotent and safe to
// repeat after an error.
type Method interface {
	// Name is the method's in statuses.
	Name() string
	// Ensure gives the members their access, all or none.
	Ensure([]reconcile.Member) error
	// Remove frees the members; what is not there is no error.
	Remove([]reconcile.Member) error
	// ReadBack says of each member whether exactly its access is in force.
	ReadBack([]reconcile.Member) ([]bool, error)
	// Prune makes all that is in force what is wanted; with keep it frees nobody.
	Prune(want reconcile.Wanted, keep bool) (reconcile.Report, error)
	// Repair makes right what the method stands on, and says what was wrong and
	// whether members were lost by it.
	Repair() (wrong []string, lost bool, err error)
	// Count reads back how many members are in force, whoever wanted them.
	Count() (int, error)
	// Clear frees everybody and reads that back.
	Clear() error
}

// Flows ends the connections of addresses that were just cut off.
type Flows interface {
	End([]netip.Addr) error
}

// Locals says what of this machine must never be cut off. What it learns from
// the network it must not learn of a MAC that is suspect: that is quarantined, or
// may be.
type Locals interface {
	Protected(suspect func(guard.MAC) bool) ([]guard.Protected, error)
}

// Options are what a Device needs.
type Options struct {
	// Name is the device's in its statuses; Version is the program's.
	Name, Version string
	// StateDir must exist. RunDir is where a break-glass order goes when StateDir
	// cannot be written; it may be empty.
	StateDir, RunDir string
	// Protected and Cap are the local guard.
	Protected []guard.Protected
	Cap       guard.Cap
	Method    Method
	Flows     Flows
	Locals    Locals
	Sources   []neighbor.Source
	Log       *slog.Logger
	// Now is the wall clock; nil means the machine's.
	Now func() time.Time
}

// Device is safe for concurrent use.
type Device struct {
	opts   Options
	log    *slog.Logger
	marker breakglass.Marker
	hub    *hub
	flows  chan []netip.Addr
	wake   chan struct{}
	// beat is when what is due by the clock was done last, in nanoseconds since
	// 1970 by the machine's clock; 0 before Start.
	beat atomic.Int64

	mu        sync.Mutex
	store     *desired.Store
	table     *neighbor.Table
	guard     *guard.Guard
	protected []guard.Protected
	broken    breakglass.Order
	suspended bool
	// markedOnDisk says that the break-glass order was seen on disk, so that its
	// going away there ends it.
	markedOnDisk bool
	staging      staging
	// most bounds how many quarantines are held, mostStaged what a snapshot takes
	// before it is whole, in bytes.
	most, mostStaged int
	waiting          map[string]struct{}
	leaving          map[string]leaving
	unsettled        map[reconcile.Member]struct{}
	expiry           int64
	retry            retry
	localAt          time.Time
	auditAt          time.Time
	forgotAt         time.Time
	fault            string
	// said counts what was said of quarantines; told is what stood when the device
	// last spoke of itself as a whole.
	said uint64
	told told
}

// leaving is a quarantine that is no longer wanted and not yet read back as
// gone.
type leaving struct {
	phase   phaseGone
	members members
	detail  string
}

// New opens the desired set in StateDir and reads the break-glass marker. It
// changes nothing in the kernel; Start does.
func New(o Options) (*Device, error) {
	if o.StateDir == "" || o.Method == nil || o.Log == nil || o.Flows == nil || o.Locals == nil {
		return nil, errors.New("enforcement device: a state directory, a method, flows, locals and a log are needed")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	store, err := desired.Open(o.StateDir, o.Log)
	if err != nil {
		return nil, err
	}
	d := &Device{
		opts: o, log: o.Log, marker: breakglass.Marker{StateDir: o.StateDir, RunDir: o.RunDir}, hub: newHub(),
		flows: make(chan []netip.Addr, 64), wake: make(chan struct{}, 1), store: store, most: maxDesired, mostStaged: maxStaged, table: neighbor.NewTable(),
		waiting: map[string]struct{}{}, leaving: map[string]leaving{},
		unsettled: map[reconcile.Member]struct{}{},
	}
	if _, err := d.learn(); err != nil {
		_ = store.Close()
		return nil, err
	}
	return d, nil
}

// Close closes the desired set. What is in force stays in force.
func (d *Device) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.store.Close()
}

// Start adopts what stands in the kernel and makes it what is wanted. An error
// of the kernel is reported and tried again by Run; it does not fail.
func (d *Device) Start() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	defer func() { d.beat.Store(time.Now().UnixNano()) }()
	if err := d.holdUnknown(); err != nil {
		return err
	}
	// What may be learned is known only now that the desired set is.
	if _, err := d.learn(); err != nil {
		return err
	}
	now := d.now()
	d.store.Each(func(q *desired.Quarantine) {
		if q.Accepted == 0 {
			d.waiting[q.ID] = struct{}{}
		}
		d.noteExpiry(q)
	})
	d.broken, d.suspended = d.marker.On()
	d.auditAt = now.Add(auditEvery)
	d.expire(now)
	if d.suspended {
		d.log.Warn("break glass is on: orders are kept and not enforced; 'cordon-enforcer resume' ends that",
			"since", d.broken.Since, "actor", d.broken.Actor, "reason", d.broken.Reason)
		_ = d.suspend(now)
		return nil
	}
	report, err := d.pruneAll(now)
	if err != nil {
		d.log.Error("what is in force could not be made what is wanted; it is tried again", "err", err)
		return nil
	}
	d.admit(now)
	d.log.Info("quarantines in force", "desired", d.store.Len(), "held", d.store.Revision().String(), "changed", report.String())
	return nil
}

// holdUnknown keeps what is in force when the desired set was lost: a device
// without its set has no right to release.
func (d *Device) holdUnknown() error {
	if !d.store.Fresh() {
		return nil
	}
	n, err := d.opts.Method.Count()
	if err != nil {
		return fmt.Errorf("read back what is in force: %w", err)
	}
	if n == 0 {
		if err := d.store.Commit(desired.Degrade("")); err != nil {
			d.log.Error("the desired set is whole in memory only", "err", err)
		}
		return nil
	}
	why := fmt.Sprintf("there was no desired set, and %d elements were in force; they stay until a snapshot of the orders comes, or 'cordon-enforcer release-all'", n)
	d.log.Warn("the desired set is gone", "detail", why)
	if err := d.store.Commit(desired.Degrade(why)); err != nil {
		d.log.Error("that the desired set is gone is held in memory only", "err", err)
	}
	return nil
}

func (d *Device) now() time.Time { return d.opts.Now() }

func (d *Device) view(now time.Time) reconcile.View {
	return reconcile.View{State: d.store.State, Guard: d.guard, Now: now}
}

const (
	tick       = time.Second
	localEvery = 5 * time.Second
	auditEvery = 10 * time.Minute
	// stuck is far above what the largest comparison takes.
	stuck = time.Minute
	// gone is how long after an address stopped answering it leaves the sets, if
	// nobody else took it before.
	gone = time.Hour
)

// Healthy reports that the device is not stuck: what is due every second was done
// within the last minute, for which it needs its lock. It never waits for that.
func (d *Device) Healthy() bool {
	return time.Since(time.Unix(0, d.beat.Load())) < stuck
}

// Run keeps what is wanted in force until ctx ends.
func (d *Device) Run(ctx context.Context) error {
	var wait sync.WaitGroup
	for _, source := range d.opts.Sources {
		wait.Go(func() {
			if err := source.Run(ctx, d.Observe); err != nil && ctx.Err() == nil {
				d.log.Error("a source of address bindings ended", "err", err)
			}
		})
	}
	wait.Go(func() { d.endFlows(ctx) })
	d.keep(ctx)
	wait.Wait()
	return nil
}

func (d *Device) keep(ctx context.Context) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-d.wake:
		}
		d.tend()
	}
}

// tend does what is due by the clock.
func (d *Device) tend() {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	d.expire(now)
	if !d.checkMarker(now) {
		d.admit(now)
		d.settle(now)
		d.retryUnsettled(now)
		d.audit(now)
	}
	if now.Sub(d.localAt) >= localEvery || now.Before(d.localAt) {
		d.localAt = now
		if err := d.refreshGuard(now); err != nil {
			d.log.Warn("this machine's own addresses cannot be read; the last known stay protected", "err", err)
		}
	}
	d.store.Tend()
	d.tell()
	d.beat.Store(time.Now().UnixNano())
}

// audit compares everything once in a while, for what no notification told.
func (d *Device) audit(now time.Time) {
	if now.Before(d.auditAt) && d.auditAt.Sub(now) <= auditEvery {
		return
	}
	d.auditAt = now.Add(auditEvery)
	report, err := d.pruneAll(now)
	if err != nil {
		d.log.Error("audit of what is in force", "err", err)
		return
	}
	if report.Changed() {
		d.drifted(now, "the audit found: "+report.String(), true)
	}
}

// endFlows ends connections beside the orders, which do not wait for it: the
// packets are dropped already.
func (d *Device) endFlows(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case addresses := <-d.flows:
			for more := true; more; {
				select {
				case next := <-d.flows:
					addresses = append(addresses, next...)
				default:
					more = false
				}
			}
			if err := d.opts.Flows.End(addresses); err != nil {
				d.log.Warn("connection tracking entries of quarantined addresses could not be deleted; their packets are dropped all the same", "err", err)
			}
		}
	}
}
