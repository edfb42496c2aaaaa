package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cordon-security/cordon/agent/assess"
	"github.com/cordon-security/cordon/agent/clean"
	"github.com/cordon-security/cordon/agent/guard"
	"github.com/cordon-security/cordon/agent/journal"
	"github.com/cordon-security/cordon/agent/link"
	"github.com/cordon-security/cordon/agent/observe"
	"github.com/cordon-security/cordon/agent/packages"
	"github.com/cordon-security/cordon/agent/persistence"
	"github.com/cordon-security/cordon/agent/procfs"
	"github.com/cordon-security/cordon/agent/vault"
)

// Options is what an agent needs besides its configuration.
type Options struct {
	Config Config
	Log    *slog.Logger
	// Version is told to the mitigator.
	Version string
	// Root is the host's root directory; empty means "/". Another one is for
	// tests: cron, systemd, package lists and files are looked for below it.
	Root string
}

// Agent is one endpoint's agent.
type Agent struct {
	o         Options
	source    observe.Source
	tried     []observe.Candidate
	history   *observe.History
	packages  *packages.DB
	collector *assess.Collector
	vault     *vault.Vault
	journal   *journal.Journal
	cleaner   *clean.Cleaner
	units     clean.Units
	link      atomic.Pointer[link.Link]
}

// New opens the best observer and the state directory. Close the agent when Run
// is not called.
func New(o Options) (*Agent, error) {
	if o.Log == nil {
		return nil, errors.New("agent: Log is required")
	}
	if err := o.Config.Validate(); err != nil {
		return nil, err
	}
	if o.Root == "" {
		o.Root = "/"
	}
	a := &Agent{o: o, packages: packages.New(o.Root)}
	var fs procfs.FS
	own, err := ownPaths(o.Config)
	if err != nil {
		return nil, err
	}
	if o.Root == "/" && clean.HasSystemd() {
		a.units = clean.Systemctl{}
	}
	protect := guard.Options{Packages: a.packages, Proc: fs, Self: os.Getpid(), Services: o.Config.ProtectedServices, Own: own}
	if a.units != nil {
		protect.MainPID = clean.Systemctl{}.MainPID
	}
	g, err := guard.New(protect)
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	if a.vault, err = OpenVault(o.Config, o.Root); err != nil {
		return nil, err
	}
	if a.journal, err = journal.Open(journal.Options{Dir: filepath.Join(o.Config.StateDir, "journal")}); err != nil {
		return nil, err
	}
	if err := a.packages.Load(); err != nil {
		return nil, err
	}
	only := o.Config.Observer
	if only == "auto" {
		only = ""
	}
	if a.source, a.tried, err = observe.Open(observe.Options{Proc: fs, Log: o.Log, Only: only}); err != nil {
		return nil, err
	}
	a.history = observe.NewHistory(o.Config.History, nil)
	a.collector = &assess.Collector{
		Proc: fs, Packages: a.packages, History: a.history, Guard: g, Root: o.Root, Now: time.Now,
		Finder:   &persistence.Finder{Root: o.Root, Packages: a.packages},
		Observer: a.source.Name(), Keep: o.Config.History,
	}
	a.cleaner, err = clean.New(clean.Options{
		Collector: a.collector, Stopper: &clean.Stopper{Proc: fs, Guard: g, Trusted: a.collector.Trusted}, Guard: g, Vault: a.vault, Journal: a.journal,
		Units: a.units, Watch: o.Config.Watch, Log: o.Log, Now: time.Now,
	})
	if err != nil {
		return nil, errors.Join(err, a.source.Close())
	}
	return a, nil
}

// OpenVault opens the vault of a configuration, for commands that need no
// running agent.
func OpenVault(c Config, root string) (*vault.Vault, error) {
	return vault.Open(vault.Options{Dir: filepath.Join(c.StateDir, "vault"), Root: root, MaxFile: c.VaultMaxFileSize})
}

// ownPaths are what the guard keeps as the agent's own.
func ownPaths(c Config) ([]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the agent's own executable: %w", err)
	}
	return append([]string{self, filepath.Clean(c.StateDir), "/etc/cordon"}, c.ProtectedPaths...), nil
}

// Observer names the source of events in use.
func (a *Agent) Observer() string { return a.source.Name() }

// Close gives back what New opened.
func (a *Agent) Close() error { return a.source.Close() }

// Observe keeps the history until the context ends.
func (a *Agent) Observe(ctx context.Context) error {
	for _, c := range a.tried {
		if c.Err != nil {
			a.o.Log.Warn("observer not usable", "observer", c.Name, "error", c.Err)
		}
	}
	a.o.Log.Info("observing", "observer", a.source.Name(), "history", a.o.Config.History)
	err := a.source.Run(ctx, a.history)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Run observes, takes tasks from the mitigator and carries them out until the
// context ends. ready is called once the history is being kept.
func (a *Agent) Run(ctx context.Context, ready func()) error {
	defer a.Close()
	held, err := a.claim()
	if err != nil {
		return err
	}
	defer func() { _ = held.Release() }()
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("learn the host's name: %w", err)
	}
	l, err := link.New(link.Options{
		StateDir: a.o.Config.StateDir, Executor: a, Log: a.o.Log, Server: a.o.Config.Mitigator,
		Hostname: host, Version: a.o.Version, Observer: a.source.Name(),
	})
	if err != nil {
		return err
	}
	a.link.Store(l)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return a.Observe(ctx) })
	group.Go(func() error { return l.Run(ctx) })
	ready()
	return group.Wait()
}
