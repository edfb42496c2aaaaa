package testlan

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Check says everything that this machine lacks for the standard LAN, by trying
// it in namespaces that are thrown away at once. It changes nothing.
func Check() error {
	if os.Geteuid() != 0 {
		return errors.New("a test LAN needs root: run as root")
	}
	var errs []error
	if _, err := os.Stat(systemdPath); err != nil {
		errs = append(errs, errors.New("systemd is not installed: apt-get install systemd dbus"))
	}
	if root, err := cgroupRoot(); err != nil || root == "" {
		errs = append(errs, errors.Join(errors.New("cgroup version 2 is not mounted: mount -t cgroup2 none /sys/fs/cgroup/unified"), err))
	}
	result := make(chan error, 1)
	offMainThread(func() { result <- try() }) // the thread ends in its namespaces
	return errors.Join(append(errs, <-result)...)
}

// try makes one of each thing that a LAN is made of, on a thread of its own.
func try() error {
	if err := unix.Unshare(unix.CLONE_FS | hostNamespaces&^unix.CLONE_NEWPID); err != nil {
		return fmt.Errorf("no namespaces can be made here (a container needs to be privileged): %w", err)
	}
	var errs []error
	if err := tryOverlay(); err != nil {
		errs = append(errs, fmt.Errorf("no overlay can be mounted (CONFIG_OVERLAY_FS): %w", err))
	}
	bridge := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
	bridge.Name = "try0"
	if err := netlink.LinkAdd(bridge); err != nil {
		errs = append(errs, fmt.Errorf("no bridge can be made (CONFIG_BRIDGE): %w", err))
	}
	cable := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "try2"}
	cable.Name = "try1"
	if err := netlink.LinkAdd(cable); err != nil {
		errs = append(errs, fmt.Errorf("no virtual cable can be made (CONFIG_VETH): %w", err))
	}
	for name, family := range map[string]nftables.TableFamily{"inet": nftables.TableFamilyINet, "bridge": nftables.TableFamilyBridge} {
		if err := tryTable(family); err != nil {
			errs = append(errs, fmt.Errorf("nftables does not work in the %s family (CONFIG_NF_TABLES): %w", name, err))
		}
	}
	return errors.Join(errs...)
}

func tryTable(family nftables.TableFamily) error {
	conn := &nftables.Conn{}
	table := conn.AddTable(&nftables.Table{Name: "try", Family: family})
	conn.AddChain(&nftables.Chain{
		Name: "try", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
	})
	return conn.Flush()
}

// tryOverlay mounts an overlay over the machine's root, out of sight of
// everybody else.
func tryOverlay() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	const base = "/run"
	if err := unix.Mount("cordon-lan", base, "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	for _, d := range []string{"root", "upper", "work"} {
		if err := os.Mkdir(filepath.Join(base, d), 0o755); err != nil {
			return err
		}
	}
	return unix.Mount("cordon-lan", base+"/root", "overlay", 0, "lowerdir=/,upperdir="+base+"/upper,workdir="+base+"/work")
}
