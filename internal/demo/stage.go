package demo

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/cordon-security/cordon/internal/testlan"
	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

// stage is the LAN with Cordon on it, while the story is played.
type stage struct {
	demo      *Demo
	log       *timeline
	lan       *testlan.Standard
	admin     administrator
	mitigator *testlan.Process
	// alices is a connection of alice's that is in use from the first scene to
	// the last.
	alices *stream
	// watch ends what this process itself does on the hosts.
	watch        context.Context
	stopWatching context.CancelFunc
	// played are the letters of the scenes that came to their end.
	played map[string]bool
}

// build makes the LAN and installs Cordon on it, as an administrator would.
func (d *Demo) build(ctx context.Context, log *timeline) (*stage, error) {
	start := time.Now()
	lan, err := testlan.NewStandard(ctx, testlan.StandardOptions{
		Options: testlan.Options{Name: d.o.Name, Keep: d.o.Keep, Payload: filepath.Join(d.o.Bin, payload)},
		Customize: func(host string, o *testlan.HostOptions) {
			if host == "bob" {
				o.ReadOnly = []testlan.ReadOnlyMount{{Path: bobMount, Files: map[string]string{bobName: filepath.Join(d.o.Bin, payload)}}}
			}
		},
	})
	if err != nil {
		return nil, err
	}
	s := &stage{demo: d, log: log, lan: lan, admin: administrator{lan.Appliance}, played: make(map[string]bool)}
	s.watch, s.stopWatching = context.WithCancel(ctx)
	log.say("lan", "five hosts in namespaces of their own, made in %s: the appliance (gateway and bridge), alice (with systemd), bob, printer, internet", round(time.Since(start)))
	for _, step := range []func(context.Context) error{s.installAppliance, s.enrolAgents, s.lookAtRest} {
		if err := step(ctx); err != nil {
			return nil, s.abandon(ctx, err)
		}
	}
	return s, nil
}

// abandon removes a LAN on which the story cannot begin, and says where the logs
// are that tell why.
func (s *stage) abandon(ctx context.Context, why error) error {
	var saving error
	if ctx.Err() == nil {
		var dir string
		dir, saving = s.saveLogs()
		why = fmt.Errorf("%w (logs are in %s)", why, dir)
	}
	s.stopWatching()
	return errors.Join(why, saving, s.lan.Close())
}

// installAppliance starts the enforcement device and the mitigator.
func (s *stage) installAppliance(ctx context.Context) error {
	h, bin := s.lan.Appliance, s.demo.o.Bin
	err := errors.Join(
		prepare(h, bin, cli, mitigator, enforcer),
		h.WriteFile(configDir+"/mitigator.yaml", []byte(mitigatorConfig), 0o644),
		h.WriteFile(configDir+"/enforcer.yaml", []byte(enforcerConfig), 0o644),
		h.WriteFile(evePath, nil, 0o644),
	)
	if err != nil {
		return err
	}
	if _, err := daemon(ctx, h, enforcer); err != nil {
		return err
	}
	token, err := h.Run(ctx, programDir+"/"+mitigator, "admin", "add", "demo", "--config", configDir+"/mitigator.yaml")
	if err != nil {
		return err
	}
	if err := h.WriteFile(adminToken, []byte(strings.TrimSpace(token)+"\n"), 0o600); err != nil {
		return err
	}
	start := time.Now()
	if err := s.startMitigator(ctx); err != nil {
		return err
	}
	s.log.say("appliance", "cordon-enforcer and cordon-mitigator run, the device is connected after %s", round(time.Since(start)))
	return nil
}

// startMitigator starts the mitigator and waits until it answers and has its
// device and its data source.
func (s *stage) startMitigator(ctx context.Context) error {
	p, err := daemon(ctx, s.lan.Appliance, mitigator)
	if err != nil {
		return err
	}
	s.mitigator = p
	return until(ctx, "the mitigator has its device and its data source", func(ctx context.Context) error {
		if !p.Running() {
			return fmt.Errorf("the mitigator ended: %w", p.Wait())
		}
		var status wirev1.GetStatusResponse
		if err := s.admin.asks(ctx, &status, "status"); err != nil {
			return err
		}
		for _, d := range status.GetDevices() {
			if !d.GetConnected() {
				return fmt.Errorf("the device %s is not connected: %s", d.GetName(), d.GetError())
			}
		}
		for _, source := range status.GetSources() {
			if !source.GetHealthy() {
				return fmt.Errorf("the source %s: %s", source.GetName(), source.GetError())
			}
		}
		if len(status.GetDevices()) == 0 || len(status.GetSources()) == 0 {
			return errors.New("it has no device or no source")
		}
		return nil
	})
}

// enrolAgents installs the agents of alice and bob, each with a one-time token.
func (s *stage) enrolAgents(ctx context.Context) error {
	for _, h := range []*testlan.Host{s.lan.Alice, s.lan.Bob} {
		if err := s.enrol(ctx, h); err != nil {
			return fmt.Errorf("the agent of %s: %w", h.Name(), err)
		}
	}
	if err := s.admin.connected(ctx, "alice", "bob"); err != nil {
		return err
	}
	s.log.say("alice, bob", "agents enrolled by one-time tokens, connected by TLS 1.3 with certificates of their own")
	return nil
}

func (s *stage) enrol(ctx context.Context, h *testlan.Host) error {
	const tokenPath = "/root/enrolment.token"
	if err := prepare(h, s.demo.o.Bin, agent); err != nil {
		return err
	}
	if err := h.WriteFile(configDir+"/agent.yaml", []byte(agentConfig), 0o600); err != nil {
		return err
	}
	var token wirev1.CreateAgentTokenResponse
	if err := s.admin.asks(ctx, &token, "agent", "token"); err != nil {
		return err
	}
	if err := h.WriteFile(tokenPath, []byte(token.GetToken()+"\n"), 0o600); err != nil {
		return err
	}
	if _, err := h.Run(ctx, programDir+"/"+agent, "enroll", "--token-file", tokenPath); err != nil {
		return err
	}
	if err := h.Remove(tokenPath); err != nil {
		return err
	}
	_, err := daemon(ctx, h, agent)
	return err
}

// lookAtRest shows that everybody reaches everybody before the story begins:
// what is cut later was there.
func (s *stage) lookAtRest(ctx context.Context) error {
	err := errors.Join(startEcho(s.watch, s.lan.Internet), startEcho(s.watch, s.lan.Alice))
	if err != nil {
		return err
	}
	if s.alices, err = startStream(s.watch, "alice's connection to the internet", s.lan.Alice, testlan.WebIPv4); err != nil {
		return err
	}
	for _, from := range []*testlan.Host{s.lan.Alice, s.lan.Bob, s.lan.Printer} {
		err := errors.Join(reaches(ctx, from, theInternet, theC2, alicesHost, bobsHost, thePrinter, theMachine), reads(ctx, from))
		s.log.check(from.Name(), "reaches everybody by IPv4 and IPv6, names resolve, the web page comes", err)
	}
	a := s.demo.alert
	origin := "written as Suricata 7 does, with rule, category and severity of an alert that a real sensor raised"
	if s.demo.o.Alert != "" {
		origin = "that of " + s.demo.o.Alert + ", every field of it"
	}
	s.log.say("lan", "the alerts: the record is %s (signature %d, %q);", origin, a.id, a.signature)
	s.log.say("lan", "addresses, ports and times are those of this LAN. What plays malware is a harmless program that says \"beacon\"")
	return nil
}

// play plays the scenes. A scene that cannot go on fails, and so do those that
// build upon it; the others are played.
func (s *stage) play(ctx context.Context, scenes []scene) error {
	for _, c := range scenes {
		s.log.begin(c)
		err := fmt.Errorf("scene %s, on which it builds, did not come to its end", c.needs)
		if c.needs == "" || s.played[c.needs] {
			err = c.play(s, ctx)
			s.played[c.letter] = err == nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			s.log.check("lan", "the scene comes to its end", err)
		}
	}
	s.log.begin(scene{letter: "*", title: "alice, from the first scene to the last"})
	answered, longest, _, _ := s.alices.state()
	s.log.check("alice", fmt.Sprintf("noticed nothing of it all: one connection, %d messages, each answered", answered), s.alices.flows())
	s.log.figure("alice", "slowest answer on alice's connection", longest)
	return nil
}
