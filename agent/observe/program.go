package observe

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// Kinds of events and their layout on the ring. All numbers are native endian:
//
//	0 kind u32   4 pid u32   8 start u64 (ns since boot)
//	fork:   16 child pid u32   24 child start u64
//	exec:   16 file name, zero-terminated
//	socket: 16 sock u64   24 new state u32   28 family u16   30 remote port (network order)
//	        32 local port u16   40 local address 16 bytes   56 remote address 16 bytes
const (
	kindFork   = 1
	kindExec   = 2
	kindExit   = 3
	kindSocket = 4

	forkSize   = 32
	execSize   = 16 + nameSize
	exitSize   = 16
	socketSize = 72
	nameSize   = 240
)

// The stack of a program, as offsets from R10: scratch on top, the event below.
const (
	scratch  = -32
	eventTop = -32
)

const (
	stateEstablished = 1
	stateSynSent     = 2
	stateClose       = 7
)

// builder writes the programs for one kernel and one pair of namespaces.
type builder struct {
	*offsets
	ring            *ebpf.Map
	level           uint32 // of the agent's PID namespace
	pidInum, netInm uint32
}

// read copies size bytes from src+offset to the stack.
func read(stack int32, size int32, src asm.Register, offset int32) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R3, src),
		asm.Add.Imm(asm.R3, offset),
		asm.Mov.Reg(asm.R1, asm.RFP),
		asm.Add.Imm(asm.R1, stack),
		asm.Mov.Imm(asm.R2, size),
		asm.FnProbeReadKernel.Call(),
	}
}

// load reads a value of size from src+offset into dst.
func load(dst asm.Register, size asm.Size, src asm.Register, offset int32) asm.Instructions {
	ins := read(scratch, int32(size.Sizeof()), src, offset)
	return append(ins, asm.LoadMem(dst, asm.RFP, scratch, size))
}

// begin zeroes an event and sets its kind.
func begin(size, kind int32) asm.Instructions {
	ins := asm.Instructions{asm.Mov.Imm(asm.R0, 0)}
	for at := int32(0); at < size; at += 8 {
		ins = append(ins, asm.StoreMem(asm.RFP, int16(eventTop-size+at), asm.R0, asm.DWord))
	}
	return append(ins, asm.StoreImm(asm.RFP, int16(eventTop-size), int64(kind), asm.Word))
}

// identify writes the pid in the agent's namespace and the start time of the
// task in R7 to the event, and leaves the program when the task is not in the
// agent's PID namespace or one below it. It uses R8.
func (b *builder) identify(pidAt, startAt int32) asm.Instructions {
	var ins asm.Instructions
	ins = append(ins, load(asm.R8, asm.DWord, asm.R7, b.taskPid)...)
	ins = append(ins, load(asm.R0, asm.Word, asm.R8, b.pidLevel)...)
	ins = append(ins, asm.JLT.Imm(asm.R0, int32(b.level), "out"))
	number := b.pidNumbers + int32(b.level)*16
	ins = append(ins, load(asm.R0, asm.DWord, asm.R8, number+b.upidNs)...)
	ins = append(ins, load(asm.R0, asm.Word, asm.R0, b.nsInum)...)
	// 32-bit comparison with an unsigned constant.
	ins = append(ins, asm.LoadImm(asm.R1, int64(b.pidInum), asm.DWord), asm.JNE.Reg(asm.R0, asm.R1, "out"))
	ins = append(ins, read(pidAt, 4, asm.R8, number)...)
	return append(ins, read(startAt, 8, asm.R7, b.taskStart)...)
}

func (b *builder) submit(size int32) asm.Instructions {
	return asm.Instructions{
		asm.LoadMapPtr(asm.R1, b.ring.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, eventTop-size),
		asm.Mov.Imm(asm.R3, size),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnRingbufOutput.Call(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("out"),
		asm.Return(),
	}
}

func argument(dst asm.Register, n int16) asm.Instruction {
	return asm.LoadMem(dst, asm.R6, n*8, asm.DWord)
}

// fork handles sched_process_fork(parent, child).
func (b *builder) fork() asm.Instructions {
	const event = eventTop - forkSize
	ins := asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1), argument(asm.R9, 1)}
	ins = append(ins, begin(forkSize, kindFork)...)
	ins = append(ins, b.leaderOnly(asm.R9)...)
	ins = append(ins, argument(asm.R7, 0))
	ins = append(ins, load(asm.R7, asm.DWord, asm.R7, b.taskLeader)...)
	ins = append(ins, b.identify(event+4, event+8)...)
	ins = append(ins, asm.Mov.Reg(asm.R7, asm.R9))
	ins = append(ins, b.identify(event+16, event+24)...)
	return append(ins, b.submit(forkSize)...)
}

// exec handles sched_process_exec(task, old pid, binprm).
func (b *builder) exec() asm.Instructions {
	const event = eventTop - execSize
	ins := asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}
	ins = append(ins, begin(execSize, kindExec)...)
	ins = append(ins, argument(asm.R7, 0))
	ins = append(ins, b.identify(event+4, event+8)...)
	ins = append(ins, argument(asm.R9, 2))
	ins = append(ins, load(asm.R9, asm.DWord, asm.R9, b.binprmFilename)...)
	ins = append(ins,
		asm.Mov.Reg(asm.R3, asm.R9),
		asm.Mov.Reg(asm.R1, asm.RFP),
		asm.Add.Imm(asm.R1, event+16),
		asm.Mov.Imm(asm.R2, nameSize),
		asm.FnProbeReadKernelStr.Call(),
	)
	return append(ins, b.submit(execSize)...)
}

// exit handles sched_process_exit(task).
func (b *builder) exit() asm.Instructions {
	const event = eventTop - exitSize
	ins := asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1), argument(asm.R9, 0)}
	ins = append(ins, begin(exitSize, kindExit)...)
	ins = append(ins, b.leaderOnly(asm.R9)...)
	ins = append(ins, asm.Mov.Reg(asm.R7, asm.R9))
	ins = append(ins, b.identify(event+4, event+8)...)
	return append(ins, b.submit(exitSize)...)
}

// leaderOnly leaves the program for a thread that is not a process's first.
func (b *builder) leaderOnly(task asm.Register) asm.Instructions {
	ins := load(asm.R7, asm.Word, task, b.taskPID)
	ins = append(ins, load(asm.R0, asm.Word, task, b.taskTGID)...)
	return append(ins, asm.JNE.Reg(asm.R0, asm.R7, "out"))
}

// socket handles inet_sock_set_state(sock, old state, new state). The caller of
// connect(2) is the current task when the state becomes SYN_SENT; the others
// come from interrupts, so there the network namespace decides.
func (b *builder) socket() asm.Instructions {
	const event = eventTop - socketSize
	ins := asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}
	ins = append(ins, begin(socketSize, kindSocket)...)
	ins = append(ins,
		argument(asm.R9, 0),
		argument(asm.R8, 2),
		asm.StoreMem(asm.RFP, event+16, asm.R9, asm.DWord),
		asm.StoreMem(asm.RFP, event+24, asm.R8, asm.Word),
		asm.JEq.Imm(asm.R8, stateSynSent, "connect"),
		asm.JEq.Imm(asm.R8, stateEstablished, "other"),
		asm.JNE.Imm(asm.R8, stateClose, "out"),
	)
	other := load(asm.R0, asm.DWord, asm.R9, b.net)
	other[0] = other[0].WithSymbol("other")
	ins = append(ins, other...)
	ins = append(ins, load(asm.R0, asm.Word, asm.R0, b.offsets.netInum)...)
	ins = append(ins,
		asm.LoadImm(asm.R1, int64(b.netInm), asm.DWord),
		asm.JNE.Reg(asm.R0, asm.R1, "out"),
		asm.Ja.Label("addresses"),
		asm.FnGetCurrentTask.Call().WithSymbol("connect"),
		asm.Mov.Reg(asm.R7, asm.R0),
	)
	ins = append(ins, load(asm.R7, asm.DWord, asm.R7, b.taskLeader)...)
	ins = append(ins, b.identify(event+4, event+8)...)
	family := read(event+28, 2, asm.R9, b.family)
	family[0] = family[0].WithSymbol("addresses")
	ins = append(ins, family...)
	ins = append(ins, read(event+30, 2, asm.R9, b.dport)...)
	ins = append(ins, read(event+32, 2, asm.R9, b.num)...)
	ins = append(ins,
		asm.LoadMem(asm.R0, asm.RFP, event+28, asm.Half),
		asm.JEq.Imm(asm.R0, 10, "six"),
	)
	ins = append(ins, read(event+40, 4, asm.R9, b.saddr)...)
	ins = append(ins, read(event+56, 4, asm.R9, b.daddr)...)
	ins = append(ins, asm.Ja.Label("send"))
	six := read(event+40, 16, asm.R9, b.v6saddr)
	six[0] = six[0].WithSymbol("six")
	ins = append(ins, six...)
	ins = append(ins, read(event+56, 16, asm.R9, b.v6daddr)...)
	send := b.submit(socketSize)
	send[0] = send[0].WithSymbol("send")
	return append(ins, send...)
}

// namespaceLevel runs a program once to learn how deep the agent's PID
// namespace is nested.
func namespaceLevel(o *offsets) (uint32, error) {
	ins := asm.Instructions{asm.FnGetCurrentTask.Call(), asm.Mov.Reg(asm.R7, asm.R0)}
	ins = append(ins, load(asm.R7, asm.DWord, asm.R7, o.taskPid)...)
	ins = append(ins, load(asm.R0, asm.Word, asm.R7, o.pidLevel)...)
	ins = append(ins, asm.Return())
	prog, err := newProgram("cordon_level", ins)
	if err != nil {
		return 0, err
	}
	defer prog.Close()
	level, err := prog.Run(&ebpf.RunOptions{Context: make([]byte, 8)})
	if err != nil {
		return 0, fmt.Errorf("learn the depth of the PID namespace: %w", err)
	}
	return level, nil
}

func newProgram(name string, ins asm.Instructions) (*ebpf.Program, error) {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: name, Type: ebpf.RawTracepoint, Instructions: ins, License: "GPL"})
	if err != nil {
		return nil, fmt.Errorf("load BPF program %s: %w", name, err)
	}
	return prog, nil
}
