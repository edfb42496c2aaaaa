// Package breakglass keeps the order that lifts every quarantine: a marker on
// disk that outlives the enforcer, its journal and a reboot, and a log of who
// set it and why. Nothing of it needs the desired set or the mitigator.
package breakglass

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cordon-security/cordon/internal/durablefile"
)

const (
	markerName = "break-glass"
	logName    = "break-glass.log"
	// maxMarker bounds what is read of a marker.
	maxMarker = 1 << 16
)

// Order is who lifted every quarantine, when and why.
type Order struct {
	Since  time.Time `json:"since"`
	Actor  string    `json:"actor"`
	Reason string    `json:"reason"`
}

// Marker is the marker's places, and it is set in each that can be written. The
// state directory's survives a reboot; the run directory's is for when the state
// directory cannot be written, or is not the one that a running device reads.
type Marker struct {
	StateDir string
	RunDir   string
}

// On reports whether the break-glass order stands. A marker that cannot be read
// stands all the same: its being there is what counts.
func (m Marker) On() (Order, bool) {
	for _, dir := range m.dirs() {
		path := filepath.Join(dir, markerName)
		info, err := os.Stat(path)
		if err != nil {
			continue
		}
		o := Order{Since: info.ModTime().UTC(), Actor: "unknown", Reason: "unknown"}
		if b, err := os.ReadFile(path); err == nil && len(b) < maxMarker {
			_ = json.Unmarshal(b, &o)
		}
		return o, true
	}
	return Order{}, false
}

func (m Marker) dirs() []string {
	if m.RunDir == "" {
		return []string{m.StateDir}
	}
	return []string{m.StateDir, m.RunDir}
}

// ErrNotDurable says that the order stands now and not after a reboot.
var ErrNotDurable = errors.New("the order will not survive a reboot, because the state directory cannot be written")

// Set makes the order stand. With ErrNotDurable it stands until the next
// reboot; with another error it could be written nowhere.
func (m Marker) Set(o Order) error {
	err := m.write(m.StateDir, o)
	if m.RunDir == "" {
		if err != nil {
			return fmt.Errorf("write the break-glass marker: %w", err)
		}
		return nil
	}
	runErr := m.write(m.RunDir, o)
	switch {
	case err == nil:
		return nil
	case runErr != nil:
		return fmt.Errorf("write the break-glass marker: %w", errors.Join(err, runErr))
	}
	return fmt.Errorf("%w: %w", ErrNotDurable, err)
}

// write creates the marker and makes it durable. On a full disk the file may
// stand without its content, which is enough.
func (m Marker) write(dir string, o Order) error {
	b, err := json.Marshal(o)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, markerName), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	m.giveToDevice(f)
	_, writeErr := f.Write(append(b, '\n'))
	syncErr := f.Sync()
	closeErr := f.Close()
	if writeErr != nil && !errors.Is(writeErr, unix.ENOSPC) {
		return writeErr
	}
	if syncErr != nil {
		return syncErr
	}
	return errors.Join(closeErr, durablefile.SyncDir(dir))
}

// giveToDevice lets the device, which has a user of its own, read and remove what
// root wrote: the run directory is sticky, so it may remove there only what is
// its own. The order stands without it; only the device could not end it.
func (m Marker) giveToDevice(f *os.File) {
	info, err := os.Stat(m.StateDir)
	if err != nil || os.Geteuid() != 0 {
		return
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		_ = f.Chown(int(st.Uid), int(st.Gid))
	}
}

// Clear ends the order, everywhere. That it did not stand is no error.
func (m Marker) Clear() error {
	var errs []error
	for _, dir := range m.dirs() {
		err := os.Remove(filepath.Join(dir, markerName))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			err = durablefile.SyncDir(dir)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Log appends a line to the break-glass log in the state directory.
func (m Marker) Log(event string, o Order, at time.Time, detail string) error {
	line, err := json.Marshal(struct {
		Time   time.Time `json:"time"`
		Event  string    `json:"event"`
		Actor  string    `json:"actor"`
		Reason string    `json:"reason,omitempty"`
		Detail string    `json:"detail,omitempty"`
	}{at.UTC(), event, o.Actor, o.Reason, detail})
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(m.StateDir, logName), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("break-glass log: %w", err)
	}
	m.giveToDevice(f)
	_, err = f.Write(append(line, '\n'))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("break-glass log: %w", err)
	}
	return nil
}
