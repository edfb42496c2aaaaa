package observe

import (
	"fmt"
	"strings"

	"github.com/cilium/ebpf/btf"
)

// offsets are where this kernel keeps what the programs read, in bytes.
type offsets struct {
	taskLeader, taskPid, taskPID, taskTGID, taskStart  int32
	pidLevel, pidNumbers, upidNs, nsInum               int32
	binprmFilename                                     int32
	family, daddr, saddr, dport, num, v6daddr, v6saddr int32
	net, netInum                                       int32
}

// kernelOffsets looks the offsets up in the kernel's own type information.
func kernelOffsets() (*offsets, error) {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, fmt.Errorf("read the kernel's type information: %w", err)
	}
	var o offsets
	for _, f := range []struct {
		into       *int32
		name, path string
	}{
		{&o.taskLeader, "task_struct", "group_leader"},
		{&o.taskPid, "task_struct", "thread_pid"},
		{&o.taskPID, "task_struct", "pid"},
		{&o.taskTGID, "task_struct", "tgid"},
		{&o.taskStart, "task_struct", "start_boottime"},
		{&o.pidLevel, "pid", "level"},
		{&o.pidNumbers, "pid", "numbers"},
		{&o.upidNs, "upid", "ns"},
		{&o.nsInum, "pid_namespace", "ns.inum"},
		{&o.binprmFilename, "linux_binprm", "filename"},
		{&o.family, "sock_common", "skc_family"},
		{&o.daddr, "sock_common", "skc_daddr"},
		{&o.saddr, "sock_common", "skc_rcv_saddr"},
		{&o.dport, "sock_common", "skc_dport"},
		{&o.num, "sock_common", "skc_num"},
		{&o.v6daddr, "sock_common", "skc_v6_daddr"},
		{&o.v6saddr, "sock_common", "skc_v6_rcv_saddr"},
		{&o.net, "sock_common", "skc_net"},
		{&o.netInum, "net", "ns.inum"},
	} {
		var s *btf.Struct
		if err := spec.TypeByName(f.name, &s); err != nil {
			return nil, fmt.Errorf("find struct %s: %w", f.name, err)
		}
		bits, ok := memberOffset(s, strings.Split(f.path, "."))
		if !ok {
			return nil, fmt.Errorf("struct %s has no member %s here", f.name, f.path)
		}
		*f.into = int32(bits / 8)
	}
	return &o, nil
}

// memberOffset follows a path of members, also through nameless structs and
// unions, and returns the offset in bits.
func memberOffset(t btf.Type, path []string) (uint32, bool) {
	for _, m := range members(t) {
		switch {
		case m.Name == path[0] && len(path) == 1:
			return uint32(m.Offset), true
		case m.Name == path[0]:
			if below, ok := memberOffset(m.Type, path[1:]); ok {
				return uint32(m.Offset) + below, true
			}
		case m.Name == "":
			if below, ok := memberOffset(m.Type, path); ok {
				return uint32(m.Offset) + below, true
			}
		}
	}
	return 0, false
}

func members(t btf.Type) []btf.Member {
	switch s := btf.UnderlyingType(t).(type) {
	case *btf.Struct:
		return s.Members
	case *btf.Union:
		return s.Members
	}
	return nil
}
