package e2e

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cordon-security/cordon/agent/link"
	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
	"github.com/cordon-security/cordon/mitigator/fleet"
)

func (m *mitigator) awaitResult(a *agent, taskID string) {
	m.t.Helper()
	eventually(m.t, "the result of "+taskID+" comes in", func() bool { return m.lifecycle.Result(taskID) != nil })
	eventually(m.t, "the outbox is empty", func() bool { return a.files("outbox") == 0 })
}

func TestTaskIsPushedAndReported(t *testing.T) {
	m := newMitigator(t).start()
	a := m.enrol()
	m.give(a.id, "waiting")
	a.start()
	m.awaitResult(a, "waiting")
	m.give(a.id, "pushed")
	m.awaitResult(a, "pushed")
	if n := m.lifecycle.Reports("pushed"); n != 1 {
		t.Fatalf("reported %d times", n)
	}
	if r := m.lifecycle.Result("pushed"); r.GetStartedAt() == nil || r.GetFinishedAt() == nil || r.GetAgentVersion() != "1" {
		t.Fatalf("the result is not complete: %v", r)
	}
	stored, err := m.store.Agent(context.Background(), a.id)
	if err != nil || stored.Observer != "bpf" || stored.Version != "1" || !m.fleet.Connected(a.id) || m.fleet.ConnectedCount() != 1 {
		t.Fatalf("the mitigator does not know its agent: %+v, %v", stored, err)
	}
	eventually(t, "nothing is left of the tasks", func() bool { return a.files("accepted") == 0 })
}

func TestResultsThatNobodyMade(t *testing.T) {
	m := newMitigator(t).start()
	a := m.enrol()
	a.executor.then(func(_ context.Context, task *wirev1.Task) *wirev1.TaskResult {
		if task.GetId() == "panic" {
			panic("on purpose")
		}
		return nil
	})
	a.start()
	m.give(a.id, "panic")
	m.give(a.id, "nil")
	late := newTask("late")
	late.Deadline = timestamppb.New(time.Now().Add(-time.Second))
	m.lifecycle.Add(a.id, late)
	m.fleet.Wake(a.id)
	for _, id := range []string{"panic", "nil", "late"} {
		m.awaitResult(a, id)
		if r := m.lifecycle.Result(id); r.GetStatus() != wirev1.TaskStatus_TASK_STATUS_FAILED || len(r.GetReasons()) == 0 {
			t.Errorf("%s: %v, want failed and why", id, r)
		}
	}
	if a.executor.count("late") != 0 {
		t.Error("a task was begun after its deadline")
	}
}

// An agent whose clock is wrong has as long as any other.
func TestLimitCountsFromReceipt(t *testing.T) {
	m := newMitigator(t).start()
	a := m.enrol()
	proceed := make(chan struct{})
	a.executor.then(func(ctx context.Context, task *wirev1.Task) *wirev1.TaskResult {
		switch task.GetId() {
		case "clock ahead":
			if ctx.Err() != nil {
				t.Errorf("the task's time was over: %v", context.Cause(ctx))
			}
			return done()
		case "clock behind":
			<-ctx.Done()
			if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
				t.Errorf("the task ended with %v, want its limit", ctx.Err())
			}
			return &wirev1.TaskResult{Status: wirev1.TaskStatus_TASK_STATUS_UNRESOLVED}
		default:
			<-proceed
			return done()
		}
	})
	a.start()
	give := func(id string, deadline, limit time.Duration) {
		task := newTask(id)
		task.Deadline, task.Limit = timestamppb.New(time.Now().Add(deadline)), durationpb.New(limit)
		m.lifecycle.Add(a.id, task)
		m.fleet.Wake(a.id)
	}
	give("clock ahead", -time.Minute, time.Hour)
	m.awaitResult(a, "clock ahead")
	if s := m.lifecycle.Result("clock ahead").GetStatus(); s != wirev1.TaskStatus_TASK_STATUS_DONE {
		t.Errorf("status %v", s)
	}
	give("clock behind", time.Hour, 50*time.Millisecond)
	m.awaitResult(a, "clock behind")
	give("no time", time.Hour, 0)
	m.awaitResult(a, "no time")

	// Waiting for a worker counts.
	m.give(a.id, "first")
	m.give(a.id, "second")
	eventually(t, "both workers are busy", func() bool { return a.executor.count("first")+a.executor.count("second") == 2 })
	limit := 50 * time.Millisecond
	give("queued", time.Hour, limit)
	eventually(t, "the third waits", func() bool { return a.files("accepted") == 3 })
	time.Sleep(limit)
	close(proceed)
	m.awaitResult(a, "queued")
	for _, id := range []string{"no time", "queued"} {
		if s := m.lifecycle.Result(id).GetStatus(); s != wirev1.TaskStatus_TASK_STATUS_FAILED || a.executor.count(id) != 0 {
			t.Errorf("%s: status %v, carried out %d times", id, s, a.executor.count(id))
		}
	}
}

// A task that is carried out again by an agent that was started anew has all of
// its time again, even where an earlier deadline has passed.
func TestLimitStartsAnewWithTheAgent(t *testing.T) {
	m := newMitigator(t).start()
	a := m.enrol()
	deadlines := make(chan time.Time, 2)
	a.executor.then(func(ctx context.Context, _ *wirev1.Task) *wirev1.TaskResult {
		deadline, _ := ctx.Deadline()
		deadlines <- deadline
		<-ctx.Done()
		return nil
	})
	a.start()
	task := newTask("1")
	task.Deadline, task.Limit = timestamppb.New(time.Now()), durationpb.New(time.Hour)
	m.lifecycle.Add(a.id, task)
	m.fleet.Wake(a.id)
	eventually(t, "the task runs", func() bool { return a.executor.count("1") == 1 })
	first := <-deadlines
	a.stop()
	a.start()
	eventually(t, "the task runs again", func() bool { return a.executor.count("1") == 2 })
	if second := <-deadlines; !second.After(first) || time.Until(first) < time.Minute {
		t.Fatalf("the task had until %v, then until %v, want an hour each time", first, second)
	}
}

func TestAgentsAreApart(t *testing.T) {
	m := newMitigator(t).start()
	a, b := m.enrol(), m.enrol()
	m.give(b.id, "of-b")
	m.give(a.id, "of-a")
	c := client(t, m.address, a.certificate())
	_, err := c.Report(t.Context(), connect.NewRequest(&wirev1.ReportRequest{Result: &wirev1.TaskResult{TaskId: "of-b"}}))
	if connect.CodeOf(err) != connect.CodePermissionDenied || m.lifecycle.Result("of-b") != nil {
		t.Fatalf("agent A reported B's task: %v", err)
	}
	in, err := c.Tasks(t.Context(), connect.NewRequest(&wirev1.TasksRequest{TaskIds: []string{"of-b"}}))
	if err != nil {
		t.Fatal(err)
	}
	var tasks, cancels []string
	keepAlives := 0
	for keepAlives < 3 && in.Receive() {
		switch msg := in.Msg(); {
		case msg.GetTask() != nil:
			tasks = append(tasks, msg.GetTask().GetId())
		case msg.GetCancel() != nil:
			cancels = append(cancels, msg.GetCancel().GetTaskId())
		default:
			keepAlives++
		}
	}
	if strings.Join(tasks, " ") != "of-a" || strings.Join(cancels, " ") != "of-b" {
		t.Fatalf("agent A got tasks %v, cancels %v", tasks, cancels)
	}
	// Its newer stream takes over.
	second, err := c.Tasks(t.Context(), connect.NewRequest(&wirev1.TasksRequest{}))
	if err != nil || !second.Receive() {
		t.Fatalf("no second stream: %v", err)
	}
	for in.Receive() {
		continue
	}
	if connect.CodeOf(in.Err()) != connect.CodeAborted {
		t.Fatalf("the first stream ended with %v", in.Err())
	}
	if !m.fleet.Connected(a.id) || !m.lifecycle.Connected(a.id) {
		t.Fatal("the agent counts as gone")
	}
}

func TestRevokeCutsAndRefuses(t *testing.T) {
	m := newMitigator(t).start()
	a, b := m.enrol().start(), m.enrol().start()
	eventually(t, "both are connected", func() bool { return m.lifecycle.Connected(a.id) && m.lifecycle.Connected(b.id) })
	raw := client(t, m.address, a.certificate())
	in, err := raw.Tasks(context.Background(), connect.NewRequest(&wirev1.TasksRequest{}))
	if err != nil || !in.Receive() {
		t.Fatalf("no stream: %v", err)
	}
	for range 2 {
		if err := m.fleet.Revoke(context.Background(), a.id, "admin:test", "lost"); err != nil {
			t.Fatal(err)
		}
	}
	for in.Receive() {
		continue
	}
	if in.Err() == nil {
		t.Fatal("the stream ended as if all were well")
	}
	if _, err := raw.Report(t.Context(), connect.NewRequest(&wirev1.ReportRequest{Result: &wirev1.TaskResult{TaskId: "1"}})); err == nil {
		t.Fatal("a revoked agent reported")
	}
	eventually(t, "the agent has been refused again and again", func() bool {
		return a.log.count("refuses this agent's certificate") > 2
	})
	if m.lifecycle.Connected(a.id) || m.fleet.Connected(a.id) || !m.fleet.Connected(b.id) {
		t.Fatal("the wrong agents are connected")
	}
	if err := m.fleet.Revoke(context.Background(), "nobody", "admin:test", ""); !errors.Is(err, fleet.ErrAgentUnknown) {
		t.Fatalf("error %v, want ErrAgentUnknown", err)
	}
}

func TestMitigatorRestart(t *testing.T) {
	m := newMitigator(t).start()
	a := m.enrol()
	proceed := make(chan struct{})
	a.executor.then(func(context.Context, *wirev1.Task) *wirev1.TaskResult {
		<-proceed
		return done()
	})
	a.start()
	m.give(a.id, "1")
	eventually(t, "the task runs", func() bool { return a.executor.count("1") == 1 })
	m.stop()
	close(proceed)
	eventually(t, "the result waits", func() bool { return a.files("outbox") == 1 })
	m.lifecycle.Add(a.id, newTask("2"))
	m.start()
	m.awaitResult(a, "1")
	m.awaitResult(a, "2")
	for _, id := range []string{"1", "2"} {
		if a.executor.count(id) != 1 || m.lifecycle.Reports(id) != 1 {
			t.Errorf("%s: carried out %d times, reported %d times", id, a.executor.count(id), m.lifecycle.Reports(id))
		}
	}
}

func TestAgentDiesBetweenExecuteAndReport(t *testing.T) {
	m := newMitigator(t).start()
	a := m.enrol().start()
	m.lifecycle.FailReports(errors.New("disk on fire"))
	m.give(a.id, "1")
	eventually(t, "the result waits", func() bool { return a.files("outbox") == 1 })
	a.stop()
	// The mitigator too, so that no report of the dead agent is still on its way
	// in when reports are taken again: it would rightly be taken, and counted.
	m.stop()
	m.lifecycle.FailReports(nil)
	m.start()
	a.start()
	m.awaitResult(a, "1")
	if a.executor.count("1") != 1 || m.lifecycle.Reports("1") != 1 {
		t.Fatalf("carried out %d times, reported %d times", a.executor.count("1"), m.lifecycle.Reports("1"))
	}
}

func TestAgentStopsDuringATask(t *testing.T) {
	m := newMitigator(t).start()
	a := m.enrol()
	a.executor.then(func(ctx context.Context, _ *wirev1.Task) *wirev1.TaskResult {
		<-ctx.Done()
		if !errors.Is(context.Cause(ctx), link.ErrStopping) {
			t.Errorf("cause %v, want ErrStopping", context.Cause(ctx))
		}
		return &wirev1.TaskResult{Status: wirev1.TaskStatus_TASK_STATUS_UNRESOLVED}
	})
	a.start()
	m.give(a.id, "1")
	eventually(t, "the task runs", func() bool { return a.executor.count("1") == 1 })
	a.stop()
	if a.files("accepted") != 1 || a.files("outbox") != 0 {
		t.Fatal("the task is not kept as unfinished")
	}
	a.executor.then(nil)
	a.start()
	m.awaitResult(a, "1")
	if a.executor.count("1") != 2 || m.lifecycle.Result("1").GetStatus() != wirev1.TaskStatus_TASK_STATUS_DONE {
		t.Fatalf("carried out %d times, result %v", a.executor.count("1"), m.lifecycle.Result("1"))
	}
}

// A mitigator that came back from a backup asks again for what was done.
func TestDoneTaskIsReportedAgain(t *testing.T) {
	m := newMitigator(t).start()
	a := m.enrol().start()
	m.give(a.id, "1")
	m.awaitResult(a, "1")
	a.stop()
	m.lifecycle.Forget("1")
	a.start()
	m.awaitResult(a, "1")
	if a.executor.count("1") != 1 || m.lifecycle.Reports("1") != 2 {
		t.Fatalf("carried out %d times, reported %d times", a.executor.count("1"), m.lifecycle.Reports("1"))
	}
}

func TestCancel(t *testing.T) {
	m := newMitigator(t).start()
	a := m.enrol()
	a.executor.then(func(ctx context.Context, _ *wirev1.Task) *wirev1.TaskResult {
		<-ctx.Done()
		status := wirev1.TaskStatus_TASK_STATUS_FAILED
		if errors.Is(context.Cause(ctx), link.ErrCancelled) {
			status = wirev1.TaskStatus_TASK_STATUS_CANCELLED
		}
		return &wirev1.TaskResult{Status: status}
	})
	a.start()
	m.give(a.id, "now")
	m.give(a.id, "away")
	eventually(t, "both run", func() bool { return a.executor.count("now") == 1 && a.executor.count("away") == 1 })
	m.lifecycle.Withdraw("now")
	m.fleet.Wake(a.id)
	m.awaitResult(a, "now")
	if s := m.lifecycle.Result("now").GetStatus(); s != wirev1.TaskStatus_TASK_STATUS_CANCELLED {
		t.Fatalf("status %v", s)
	}
	// What is called back while the agent is away, it learns when it is back.
	m.stop()
	m.lifecycle.Withdraw("away")
	m.start()
	m.awaitResult(a, "away")
	if s := m.lifecycle.Result("away").GetStatus(); s != wirev1.TaskStatus_TASK_STATUS_CANCELLED {
		t.Fatalf("status %v", s)
	}
}

// A stream calls back what it has carried and what is no longer wanted, once,
// and leaves the rest alone.
func TestCallBackOnTheWire(t *testing.T) {
	m := newMitigator(t).start()
	a := m.enrol()
	m.lifecycle.Add(a.id, newTask("1"))
	m.lifecycle.Add(a.id, newTask("2"))
	in, err := client(t, m.address, a.certificate()).Tasks(t.Context(), connect.NewRequest(&wirev1.TasksRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	read := func(until func(*wirev1.TasksResponse) bool) {
		t.Helper()
		for in.Receive() {
			msg := in.Msg()
			if id := msg.GetTask().GetId(); id != "" {
				got = append(got, "task "+id)
			}
			if id := msg.GetCancel().GetTaskId(); id != "" {
				got = append(got, "cancel "+id)
			}
			if until(msg) {
				return
			}
		}
		t.Fatalf("the stream ended with %v after %v", in.Err(), got)
	}
	task := func(id string) func(*wirev1.TasksResponse) bool {
		return func(msg *wirev1.TasksResponse) bool { return msg.GetTask().GetId() == id }
	}
	read(task("2"))
	m.lifecycle.Withdraw("1")
	m.fleet.Wake(a.id)
	m.give(a.id, "3")
	read(task("3"))
	m.give(a.id, "4")
	read(task("4"))
	if all := strings.Join(got, ", "); all != "task 1, task 2, cancel 1, task 3, task 4" {
		t.Fatalf("the stream carried %s", all)
	}
}

func TestOversizedMessages(t *testing.T) {
	m := newMitigator(t).start()
	a := m.enrol()
	m.lifecycle.Add(a.id, newTask("1"))
	c := client(t, m.address, a.certificate())
	huge := strings.Repeat("x", fleet.MaxMessageSize)
	_, err := c.Report(t.Context(), connect.NewRequest(&wirev1.ReportRequest{Result: &wirev1.TaskResult{TaskId: "1", Reasons: []string{huge}}}))
	if connect.CodeOf(err) != connect.CodeResourceExhausted || !strings.Contains(err.Error(), "larger than") {
		t.Fatalf("error %v, want one about the size", err)
	}
	// The agent keeps the whole and reports what fits.
	a.executor.then(func(context.Context, *wirev1.Task) *wirev1.TaskResult {
		r := done()
		for range 100 {
			r.Objects = append(r.Objects, &wirev1.Object{Name: huge[:100<<10]})
		}
		return r
	})
	a.start()
	m.awaitResult(a, "1")
	r := m.lifecycle.Result("1")
	if n := len(r.GetObjects()); n == 0 || n == 100 || r.GetStatus() != wirev1.TaskStatus_TASK_STATUS_DONE || !strings.Contains(r.GetReasons()[0], "of 100 objects") {
		t.Fatalf("%d objects, status %v, reasons %v", n, r.GetStatus(), r.GetReasons())
	}
	if a.files("refused") != 1 {
		t.Fatal("the whole result is not kept")
	}
}

func TestMalformedCallsAreRefused(t *testing.T) {
	m := newMitigator(t).start()
	a := m.enrol()
	c := client(t, m.address, a.certificate())
	for name, id := range map[string]string{"no id": "", "long id": strings.Repeat("x", 200)} {
		_, err := c.Report(t.Context(), connect.NewRequest(&wirev1.ReportRequest{Result: &wirev1.TaskResult{TaskId: id}}))
		if connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%s: error %v", name, err)
		}
	}
	for name, b := range map[string]*wirev1.AddressBinding{
		"no address": {}, "short address": {Address: []byte{1, 2, 3}}, "long MAC": {Address: []byte{1, 2, 3, 4}, Mac: make([]byte, 8)},
		"broken time": {Address: []byte{1, 2, 3, 4}, SeenAt: &timestamppb.Timestamp{Nanos: -1}},
	} {
		_, err := c.Observe(t.Context(), connect.NewRequest(&wirev1.ObserveRequest{Bindings: []*wirev1.AddressBinding{b}}))
		if connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// A result that the mitigator will never take does not hold up the others.
func TestRefusedResultIsSetAside(t *testing.T) {
	m := newMitigator(t).start()
	a := m.enrol()
	proceed := make(chan struct{})
	a.executor.then(func(_ context.Context, task *wirev1.Task) *wirev1.TaskResult {
		if task.GetId() == "gone" {
			<-proceed
		}
		return done()
	})
	a.start()
	m.give(a.id, "gone")
	eventually(t, "it runs", func() bool { return a.executor.count("gone") == 1 })
	m.lifecycle.Add("somebody-else", newTask("gone"))
	close(proceed)
	eventually(t, "the result is set aside", func() bool { return a.files("refused") == 1 })
	m.give(a.id, "next")
	m.awaitResult(a, "next")
}

func TestFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root to mount a tmpfs")
		}
		t.Skip("needs root to mount a tmpfs")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k,mode=0700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	filler := filepath.Join(dir, "filler")
	fill := func() {
		f, err := os.Create(filler)
		if err != nil {
			t.Error(err)
			return
		}
		for size := 4096; size > 0; {
			if _, err := f.Write(make([]byte, size)); err != nil {
				size /= 2
			}
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	m := newMitigator(t).start()
	a := m.enrolIn(dir)
	a.start()
	eventually(t, "the agent is connected", func() bool { return m.lifecycle.Connected(a.id) })

	fill()
	m.give(a.id, "not-taken")
	eventually(t, "the agent says why it takes nothing", func() bool { return a.log.count("task not taken") > 0 })
	if a.log.count("no space left on device") == 0 || a.executor.count("not-taken") != 0 || m.lifecycle.Result("not-taken") != nil {
		t.Fatal("the error is not clear, or something was done")
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	m.awaitResult(a, "not-taken")

	a.executor.then(func(context.Context, *wirev1.Task) *wirev1.TaskResult {
		fill()
		r := done()
		r.Reasons = []string{strings.Repeat("x", 8192)}
		return r
	})
	m.give(a.id, "not-kept")
	eventually(t, "the agent says why it does not report", func() bool { return a.log.count("cannot be written to the outbox") > 0 })
	if m.lifecycle.Result("not-kept") != nil {
		t.Fatal("a result was reported that is not on disk")
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	m.awaitResult(a, "not-kept")
	if n := a.executor.count("not-kept"); n != 1 {
		t.Fatalf("carried out %d times", n)
	}
}

func TestDeadConnectionIsNoticed(t *testing.T) {
	m := newMitigator(t).start()
	a := m.enrol()
	p := newProxy(t, m.address)
	a.server = p.listener.Addr().String()
	a.start()
	eventually(t, "the agent is connected", func() bool { return m.lifecycle.Connected(a.id) })
	p.silent.Store(true)
	eventually(t, "the agent notices", func() bool { return a.log.count("fell silent") > 0 })
	p.silent.Store(false)
	m.give(a.id, "1")
	m.awaitResult(a, "1")
}

func TestStoreFailureIsNoVerdict(t *testing.T) {
	m := newMitigator(t).start()
	a := m.enrol().start()
	eventually(t, "the agent is connected", func() bool { return m.lifecycle.Connected(a.id) })
	m.store.Fail(errors.New("disk on fire"))
	_, err := client(t, m.address, a.certificate()).Observe(t.Context(), connect.NewRequest(&wirev1.ObserveRequest{}))
	if connect.CodeOf(err) != connect.CodeUnavailable || strings.Contains(err.Error(), "fire") {
		t.Fatalf("error %v, want unavailable without the inside", err)
	}
	m.store.Fail(nil)
	m.give(a.id, "1")
	m.awaitResult(a, "1")
}

func TestAddressesAreTold(t *testing.T) {
	m := newMitigator(t).start()
	a := m.enrol()
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	old, now := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::2")
	a.address.set(link.Binding{Address: old, MAC: mac})
	a.start()
	told := func(addr netip.Addr, present bool) func() bool {
		return func() bool {
			all := m.lifecycle.Observed(a.id)
			if len(all) == 0 {
				return false
			}
			for _, b := range all[len(all)-1].GetBindings() {
				got, _ := netip.AddrFromSlice(b.GetAddress())
				if got == addr && b.GetPresent() == present && net.HardwareAddr(b.GetMac()).String() == mac.String() {
					return true
				}
			}
			return false
		}
	}
	eventually(t, "the first address is told", told(old, true))
	a.address.set(link.Binding{Address: now, MAC: mac})
	eventually(t, "the second address is told", told(now, true))
	if !told(old, false)() {
		t.Fatal("the end of the first address is not told")
	}
}

func TestNothingLeaksOnDisconnect(t *testing.T) {
	m := newMitigator(t).start()
	a := m.enrol()
	cycle := func() {
		a.start()
		eventually(t, "the agent is connected", func() bool { return m.lifecycle.Connected(a.id) })
		a.stop()
		eventually(t, "the agent is gone", func() bool { return !m.lifecycle.Connected(a.id) && !m.fleet.Connected(a.id) })
	}
	cycle()
	var before int
	eventually(t, "it settles", func() bool {
		n := runtime.NumGoroutine()
		settled := n == before
		before = n
		return settled
	})
	for range 30 {
		cycle()
	}
	eventually(t, "the goroutines are gone", func() bool { return runtime.NumGoroutine() <= before+2 })
}
