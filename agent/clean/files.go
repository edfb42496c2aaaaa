package clean

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/cordon-security/cordon/agent/assess"
	"github.com/cordon-security/cordon/agent/persistence"
	"github.com/cordon-security/cordon/agent/procfs"
	"github.com/cordon-security/cordon/agent/sockdiag"
	"github.com/cordon-security/cordon/agent/vault"
)

func destroy(s sockdiag.Socket) error { return sockdiag.Destroy(s) }

// disable undoes what starts the threat, entry by entry.
func (r *run) disable(ctx context.Context) {
	reload := make(map[string]bool)
	for _, s := range r.record.Evidence.Entries {
		id, err := r.disableEntry(ctx, s)
		r.act("disable", EntryObject(s), err, id)
		if err == nil && (s.Kind == persistence.Unit || s.Kind == persistence.UnitDropIn) {
			reload[s.User] = true
		}
	}
	if r.o.Units == nil {
		return
	}
	for user := range reload {
		if err := r.o.Units.Reload(ctx, user); err != nil {
			r.o.Log.Warn("the service manager did not read its files again", "task", r.task, "user", user, "error", err)
		}
	}
}

func (r *run) disableEntry(ctx context.Context, s assess.Start) (vaultID string, err error) {
	request := vault.Request{Task: r.task, Path: s.Path, Reason: s.Why}
	if s.Kind == persistence.CronLine {
		item, _, err := r.o.Vault.TakeLine(request, s.Text)
		return item.ID, gone(err)
	}
	if err := r.o.Guard.File(s.Path); err != nil {
		return "", err
	}
	var errs []error
	if s.Kind == persistence.Unit && r.o.Units != nil {
		if err := r.o.Units.Stop(ctx, s.Unit, s.User); err != nil {
			errs = append(errs, err)
		}
	}
	for _, l := range s.Links {
		item, _, err := r.o.Vault.TakeLink(vault.Request{Task: r.task, Path: l, Reason: "it enables " + s.Unit})
		if err = gone(err); err != nil {
			errs = append(errs, err)
		} else if item.ID != "" {
			r.act("vault", FileObject(l), nil, item.ID)
		}
	}
	item, _, err := r.o.Vault.TakeFile(request)
	return item.ID, errors.Join(append(errs, gone(err))...)
}

// gone makes the absence of what is to be taken a success.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// vaultFiles moves the files of the evidence into the vault. A path that leads
// to another file than the one in evidence is left alone.
func (r *run) vaultFiles() {
	files := r.record.Evidence.Files
	for n, f := range files {
		if f.Taken || f.Elsewhere || strings.HasPrefix(f.Path, "/memfd:") {
			continue
		}
		now, err := r.inode(f.Path)
		if err == nil && !f.File.IsZero() && now != f.File || err != nil && f.Deleted {
			continue
		}
		if err := r.o.Guard.File(f.Path); err != nil {
			r.act("vault", FileObject(f.Path), err, "")
			continue
		}
		item, _, err := r.o.Vault.TakeFile(vault.Request{Task: r.task, Path: f.Path, Reason: f.Why, Dev: f.File.Dev, Ino: f.File.Ino})
		files[n].Taken = err == nil && item.Names == 1
		if err = gone(err); err == nil && item.Names > 1 {
			err = fmt.Errorf("%s is in the vault, but %d other name(s) lead to the same file", f.Path, item.Names-1)
		}
		if err != nil || item.ID != "" {
			r.act("vault", FileObject(f.Path), err, item.ID)
		}
	}
}

// inode returns what a path leads to; fs.ErrNotExist when nothing is there.
func (r *run) inode(path string) (procfs.FileID, error) {
	var st syscall.Stat_t
	if err := syscall.Lstat(filepath.Join(r.o.Collector.Root, path), &st); err != nil {
		return procfs.FileID{}, err
	}
	return procfs.FileID{Dev: uint64(st.Dev), Ino: st.Ino}, nil
}

// remains says what of a file of the evidence is still there, "" when nothing.
// Only what was seen on this host can be seen to be gone.
func (r *run) remains(f assess.SuspectFile) string {
	if strings.HasPrefix(f.Path, "/memfd:") {
		return ""
	}
	if f.Elsewhere {
		return f.Path + " lies where the agent does not see it, on a mount of another namespace; what ran of it was stopped"
	}
	now, err := r.inode(f.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ""
	case err != nil:
		return fmt.Sprintf("whether %s is gone cannot be told: %v", f.Path, err)
	case f.File.IsZero() || now == f.File:
		return f.Path + " is still there"
	}
	return "another file is at " + f.Path + " now"
}

// left assesses once more and says what of the threat is still there.
func (r *run) left(ctx context.Context) ([]string, error) {
	known := r.record.Evidence.Known()
	_, e, err := r.o.Collector.Look(r.flows, known)
	if err != nil {
		return nil, err
	}
	var left []string
	for _, p := range e.Live() {
		left = append(left, fmt.Sprintf("pid %d (%s) runs, started by pid %d", p.PID, p.Exe, p.PPID))
	}
	if len(left) > 0 {
		left = append(left, r.back...)
	}
	again := assess.Evidence{Files: r.record.Evidence.Files}
	for _, text := range r.o.Collector.Persistence(&again) {
		left = append(left, "what may start the threat is not known: "+text)
	}
	for _, s := range again.Entries {
		left = append(left, s.Name()+" still starts the threat")
	}
	for _, s := range r.record.Evidence.Entries {
		if s.Kind == persistence.Unit && r.o.Units != nil && r.o.Units.Active(ctx, s.Unit, s.User) {
			left = append(left, "the unit "+s.Unit+" is still active")
		}
	}
	for _, f := range r.record.Evidence.Files {
		if text := r.remains(f); text != "" && !slices.Contains(left, text) {
			left = append(left, text)
		}
	}
	left = append(left, r.trouble...)
	return append(left, r.failed()...), nil
}

// failed repeats the errors of actions that did not succeed.
func (r *run) failed() []string {
	var all []string
	for _, a := range r.actions {
		if a.GetError() != "" {
			all = append(all, a.GetVerb()+": "+a.GetError())
		}
	}
	return all
}
