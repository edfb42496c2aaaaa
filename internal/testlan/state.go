package testlan

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// stateRoot holds one folder for each LAN of the machine.
	stateRoot = "/run/cordon-lan"
	stateFile = "state.json"
	// scratchDir is where hosts mount their tmpfs, each in its own mount
	// namespace: on the machine it stays empty.
	scratchDir = "scratch"
)

// ErrInUse is returned by Down for a LAN whose maker is still running.
var ErrInUse = errors.New("the LAN is in use")

// identity names a process for as long as the machine runs: process ids are
// used again, start times of the same id are not.
type identity struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks since boot, /proc/PID/stat field 22
}

// identify returns the identity of a running process, or the zero value.
func identify(pid int) identity {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return identity{}
	}
	// The command name, field 2, may hold spaces and brackets.
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	// Without memory it has ended, too: a host's first process waits until all of
	// its PID namespace are reaped, which in a container may be never.
	if len(fields) < 21 || fields[0] == "Z" || fields[20] == "0" {
		return identity{}
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return identity{}
	}
	return identity{PID: pid, Start: start}
}

func (i identity) alive() bool { return i.PID > 0 && identify(i.PID) == i }

// kill ends the process if it is still the one meant.
func (i identity) kill() error {
	if i.PID <= 0 {
		return nil
	}
	fd, err := unix.PidfdOpen(i.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open process %d: %w", i.PID, err)
	}
	defer unix.Close(fd)
	if !i.alive() {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", i.PID, err)
	}
	return nil
}

// hostState is what is needed to remove one host. Its mounts and its network
// belong to namespaces that end with its processes.
type hostState struct {
	Name    string     `json:"name"`
	Cgroup  string     `json:"cgroup,omitempty"`
	Init    identity   `json:"init"`
	Outside []identity `json:"outside,omitempty"` // processes not in its PID namespace
}

// state is the state file of a LAN.
type state struct {
	Name  string      `json:"name"`
	Owner identity    `json:"owner"`
	Kept  bool        `json:"kept"`
	Since time.Time   `json:"since"`
	Hosts []hostState `json:"hosts"`
}

// host returns the entry of that name, made when missing.
func (s *state) host(name string) *hostState {
	i := slices.IndexFunc(s.Hosts, func(h hostState) bool { return h.Name == name })
	if i < 0 {
		s.Hosts = append(s.Hosts, hostState{Name: name})
		i = len(s.Hosts) - 1
	}
	return &s.Hosts[i]
}

func (s *state) save(dir string) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("save LAN state: %w", err)
	}
	tmp := filepath.Join(dir, stateFile+".new")
	if err := os.WriteFile(tmp, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("save LAN state: %w", err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, stateFile)); err != nil {
		return fmt.Errorf("save LAN state: %w", err)
	}
	return nil
}

func loadState(name string) (state, error) {
	var s state
	b, err := os.ReadFile(filepath.Join(stateRoot, name, stateFile))
	if err != nil {
		return s, fmt.Errorf("LAN %s: %w", name, err)
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("LAN %s: read its state file: %w", name, err)
	}
	return s, nil
}

// remove kills what the state names and deletes what is left of the LAN.
func (s *state) remove(ctx context.Context) error {
	var errs []error
	for _, h := range s.Hosts {
		for _, p := range h.Outside {
			errs = append(errs, p.kill())
		}
		errs = append(errs, h.Init.kill())
	}
	for _, h := range s.Hosts {
		errs = append(errs, removeCgroup(ctx, h.Cgroup), waitGone(ctx, h.Init))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove LAN %s: %w", s.Name, err)
	}
	if err := os.RemoveAll(filepath.Join(stateRoot, s.Name)); err != nil {
		return fmt.Errorf("remove LAN %s: %w", s.Name, err)
	}
	// Goes with the last LAN; refused while there is another.
	_ = unix.Rmdir(stateRoot)
	return nil
}

func waitGone(ctx context.Context, p identity) error {
	for p.alive() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("process %d does not end: %w", p.PID, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// Info describes a LAN that is on the machine.
type Info struct {
	Name  string
	Since time.Time
	Kept  bool
	// InUse: the process that made it runs.
	InUse bool
	Hosts []string
}

// List returns the LANs that are on the machine, those left behind included.
func List() ([]Info, error) {
	entries, err := os.ReadDir(stateRoot)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list LANs: %w", err)
	}
	var out []Info
	for _, e := range entries {
		s, err := loadState(e.Name())
		if errors.Is(err, os.ErrNotExist) {
			continue // being made or removed at this moment
		}
		if err != nil {
			return out, err
		}
		info := Info{Name: s.Name, Since: s.Since, Kept: s.Kept, InUse: s.Owner.alive()}
		for _, h := range s.Hosts {
			info.Hosts = append(info.Hosts, h.Name)
		}
		out = append(out, info)
	}
	return out, nil
}

// Down removes the LAN of that name, which a process kept or left behind. One
// that is not there is no error. While the process that made it runs, Down
// returns an error that wraps ErrInUse.
func Down(name string) error {
	s, err := loadState(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if s.Owner.alive() {
		return fmt.Errorf("LAN %s was made by process %d, which runs: end that first: %w", name, s.Owner.PID, ErrInUse)
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	return s.remove(ctx)
}

// clearStale makes way for a new LAN.
func clearStale(name string) error {
	s, err := loadState(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if s.Owner.alive() || (s.Kept && slices.ContainsFunc(s.Hosts, func(h hostState) bool { return h.Init.alive() })) {
		return fmt.Errorf("LAN %s: remove it first: %w", name, ErrExists)
	}
	return Down(name)
}
