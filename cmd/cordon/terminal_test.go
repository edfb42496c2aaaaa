package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

// terminal opens a pseudo terminal: what a person types at the one end is read
// at the other. See pts(4).
func terminal(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = person.Close() })
	if err := unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = program.Close() })
	return person, program
}

func typed(t *testing.T, words string) *os.File {
	t.Helper()
	person, program := terminal(t)
	if _, err := person.WriteString(words + "\n"); err != nil {
		t.Fatal(err)
	}
	return program
}

// Without a terminal there must be the flag; on one, the name or yes.
func TestReleaseWantsConfirmation(t *testing.T) {
	a := newAppliance(t)
	a.tell()
	a.answers["ReleaseEndpoint"] = func(r *wirev1.ReleaseEndpointRequest) *wirev1.ReleaseEndpointResponse {
		return &wirev1.ReleaseEndpointResponse{Quarantines: []*wirev1.QuarantineInfo{{
			Id: "q-1", EndpointName: "bob", Macs: []string{"02:00:00:00:00:0b"}, Reason: "it \x1b[31mcame back", Actor: "policy", State: "in-force"}}}
	}
	a.run("release", "bob").wants(t, exitUsage, "nobody confirmed", "--threat-is-gone")
	for answer, released := range map[string]bool{"yes": true, "bob": true, " BOB ": true, "no": false, "": false, "y": false, "alice": false} {
		i := a.as()
		i.stdin = typed(t, answer)
		got := i.run("release", "bob")
		if released != (got.code == exitOK) {
			t.Errorf("answer %q: exit code %d, %s", answer, got.code, got.err)
		}
		if !strings.Contains(got.err, "Is the threat on bob gone? Type the endpoint's name (or 'yes'):") {
			t.Errorf("answer %q: no question in %q", answer, got.err)
		}
		if !strings.Contains(got.err, "bob [02:00:00:00:00:0b] is quarantined") || strings.Contains(got.err, "\x1b[31mcame") {
			t.Errorf("answer %q: the question does not say of whom, or lets an escape through: %q", answer, got.err)
		}
		if !released && !strings.Contains(got.err, "was not released") {
			t.Errorf("answer %q: %q", answer, got.err)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	released := 0
	for _, m := range a.got["ReleaseEndpoint"] {
		r, ok := m.(*wirev1.ReleaseEndpointRequest)
		if ok && r.GetPreview() {
			continue
		}
		released++
		if !ok || !r.GetThreatIsGone() {
			t.Errorf("without the confirmation: %v", m)
		}
	}
	if released != 3 {
		t.Errorf("%d releases were ordered, want 3", released)
	}
}

func TestLoginAtThePrompt(t *testing.T) {
	a := newAppliance(t)
	i := a.at(t)
	person, program := terminal(t)
	i.stdin = program
	done := make(chan result)
	go func() { done <- i.run("login") }()
	waitForEcho(t, program, false)
	if _, err := person.WriteString(a.token.Reveal() + "\n"); err != nil {
		t.Fatal(err)
	}
	if got := <-done; got.code != exitOK || strings.Contains(got.out+got.err, a.token.Secret.Reveal()) {
		t.Errorf("%+v", got)
	}
	waitForEcho(t, program, true)
}

// An interrupt at the prompt leaves the terminal as it was.
func TestInterruptAtThePrompt(t *testing.T) {
	a := newAppliance(t)
	i := a.at(t)
	_, program := terminal(t)
	i.stdin = program
	ctx, cancel := context.WithCancel(t.Context())
	i.ctx = ctx
	done := make(chan result)
	go func() { done <- i.run("login") }()
	waitForEcho(t, program, false)
	cancel()
	if got := <-done; got.code != exitFailed || !strings.Contains(got.err, "interrupted") {
		t.Errorf("%+v", got)
	}
	waitForEcho(t, program, true)
	if a.calls() != 0 {
		t.Error("the appliance was called")
	}
}

func waitForEcho(t *testing.T, f *os.File, want bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		state, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		if (state.Lflag&unix.ECHO != 0) == want {
			return
		}
	}
	t.Fatalf("the echo did not become %v", want)
}

// Colour is for terminals, unless the person wants none.
func TestColour(t *testing.T) {
	a := newAppliance(t)
	a.tell()
	if got := a.run("status"); strings.Contains(got.out, "\x1b") {
		t.Errorf("colour without a terminal: %q", got.out)
	}
	for env, want := range map[string]bool{"": true, "NO_COLOR=1": false, "TERM=dumb": false} {
		person, program := terminal(t)
		i := a.as()
		i.stdout = program
		name, value, _ := strings.Cut(env, "=")
		i.env[name] = value
		// The table fits the terminal's buffer.
		if got := i.run("agents"); got.code != exitOK {
			t.Fatalf("%+v", got)
		}
		shown := make([]byte, 4096)
		n, err := person.Read(shown)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(string(shown[:n]), "\x1b[32mconnected\x1b[0m"); got != want {
			t.Errorf("%q: colour %v in %q", env, got, shown[:n])
		}
	}
}
