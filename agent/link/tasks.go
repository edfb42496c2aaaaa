package link

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

// Why a task's context ended; see Executor.
var (
	ErrCancelled = errors.New("the mitigator called the task back")
	ErrStopping  = errors.New("the agent is stopping")
)

const (
	// maxQueue bounds the tasks that wait for a worker.
	maxQueue = 1000
	// Tasks that could not be taken, and results that could not be kept, are
	// tried again after this; it doubles up to the bound.
	retryBase = 2 * time.Second
	retryCap  = 60 * time.Second
)

// job is one task that was taken.
type job struct {
	task     *wirev1.Task
	received time.Time
	ctx      context.Context
	cancel   context.CancelCauseFunc
}

// deadline is when the agent gives up. Where the task has a limit, no clock but
// the agent's monotonic one has a say in it.
func (j *job) deadline() (time.Time, bool) {
	if limit := j.task.GetLimit(); limit != nil {
		return j.received.Add(limit.AsDuration()), true
	}
	if deadline := j.task.GetDeadline(); deadline != nil {
		return deadline.AsTime(), true
	}
	return time.Time{}, false
}

// taskSet holds the tasks that wait or run, each once.
type taskSet struct {
	link *Link
	wg   sync.WaitGroup

	mu      sync.Mutex
	ctx     context.Context
	jobs    map[string]*job
	queue   []*job
	ready   *sync.Cond
	retry   *time.Timer
	refused int // times in a row that a task could not be taken
}

func newTaskSet(l *Link) *taskSet {
	s := &taskSet{link: l, jobs: make(map[string]*job)}
	s.ready = sync.NewCond(&s.mu)
	return s
}

func (s *taskSet) start(ctx context.Context) {
	s.mu.Lock()
	s.ctx = ctx
	s.mu.Unlock()
	for range s.link.options.Workers {
		s.wg.Go(s.work)
	}
	context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.ready.Broadcast()
	})
}

func (s *taskSet) wait() {
	s.wg.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.retry != nil {
		s.retry.Stop()
	}
}

// offer takes a task that was delivered. A task that waits or runs already is
// left alone, one that has a result is only reported again.
func (s *taskSet) offer(task *wirev1.Task) {
	received := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	id := task.GetId()
	if _, running := s.jobs[id]; running || s.ctx.Err() != nil {
		return
	}
	found, err := s.link.spool.hasResult(id)
	if found {
		signal(s.link.report)
		return
	}
	if err == nil && len(s.queue) >= maxQueue {
		err = fmt.Errorf("%d tasks wait already", maxQueue)
	}
	if err == nil {
		err = s.link.spool.accept(task)
	}
	if err != nil {
		s.deliverAgain(id, err)
		return
	}
	s.refused = 0
	j := &job{task: task, received: received}
	j.ctx, j.cancel = context.WithCancelCause(s.ctx)
	s.jobs[id] = j
	s.queue = append(s.queue, j)
	s.ready.Signal()
}

// deliverAgain leaves the task with the mitigator and asks for it later. The
// caller holds the lock.
func (s *taskSet) deliverAgain(id string, err error) {
	pause := min(retryCap, retryBase<<min(s.refused, 10))
	s.refused++
	s.link.log.Error("task not taken; it stays undone at the mitigator and is asked for again. Is the disk full?",
		"task", id, "state_dir", s.link.options.StateDir, "error", err, "retry_in", pause)
	if s.retry != nil {
		s.retry.Stop()
	}
	s.retry = time.AfterFunc(pause, func() { signal(s.link.again) })
}

// cancel calls a task back. One that we do not hold is forgotten.
func (s *taskSet) cancel(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if j, ok := s.jobs[id]; ok {
		j.cancel(ErrCancelled)
		return
	}
	if err := s.link.spool.drop(id); err != nil {
		s.link.log.Error("cannot forget a task that was called back", "task", id, "error", err)
	}
}

func (s *taskSet) next() *job {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.queue) == 0 && s.ctx.Err() == nil {
		s.ready.Wait()
	}
	if s.ctx.Err() != nil {
		return nil
	}
	j := s.queue[0]
	s.queue[0] = nil
	s.queue = s.queue[1:]
	return j
}

func (s *taskSet) work() {
	for j := s.next(); j != nil; j = s.next() {
		s.carryOut(j)
		j.cancel(nil)
		s.mu.Lock()
		delete(s.jobs, j.task.GetId())
		s.mu.Unlock()
	}
}

func (s *taskSet) carryOut(j *job) {
	result := s.execute(j)
	if s.ctx.Err() != nil && result.GetStatus() != wirev1.TaskStatus_TASK_STATUS_DONE {
		return
	}
	s.keep(result)
}

// execute returns a result in every case.
func (s *taskSet) execute(j *job) (result *wirev1.TaskResult) {
	started := timestamppb.Now()
	defer func() {
		if cause := recover(); cause != nil {
			s.link.log.Error("carrying a task out failed inside", "task", j.task.GetId(), "cause", cause, "stack", string(debug.Stack()))
			result = failed(wirev1.TaskStatus_TASK_STATUS_FAILED, "the agent failed inside; its log says where")
		}
		s.complete(result, j.task, started)
	}()
	ctx := j.ctx
	if deadline, ok := j.deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
	switch {
	case errors.Is(context.Cause(ctx), ErrCancelled):
		return failed(wirev1.TaskStatus_TASK_STATUS_CANCELLED, "called back before the agent began")
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return failed(wirev1.TaskStatus_TASK_STATUS_FAILED, "the time for the task had passed before the agent could begin")
	}
	result = s.link.options.Executor.Execute(ctx, j.task)
	if result == nil {
		return failed(wirev1.TaskStatus_TASK_STATUS_FAILED, "the agent came to no result")
	}
	return result
}

func failed(status wirev1.TaskStatus, reason string) *wirev1.TaskResult {
	return &wirev1.TaskResult{Status: status, Reasons: []string{reason}}
}

func (s *taskSet) complete(result *wirev1.TaskResult, task *wirev1.Task, started *timestamppb.Timestamp) {
	result.TaskId = task.GetId()
	if result.StartedAt == nil {
		result.StartedAt = started
	}
	if result.FinishedAt == nil {
		result.FinishedAt = timestamppb.Now()
	}
	if result.AgentVersion == "" {
		result.AgentVersion = s.link.options.Version
	}
}

// keep puts the result into the outbox, and tries until it is there: nothing is
// reported that is not on disk. If the agent stops first, the mitigator
// delivers the task again.
func (s *taskSet) keep(result *wirev1.TaskResult) {
	for pause := retryBase; ; pause = min(retryCap, 2*pause) {
		err := s.link.spool.finish(result)
		if err == nil {
			signal(s.link.report)
			return
		}
		s.link.log.Error("a result cannot be written to the outbox, so it is not reported yet. Is the disk full?",
			"task", result.GetTaskId(), "state_dir", s.link.options.StateDir, "error", err, "retry_in", pause)
		if !sleep(s.ctx, pause) {
			return
		}
	}
}
