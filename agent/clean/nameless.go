package clean

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/cordon-security/cordon/agent/assess"
	"github.com/cordon-security/cordon/agent/procfs"
	"github.com/cordon-security/cordon/agent/vault"
)

// keepNameless puts the executables that their names do not lead to into the
// vault, while the tree is frozen.
func (r *run) keepNameless(t *Tree) {
	for _, f := range r.record.Evidence.Files {
		if !f.Deleted || f.PID == 0 || f.File.IsZero() {
			continue
		}
		id, err := r.keep(t, f)
		if err != nil {
			r.trouble = append(r.trouble, printable(fmt.Sprintf("vault: %v", err)))
		}
		if err != nil || id != "" {
			r.act("vault", FileObject(f.Path), err, id)
		}
	}
}

func (r *run) keep(t *Tree, f assess.SuspectFile) (vaultID string, err error) {
	file, err := r.openExe(t, f)
	if file == nil || err != nil {
		return "", err
	}
	defer file.Close()
	var st syscall.Stat_t
	if err := syscall.Fstat(int(file.Fd()), &st); err != nil {
		return "", fmt.Errorf("look at %s: %w", f.Path, err)
	}
	item, _, err := r.o.Vault.Keep(vault.Request{Task: r.task, Path: f.Path, Reason: f.Why, Dev: f.File.Dev, Ino: f.File.Ino}, file)
	if err == nil && st.Nlink > 0 && !f.Elsewhere {
		err = fmt.Errorf("%s is in the vault, but %d other name(s) lead to the same file", f.Path, st.Nlink)
	}
	return item.ID, err
}

// openExe opens an executable through any member that runs it; nil when none
// does any more.
func (r *run) openExe(t *Tree, f assess.SuspectFile) (*os.File, error) {
	var errs []error
	for _, m := range t.members {
		if m.fd < 0 || m.gone || m.process.ExeFile != f.File {
			continue
		}
		file, err := r.o.Collector.Proc.OpenExe(m.process.PID)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		// It may have become another program since it was looked at.
		var st syscall.Stat_t
		if syscall.Fstat(int(file.Fd()), &st) == nil && (procfs.FileID{Dev: uint64(st.Dev), Ino: st.Ino}) == f.File {
			return file, nil
		}
		_ = file.Close()
	}
	return nil, errors.Join(errs...)
}
