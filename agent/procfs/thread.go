package procfs

import (
	"os"
	"strconv"
)

// thread returns the folder of a process, or that of another of its threads
// when the first has ended: memory and descriptors are then read there.
func (fs FS) thread(pid int) string {
	dir := fs.File(pid, "task")[:len(fs.File(pid, ""))-1]
	if p, err := fs.Stat(pid); err != nil || p.State != "Z" || p.Threads <= 1 {
		return dir
	}
	for _, t := range fs.threads(pid) {
		if t.State != "Z" && t.State != "X" {
			return dir + "/task/" + strconv.Itoa(t.PID)
		}
	}
	return dir
}

// threads reads proc_pid_stat(5) of each thread.
func (fs FS) threads(pid int) []Process {
	entries, err := os.ReadDir(fs.File(pid, "task"))
	if err != nil {
		return nil
	}
	var all []Process
	for _, e := range entries {
		tid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		data, err := os.ReadFile(fs.File(pid, "task/"+e.Name()+"/stat"))
		if err != nil {
			continue
		}
		if t, err := parseStat(tid, data); err == nil {
			all = append(all, t)
		}
	}
	return all
}

// Moves reports whether a process of the table runs, or would when it is woken:
// it is neither stopped nor dead, nor does it wait in the kernel.
func (fs FS) Moves(p Process) bool {
	moves := func(state string) bool { return state == "R" || state == "S" }
	if p.State != "Z" || p.Threads <= 1 {
		return moves(p.State)
	}
	for _, t := range fs.threads(p.PID) {
		if moves(t.State) {
			return true
		}
	}
	return false
}

// Outlived reports whether threads of a process run on after its first.
func (fs FS) Outlived(id ID) bool {
	p, err := fs.Stat(id.PID)
	return err == nil && (id.Start == 0 || p.Start == id.Start) && p.Threads > 1 && !p.Dead()
}
