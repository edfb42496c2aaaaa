package testlan

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cgroupRoot returns where the machine has cgroup version 2 mounted, or "" when
// it has not.
func cgroupRoot() (string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("look for cgroup2: %w", err)
	}
	defer f.Close()
	found := ""
	for s := bufio.NewScanner(f); s.Scan(); {
		before, after, ok := strings.Cut(s.Text(), " - ")
		fields := strings.Fields(before)
		if !ok || len(fields) < 5 || !strings.HasPrefix(after, "cgroup2 ") {
			continue
		}
		if found == "" || fields[4] == "/sys/fs/cgroup" {
			found = fields[4]
		}
	}
	return found, nil
}

// makeCgroup makes the control group of one host.
func makeCgroup(lan, host string) (string, error) {
	root, err := cgroupRoot()
	if err != nil || root == "" {
		return "", err
	}
	path := filepath.Join(root, "cordon-lan", lan, host)
	if err := os.MkdirAll(path, 0o755); err != nil {
		return "", fmt.Errorf("make control group: %w", err)
	}
	return path, nil
}

// removeCgroup kills what is in the control group at path and removes it with
// all below it, and those of its parents that are ours and empty. One that does
// not exist is no error.
func removeCgroup(ctx context.Context, path string) error {
	if path == "" {
		return nil
	}
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := os.WriteFile(filepath.Join(path, "cgroup.kill"), []byte("1"), 0o644); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("kill control group %s: %w", path, err)
	}
	for {
		err := removeCgroupTree(path)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("remove control group %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("remove control group %s: processes are still in it: %w", path, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
	// The LAN's own group and the group of all LANs go with the last host; the
	// kernel refuses while another host is in them.
	lan := filepath.Dir(path)
	_ = unix.Rmdir(lan)
	_ = unix.Rmdir(filepath.Dir(lan))
	return nil
}

func removeCgroupTree(path string) error {
	entries, err := os.ReadDir(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if err := removeCgroupTree(filepath.Join(path, e.Name())); err != nil {
			return err
		}
	}
	if err := unix.Rmdir(path); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

// startInCgroup starts the program in the control group of its host.
func (p *Process) startInCgroup() error {
	if p.host.cgroup == "" {
		return p.cmd.Start()
	}
	attr := p.cmd.SysProcAttr
	attr.UseCgroupFD, attr.CgroupFD = true, int(p.host.cgroupDir.Fd())
	err := p.cmd.Start()
	if !errors.Is(err, unix.ENOENT) {
		return err
	}
	// Where control-group namespaces are delegation boundaries (nsdelegate), a
	// thread in the host's cannot place a child across the boundary: place it
	// from the machine's namespace once it runs.
	again := *p.cmd
	p.cmd = &again
	p.cmd.SysProcAttr.UseCgroupFD = false
	p.cmd.Process = nil
	if err := p.cmd.Start(); err != nil {
		return err
	}
	return p.host.lan.spawner.do(func() error {
		return os.WriteFile(filepath.Join(p.host.cgroupDir.Name(), "cgroup.procs"), strconv.AppendInt(nil, int64(p.PID()), 10), 0)
	})
}

// openCgroup opens the group that programs started on the host go to. Under
// systemd it is beside systemd's own groups: one that has controllers for its
// children cannot hold processes itself.
func (h *Host) openCgroup() error {
	if h.cgroup == "" {
		return nil
	}
	path := h.cgroup
	if h.o.Systemd {
		path = filepath.Join(path, "testlan")
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return fmt.Errorf("make control group: %w", err)
	}
	dir, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open control group: %w", err)
	}
	h.cgroupDir = dir
	return nil
}
