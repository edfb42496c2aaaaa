package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/cordon-security/cordon/internal/testlan"
)

// DefaultName is the LAN's name on the machine.
const DefaultName = "demo"

// ErrFailed is returned by Run when a step was not as it should be. The report
// says which.
var ErrFailed = errors.New("not everything was as it should be")

// Options says how the story is played. The zero value needs Bin.
type Options struct {
	// Bin is the folder of the built programs: cordon, cordon-mitigator,
	// cordon-enforcer, cordon-agent and testlan-payload.
	Bin string
	// Name is the LAN's name on the machine. Empty: DefaultName.
	Name string
	// Keep leaves the LAN up afterwards, whatever came out; Down removes it. A
	// story that is interrupted leaves nothing all the same.
	Keep bool
	// Scenes are the letters of what is played, with what they build upon.
	// Empty: everything.
	Scenes []string
	// Alert is a file whose first line is a Suricata EVE alert, from which the
	// alerts' fields are taken. Empty: the one that comes with the package.
	Alert string
	// Out gets the timeline for people while it happens. Nil: nobody reads.
	Out io.Writer
}

// Demo is one playing of the story.
type Demo struct {
	o      Options
	scenes []scene
	alert  alert
}

// New checks the options, the programs and the machine, and changes nothing.
func New(o Options) (*Demo, error) {
	if o.Name == "" {
		o.Name = DefaultName
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	d := &Demo{o: o}
	var err error
	if d.scenes, err = choose(o.Scenes); err != nil {
		return nil, err
	}
	if d.alert, err = loadAlert(o.Alert); err != nil {
		return nil, err
	}
	if err := findPrograms(o.Bin); err != nil {
		return nil, err
	}
	if err := testlan.Check(); err != nil {
		return nil, fmt.Errorf("the demo cannot run on this machine: %w", err)
	}
	return d, nil
}

// Run plays the story. It returns ErrFailed when a check failed, and the
// context's error when it was interrupted. What it made is gone when it
// returns, unless Keep holds and the story came to its end.
func (d *Demo) Run(ctx context.Context) (Report, error) {
	log := newTimeline(ctx, d.o.Out)
	err := d.run(ctx, log)
	report := log.finish(err)
	if err == nil && report.Failed > 0 {
		err = ErrFailed
	}
	return report, err
}

func (d *Demo) run(ctx context.Context, log *timeline) (err error) {
	s, err := d.build(ctx, log)
	if err != nil {
		return d.explain(ctx, err)
	}
	kept := false
	defer func() {
		if kept {
			return
		}
		s.stopWatching()
		start := time.Now()
		if e := s.lan.Close(); e != nil {
			err = errors.Join(err, fmt.Errorf("remove the LAN (try \"cordon demo down\"): %w", e))
			return
		}
		log.say("lan", "removed in %s: hosts, networks, files, processes", round(time.Since(start)))
	}()
	if err = s.play(ctx, d.scenes); err == nil && d.o.Keep {
		err = s.keep(ctx)
		kept = err == nil
	}
	if ctx.Err() == nil && (log.failed() || err != nil) {
		log.keepLogs(s.saveLogs())
	}
	return d.explain(ctx, err)
}

// explain turns the many errors of an interruption into one.
func (d *Demo) explain(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("interrupted: %w", context.Cause(ctx))
	case errors.Is(err, testlan.ErrExists):
		return fmt.Errorf("a demo is up already: \"cordon demo down\" removes it: %w", err)
	}
	return err
}

// Down removes a LAN that was kept, or left behind by a demo that was killed,
// and reports whether there was one.
func Down(name string) (bool, error) {
	if name == "" {
		name = DefaultName
	}
	if os.Geteuid() != 0 {
		return false, errors.New("removing the demo's LAN needs root: run as root")
	}
	up, err := testlan.List()
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(up, func(i testlan.Info) bool { return i.Name == name }), testlan.Down(name)
}

// choose returns the scenes of the letters, in the story's order, and those
// that they build upon.
func choose(letters []string) ([]scene, error) {
	if len(letters) == 0 {
		return story, nil
	}
	wanted := make(map[string]bool)
	for _, l := range letters {
		l = strings.ToLower(strings.TrimSpace(l))
		i := slices.IndexFunc(story, func(s scene) bool { return s.letter == l })
		if i < 0 {
			return nil, fmt.Errorf("there is no scene %q: name some of a, b, c, d, e, f", l)
		}
		wanted[l] = true
		if needs := story[i].needs; needs != "" {
			wanted[needs] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(story), func(s scene) bool { return !wanted[s.letter] }), nil
}
