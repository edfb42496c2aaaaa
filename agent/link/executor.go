package link

import (
	"context"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

// Executor carries one task out. It is called from several goroutines, never
// twice at a time for one task.
//
// The context ends when the task's limit since its receipt has passed, or, where
// it has none, at its deadline (both context.DeadlineExceeded), when the
// mitigator calls the task back (context.Cause is ErrCancelled), and when the
// agent stops (context.Cause is ErrStopping). Execute then returns soon, with
// what it reached. After ErrStopping only a result with TASK_STATUS_DONE is
// kept: any other task is delivered, and carried out, again. The same happens
// when the agent dies, so Execute must be idempotent.
//
// A result without a task id gets the task's.
type Executor interface {
	Execute(ctx context.Context, task *wirev1.Task) *wirev1.TaskResult
}
