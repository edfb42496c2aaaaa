package testlan

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestPayloadTreeAndReviver(t *testing.T) {
	image := "/opt/vendor"
	lan := newStandard(t, StandardOptions{NoSystemd: true})
	if _, err := lan.Payload(t.Context()); err != nil { // slow when nothing is cached
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c2 := netip.AddrPortFrom(C2IPv4, C2Port)

	t.Run("tree", func(t *testing.T) {
		p, err := lan.Alice.StartPayload(ctx, "/tmp/.x/updater", PayloadOptions{C2: c2, Name: "mal", Children: 2, Orphans: 1})
		if err != nil {
			t.Fatal(err)
		}
		status, err := lan.C2.WaitFor(ctx, func(s []Connection) bool {
			return len(Receiving(s, AliceIPv4, time.Now().Add(-time.Second))) == 4
		})
		if err != nil {
			t.Fatalf("%v: %+v", err, status)
		}
		var names []string
		for _, c := range status {
			names = append(names, c.Name)
			if c.Name == "mal" && c.PID != p.HostPID() {
				t.Errorf("payload says pid %d, its process is %d", c.PID, p.HostPID())
			}
		}
		slices.Sort(names)
		if want := []string{"mal", "mal-child1", "mal-child2", "mal-orphan1"}; !slices.Equal(names, want) {
			t.Errorf("connections of %v, want %v", names, want)
		}
		orphan, err := lan.Alice.Run(ctx, "pgrep", "-P", "1", "-f", "mal-orphan1")
		if err != nil || strings.Count(orphan, "\n") != 1 {
			t.Errorf("orphans whose parent is PID 1: %q, %v", orphan, err)
		}
		if err := p.Kill(); err != nil {
			t.Fatal(err)
		}
		if _, err := lan.C2.WaitFor(ctx, func(s []Connection) bool {
			return slices.ContainsFunc(s, func(c Connection) bool { return c.Name == "mal" && !c.Open })
		}); err != nil {
			t.Errorf("the C2 does not see the payload's end: %v", err)
		}
	})

	t.Run("reviver", func(t *testing.T) {
		binary, err := lan.Payload(ctx)
		if err != nil {
			t.Fatal(err)
		}
		host, err := lan.AddHost(ctx, "carol", HostOptions{
			ReadOnly: []ReadOnlyMount{{Path: image, Files: map[string]string{"bin/helper": binary}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := host.Run(ctx, "rm", "-f", image+"/bin/helper"); err == nil {
			t.Error("a file on the read-only mount could be removed")
		}
		reviver, err := host.StartReviver(ctx, append([]string{image + "/bin/helper"}, PayloadOptions{C2: c2}.Args()...)...)
		if err != nil {
			t.Fatal(err)
		}
		first := waitPID(ctx, t, host, "helper -c2", "")
		if out, err := host.Run(ctx, "pgrep", "-f", "lan-reviver"); err == nil {
			t.Errorf("the host sees the reviver: %s", out)
		}
		if _, err := host.Run(ctx, "kill", "-9", first); err != nil {
			t.Fatal(err)
		}
		waitPID(ctx, t, host, "helper -c2", first)
		if !reviver.Running() {
			t.Error("the reviver ended")
		}
	})
}

// waitPID waits for a process of the host that matches and is not the one named.
func waitPID(ctx context.Context, t *testing.T, h *Host, pattern, not string) string {
	t.Helper()
	for ctx.Err() == nil {
		out, err := h.Run(ctx, "pgrep", "-o", "-f", pattern)
		if pid := strings.TrimSpace(out); err == nil && pid != not {
			return pid
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("no process %q on %s", pattern, h.Name())
	return ""
}
