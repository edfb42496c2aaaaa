package clean

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// freezerTime bounds the wait for a cgroup to be frozen; the signals that
// follow do not depend on it.
const freezerTime = 200 * time.Millisecond

// freezeCgroups freezes each cgroup that holds nothing but the tree, as that of
// a service of its own does: none of its processes can fork from then on.
func (t *Tree) freezeCgroups() {
	mount := cgroupMount()
	if mount == "" {
		return
	}
	done := make(map[string]bool)
	for _, m := range t.members {
		group := m.process.Cgroup
		if m.fd < 0 || group == "" || group == "/" || strings.Contains(group, "..") || done[group] {
			continue
		}
		done[group] = true
		if dir := filepath.Join(mount, group); t.fills(dir) && freeze(dir) {
			t.frozen = append(t.frozen, dir)
			t.mark(group)
		}
	}
}

// mark notes the members that lie in a frozen cgroup or below it.
func (t *Tree) mark(group string) {
	for _, m := range t.members {
		if m.process.Cgroup == group || strings.HasPrefix(m.process.Cgroup, strings.TrimSuffix(group, "/")+"/") {
			m.inFrozen = true
		}
	}
}

// fills reports whether every process of a cgroup and of those below it is a
// member of the tree.
func (t *Tree) fills(dir string) bool {
	held := make(map[int]bool)
	for _, m := range t.members {
		if m.fd >= 0 {
			held[m.process.PID] = true
		}
	}
	all := true
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.Name() != "cgroup.procs" {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for line := range strings.FieldsSeq(string(data)) {
			pid, err := strconv.Atoi(line)
			all = all && err == nil && held[pid]
		}
		return nil
	})
	return err == nil && all
}

func freeze(dir string) bool {
	if os.WriteFile(filepath.Join(dir, "cgroup.freeze"), []byte("1"), 0) != nil {
		return false
	}
	for end := time.Now().Add(freezerTime); time.Now().Before(end); time.Sleep(200 * time.Microsecond) {
		data, err := os.ReadFile(filepath.Join(dir, "cgroup.events"))
		if err != nil {
			break
		}
		if strings.Contains(string(data), "frozen 1") {
			return true
		}
	}
	_ = os.WriteFile(filepath.Join(dir, "cgroup.freeze"), []byte("0"), 0)
	return false
}

// thawCgroups lets the killed processes end and the cgroup be used again.
func (t *Tree) thawCgroups() {
	for _, dir := range t.frozen {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.freeze"), []byte("0"), 0)
	}
	t.frozen = nil
}

// cgroupMount returns where the unified hierarchy is mounted, "" when it is not.
func cgroupMount() string {
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err == nil {
			return dir
		}
	}
	return ""
}
