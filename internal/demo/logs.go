package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// saveLogs copies what explains a failure to a folder of the machine: logs and
// configuration of the programs, eve.json, the threats, the rules in force.
// Tokens are not among it.
func (s *stage) saveLogs() (string, error) {
	dir, err := os.MkdirTemp("", "cordon-demo-")
	if err != nil {
		return "", fmt.Errorf("keep the logs: %w", err)
	}
	var errs []error
	// What cannot be had leaves its reason in its place.
	save := func(name, content string, err error) {
		if err != nil {
			content = err.Error() + "\n"
		}
		errs = append(errs, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	for _, f := range []struct{ host, path string }{
		{"appliance", logDir + "/" + mitigator + ".log"}, {"appliance", logDir + "/" + enforcer + ".log"},
		{"appliance", configDir + "/mitigator.yaml"}, {"appliance", configDir + "/enforcer.yaml"}, {"appliance", evePath},
		{"alice", logDir + "/" + agent + ".log"}, {"bob", logDir + "/" + agent + ".log"},
	} {
		host := s.lan.Host(f.host)
		if !host.Exists(f.path) {
			continue // it had not come so far
		}
		content, err := host.ReadFile(f.path)
		save(f.host+"-"+filepath.Base(f.path), string(content), err)
	}
	// What the programs say of themselves, as far as they still do.
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	rules, err := s.lan.Appliance.Run(ctx, "nft", "list", "ruleset")
	save("appliance-ruleset.txt", rules, err)
	for _, what := range []string{"status", "endpoints", "quarantines", "agents", "events"} {
		text, err := s.admin.types(ctx, "--output", "json", what)
		save("cordon-"+what+".json", text, err)
	}
	threats, err := s.admin.threats(ctx)
	if err != nil {
		save("cordon-threats.json", "", err)
	}
	for _, t := range threats {
		id := strconv.FormatInt(t.GetId(), 10)
		text, err := s.admin.types(ctx, "--output", "json", "threat", "show", id)
		save("cordon-threat-"+id+".json", text, err)
	}
	return dir, errors.Join(errs...)
}
