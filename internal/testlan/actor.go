package testlan

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

const (
	// actorEnv names the role that this binary is to play in a host.
	actorEnv = "CORDON_LAN_ACTOR"
	// selfPath is where a host sees the binary that made the LAN.
	selfPath = "/run/cordon-lan/self"
	// markPath exists in every host, and nowhere else.
	markPath = "/run/cordon-lan/host"

	initActor       = "init"
	c2Actor         = "c2"
	webActor        = "web"
	nameserverActor = "nameserver"
	reviverActor    = "reviver"
	forwarderActor  = "forwarder"
)

// RunActor takes the process over, and never returns, when it was started as
// an actor of a LAN. Call it first in main or TestMain.
func RunActor() {
	role := os.Getenv(actorEnv)
	if role == "" {
		return
	}
	if err := os.Unsetenv(actorEnv); err != nil {
		actorFailed(role, err)
	}
	run, ok := map[string]func([]string) error{
		initActor:       runInit,
		c2Actor:         runC2,
		webActor:        runWeb,
		nameserverActor: runNameserver,
		reviverActor:    runReviver,
		forwarderActor:  runForwarder,
	}[role]
	if !ok {
		actorFailed(role, fmt.Errorf("no such actor"))
	}
	if err := run(os.Args[1:]); err != nil {
		actorFailed(role, err)
	}
	os.Exit(0)
}

func actorFailed(role string, err error) {
	fmt.Fprintf(os.Stderr, "test LAN actor %s: %v\n", role, err)
	os.Exit(1)
}

// actorCmd is the command of an actor in a host. Its process shows the
// actor's name as argv[0].
func actorCmd(role string, args ...string) Cmd {
	return Cmd{
		Path: selfPath,
		Args: append([]string{"lan-" + role}, args...),
		Env:  []string{actorEnv + "=" + role},
		Log:  filepath.Join("/run/cordon-lan", role+".log"),
	}
}

// startActor starts an actor in the host.
func (h *Host) startActor(ctx context.Context, role string, args ...string) (*Process, error) {
	return h.Start(ctx, actorCmd(role, args...))
}
