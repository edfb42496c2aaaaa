package mitigator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cordon-security/cordon/internal/dirlock"
	"github.com/cordon-security/cordon/internal/pki"
	"github.com/cordon-security/cordon/mitigator/admin"
	"github.com/cordon-security/cordon/mitigator/api"
	"github.com/cordon-security/cordon/mitigator/console"
	"github.com/cordon-security/cordon/mitigator/device"
	"github.com/cordon-security/cordon/mitigator/event"
	"github.com/cordon-security/cordon/mitigator/fleet"
	"github.com/cordon-security/cordon/mitigator/intake"
	"github.com/cordon-security/cordon/mitigator/intake/suricata"
	"github.com/cordon-security/cordon/mitigator/lifecycle"
	"github.com/cordon-security/cordon/mitigator/store"
	"github.com/cordon-security/cordon/mitigator/store/sqlite"
)

// Options are what a Mitigator needs.
type Options struct {
	Config  Config
	Version string
	Log     *slog.Logger
	// WrapStore, when set, stands between the mitigator and its store: for tests
	// that end the process at a commit, or let one fail.
	WrapStore func(store.Store) store.Store
}

// Mitigator is the program: all its rooms, put together.
type Mitigator struct {
	config Config
	log    *slog.Logger
	lock   *dirlock.Lock
	agents net.Listener
	admins net.Listener
	store  store.Store
	server *pki.Server
	guard  *fleetGuard
	writer writerProbe
	engine *lifecycle.Engine
	fleet  *fleet.Fleet
	intake *intake.Pipeline
	links  []*device.Link
	web    http.Handler
}

// New opens the state directory, making it when there is none, and puts the
// rooms together. Nothing runs or listens before Run. Close it afterwards.
func New(ctx context.Context, o Options) (*Mitigator, error) {
	if err := o.Config.Validate(); err != nil {
		return nil, err
	}
	if o.Log == nil {
		return nil, errors.New("mitigator: no log")
	}
	m := &Mitigator{config: o.Config, log: o.Log, writer: writerProbe{limit: writerTimeout}}
	if err := m.open(ctx, o); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// Close gives the state directory up. Call it once, after Run has returned.
func (m *Mitigator) Close() error {
	var errs []error
	if m.store != nil {
		errs = append(errs, m.store.Close())
	}
	if m.lock != nil {
		errs = append(errs, m.lock.Release())
	}
	return errors.Join(errs...)
}

func (m *Mitigator) open(ctx context.Context, o Options) error {
	dir := m.config.StateDir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the state directory: %w", err)
	}
	var err error
	if err = closeToOthers(dir); err != nil {
		m.log.Warn("others may look into the state directory: give it to the user of this program, with mode 700", "dir", dir, "err", err)
	}
	if m.lock, err = dirlock.Try(dir); err != nil {
		return fmt.Errorf("state directory %s: %w", dir, err)
	}
	var own []netip.Addr
	if m.guard, own, err = newFleetGuard(m.config.protected(), m.config.limit()); err != nil {
		return err
	}
	ca, err := OpenCA(dir)
	if err != nil {
		return err
	}
	hostname, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("host name: %w", err)
	}
	if m.server, err = ca.NewServer(m.config.serverNames(hostname, own)); err != nil {
		return err
	}
	if m.store, err = sqlite.Open(ctx, filepath.Join(dir, "cordon.db")); err != nil {
		return err
	}
	if o.WrapStore != nil {
		m.store = o.WrapStore(m.store)
	}
	if err := m.openLifecycle(m.guard, ca); err != nil {
		return err
	}
	return m.openWeb(o.Version)
}

// closeToOthers takes the rights of others on a directory away that a person made.
func closeToOthers(dir string) error {
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm()&0o077 == 0 {
		return err
	}
	return os.Chmod(dir, 0o700)
}

// openLifecycle makes the life cycle and all that it speaks to.
func (m *Mitigator) openLifecycle(rules lifecycle.Guard, ca *pki.CA) (err error) {
	var devices []string
	for _, d := range m.config.Devices {
		devices = append(devices, d.Name)
	}
	m.engine, err = lifecycle.New(lifecycle.Options{
		Store: m.store, Policy: m.config.Policy, Guard: rules, Retention: m.config.Retention, Log: m.log,
		Home:        event.HomeNetworks{Include: m.config.HomeNetworks.Include, Exclude: m.config.HomeNetworks.Exclude},
		WakeAgent:   func(id string) { m.fleet.Wake(id) },
		WakeDevices: m.wakeDevices, Devices: devices,
	})
	if err != nil {
		return err
	}
	m.fleet, err = fleet.New(fleet.Options{
		CA: ca, Server: m.server, Store: ledger{m.store}, Lifecycle: m.engine, Log: m.log, TokenServer: m.config.Agents.Address,
	})
	if err != nil {
		return err
	}
	for _, d := range m.config.Devices {
		link, err := device.New(device.Options{Name: d.Name, Socket: d.Socket, Store: m.store, Lifecycle: m.engine, Log: m.log})
		if err != nil {
			return err
		}
		m.links = append(m.links, link)
	}
	sources, err := m.sources()
	if err != nil {
		return err
	}
	m.intake, err = intake.New(intake.Options{Config: m.config.Config, Sources: sources, Sink: m.engine, Logger: m.log})
	return err
}

func (m *Mitigator) wakeDevices() {
	for _, l := range m.links {
		l.Wake()
	}
}

// sources makes the configured data sources: a new kind is one case more.
func (m *Mitigator) sources() (out []intake.Source, err error) {
	for _, c := range m.config.Sources {
		var s intake.Source
		switch c.Kind {
		case intake.KindSuricataFile:
			s, err = suricata.NewFile(suricata.FileOptions{Name: c.Name, Path: c.Path, Logger: m.log})
		case intake.KindSuricataSocket:
			s, err = suricata.NewSocket(suricata.SocketOptions{Name: c.Name, Path: c.Path, Datagram: c.Datagram, Logger: m.log})
		default:
			err = fmt.Errorf("kind %q is not known", c.Kind)
		}
		if err != nil {
			return nil, fmt.Errorf("source %s: %w", c.Name, err)
		}
		out = append(out, s)
	}
	return out, nil
}

// openWeb makes what administrators use: the API, and the console on top of it.
func (m *Mitigator) openWeb(version string) error {
	admins, err := admin.New(m.config.StateDir)
	if err != nil {
		return err
	}
	devices := make([]api.Device, len(m.links))
	for i, l := range m.links {
		devices[i] = l
	}
	service, err := api.New(api.Options{
		Store: m.store, Lifecycle: m.engine, Fleet: m.fleet, Sources: m.intake, Devices: devices, Admins: admins,
		Log: m.log, Version: version, Started: time.Now(),
	})
	if err != nil {
		return err
	}
	pages, err := console.New(console.Options{API: service, Admins: admins, Log: m.log})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle(service.Handler())
	mux.Handle("/", pages.Handler())
	m.web = mux
	return nil
}

// AgentAddr is where agents connect; nil before Run has called ready.
func (m *Mitigator) AgentAddr() net.Addr { return addrOf(m.agents) }

// AdminAddr is where administrators connect; nil before Run has called ready.
func (m *Mitigator) AdminAddr() net.Addr { return addrOf(m.admins) }

func addrOf(l net.Listener) net.Addr {
	if l == nil {
		return nil
	}
	return l.Addr()
}

// Run serves until ctx ends, and calls ready once everything listens.
func (m *Mitigator) Run(ctx context.Context, ready func()) error {
	// Before an agent can connect: what a connection of the process before took
	// with it waits again.
	if err := m.engine.Recover(ctx); err != nil {
		return fmt.Errorf("take up what was under way: %w", err)
	}
	if err := m.listen(); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return m.fleet.Serve(ctx, newSharedListener(m.agents, agentConnections, agentShare)) })
	group.Go(func() error { return m.serveWeb(ctx, m.admins) })
	group.Go(func() error { return m.engine.Run(ctx) })
	group.Go(func() error { return m.intake.Run(ctx) })
	group.Go(func() error { return m.guard.Run(ctx, m.log) })
	for _, l := range m.links {
		group.Go(func() error { return l.Run(ctx) })
	}
	m.log.Info("serving", "agents", m.AgentAddr().String(), "admin", m.AdminAddr().String(),
		"mode", string(m.config.Policy.Mode), "sources", len(m.config.Sources), "devices", len(m.links))
	ready()
	return group.Wait()
}

func (m *Mitigator) listen() (err error) {
	if m.agents, err = net.Listen("tcp", m.config.Agents.Listen); err != nil {
		return fmt.Errorf("listen for agents: %w", err)
	}
	if m.admins, err = net.Listen("tcp", m.config.Admin.Listen); err != nil {
		return errors.Join(fmt.Errorf("listen for administrators: %w", err), m.agents.Close())
	}
	return nil
}

// OpenCA opens the certificate authority of a state directory, or makes it.
func OpenCA(stateDir string) (*pki.CA, error) {
	return pki.Open(pki.Options{Dir: filepath.Join(stateDir, "pki")})
}
