package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/cordon-security/cordon/mitigator"
	"github.com/cordon-security/cordon/mitigator/admin"
)

type adminCommands struct {
	Add    adminAdd    `cmd:"" help:"Make an administrator and print the token, once."`
	Remove adminRemove `cmd:"" help:"Take an administrator's access away, at once."`
	List   adminList   `cmd:"" help:"List the administrators."`
}

// openAdmins opens the administrators' file as the user whose state directory it
// is: what root made there, the service could not read.
func (c *commands) openAdmins() (mitigator.Config, *admin.Admins, error) {
	cfg, err := c.load()
	if err != nil {
		return cfg, nil, err
	}
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		return cfg, nil, fmt.Errorf("make the state directory: %w", err)
	}
	if err := becomeOwner(cfg.StateDir); err != nil {
		return cfg, nil, err
	}
	a, err := admin.New(cfg.StateDir)
	if errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("%w; run this as root, on the appliance", err)
	}
	return cfg, a, err
}

// becomeOwner gives root's rights up for those of the directory's owner.
func becomeOwner(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 || owner.Uid == 0 {
		return nil
	}
	if err := syscall.Setgroups(nil); err != nil {
		return fmt.Errorf("become the owner of %s: %w", dir, err)
	}
	if err := syscall.Setresgid(int(owner.Gid), int(owner.Gid), int(owner.Gid)); err != nil {
		return fmt.Errorf("become the owner of %s: %w", dir, err)
	}
	if err := syscall.Setresuid(int(owner.Uid), int(owner.Uid), int(owner.Uid)); err != nil {
		return fmt.Errorf("become the owner of %s: %w", dir, err)
	}
	return nil
}

type adminAdd struct {
	Name string `arg:"" help:"Name, as it stands in timelines: a-z, 0-9, '.', '_' and '-'."`
}

// Run implements the command. The token alone goes to standard output.
func (k *adminAdd) Run(c *commands) error {
	cfg, admins, err := c.openAdmins()
	if err != nil {
		return err
	}
	ca, err := mitigator.OpenCA(cfg.StateDir)
	if err != nil {
		return err
	}
	token, err := admins.Add(k.Name, cfg.Admin.Address, ca.Fingerprint(), time.Now())
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "Token of %s, shown only now. `cordon login` keeps it; the console asks for it.\n", k.Name)
	fmt.Println(token.Reveal())
	return nil
}

type adminRemove struct {
	Name string `arg:"" help:"Name of the administrator."`
}

// Run implements the command.
func (k *adminRemove) Run(c *commands) error {
	_, admins, err := c.openAdmins()
	if err != nil {
		return err
	}
	return admins.Remove(k.Name)
}

type adminList struct{}

// Run implements the command.
func (adminList) Run(c *commands) error {
	_, admins, err := c.openAdmins()
	if err != nil {
		return err
	}
	all, err := admins.List()
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tSINCE")
	for _, a := range all {
		fmt.Fprintf(w, "%s\t%s\n", a.Name, a.CreatedAt.Format(time.RFC3339))
	}
	return w.Flush()
}
