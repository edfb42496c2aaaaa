package link

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cordon-security/cordon/internal/durablefile"
	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

const (
	// maxOutbox bounds results that wait; at the bound no new task is taken,
	// and the mitigator keeps it.
	maxOutbox = 1000
	// The acknowledged and the refused results that are kept, oldest dropped.
	maxDone      = 256
	maxDoneBytes = 32 << 20
	maxRefused   = 64

	fileSuffix = ".pb"
)

var errOutboxFull = errors.New("too many results wait for the mitigator")

// spool is the agent's memory of tasks on disk: one file a task, moved from
// folder to folder. Its methods are safe to call for different tasks at the
// same time.
type spool struct{ accepted, outbox, done, refused string }

func openSpool(stateDir string) (*spool, error) {
	s := &spool{
		accepted: filepath.Join(stateDir, "accepted"), outbox: filepath.Join(stateDir, "outbox"),
		done: filepath.Join(stateDir, "done"), refused: filepath.Join(stateDir, "refused"),
	}
	for _, dir := range []string{s.accepted, s.outbox, s.done, s.refused} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("open the agent's task folders: %w", err)
		}
		if err := durablefile.RemoveTemporary(dir); err != nil {
			return nil, fmt.Errorf("open the agent's task folders: %w", err)
		}
	}
	return s, nil
}

// fileName is safe whatever the task's id holds.
func fileName(taskID string) string {
	sum := sha256.Sum256([]byte(taskID))
	return hex.EncodeToString(sum[:16]) + fileSuffix
}

// accept notes that the task is about to be carried out.
func (s *spool) accept(task *wirev1.Task) error {
	names, err := files(s.outbox)
	if err != nil {
		return err
	}
	if len(names) >= maxOutbox {
		return errOutboxFull
	}
	data, err := proto.Marshal(task)
	if err != nil {
		return err
	}
	return durablefile.Write(filepath.Join(s.accepted, fileName(task.GetId())), data)
}

// unfinished returns the ids of the tasks that were accepted and have no result.
func (s *spool) unfinished() ([]string, error) {
	names, err := files(s.accepted)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, name := range names {
		var task wirev1.Task
		data, err := os.ReadFile(filepath.Join(s.accepted, name))
		if err != nil {
			return nil, err
		}
		if proto.Unmarshal(data, &task) == nil && fileName(task.GetId()) == name {
			ids = append(ids, task.GetId())
		}
	}
	return ids, nil
}

// drop forgets an accepted task.
func (s *spool) drop(taskID string) error {
	return removeFile(filepath.Join(s.accepted, fileName(taskID)))
}

// finish puts the result into the outbox, durably, and then forgets that the
// task was accepted.
func (s *spool) finish(result *wirev1.TaskResult) error {
	full, err := proto.Marshal(result)
	if err != nil {
		// No later try can send it, so the mitigator learns that instead.
		result = unsendable(result, err)
		full, err = proto.Marshal(result)
	}
	if err != nil {
		return err
	}
	name := fileName(result.GetTaskId())
	fitting := shrink(result)
	if fitting != result {
		if err := s.keepRefused(name, full); err != nil {
			return err
		}
		if full, err = proto.Marshal(fitting); err != nil {
			return err
		}
	}
	if err := durablefile.Write(filepath.Join(s.outbox, name), full); err != nil {
		return err
	}
	return s.drop(result.GetTaskId())
}

// unsendable stands for a result that cannot be written as a message. What the
// task did is in the agent's journal, so the mitigator must not take it as done.
func unsendable(result *wirev1.TaskResult, cause error) *wirev1.TaskResult {
	r := failed(wirev1.TaskStatus_TASK_STATUS_FAILED, strings.ToValidUTF8(
		fmt.Sprintf("the agent's result cannot be sent, which is a fault of the agent; its journal has what was done: %v", cause), "\uFFFD"))
	r.TaskId, r.StartedAt, r.FinishedAt = result.GetTaskId(), result.GetStartedAt(), result.GetFinishedAt()
	r.AgentVersion = strings.ToValidUTF8(result.GetAgentVersion(), "\uFFFD")
	return r
}

// hasResult says whether a result of the task is on disk. One that was
// acknowledged goes back to the outbox, to be reported again.
func (s *spool) hasResult(taskID string) (bool, error) {
	name := fileName(taskID)
	_, err := os.Stat(filepath.Join(s.outbox, name))
	if err == nil {
		return true, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	for _, dir := range []string{s.done, s.refused} {
		err = s.move(dir, s.outbox, name)
		if err == nil {
			return true, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	return false, nil
}

// waiting returns the outbox's file names, oldest first.
func (s *spool) waiting() ([]string, error) { return files(s.outbox) }

// result reads one waiting result.
func (s *spool) result(name string) (*wirev1.TaskResult, error) {
	data, err := os.ReadFile(filepath.Join(s.outbox, name))
	if err != nil {
		return nil, err
	}
	var r wirev1.TaskResult
	if err := proto.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("outbox file %s is damaged: %w", name, err)
	}
	return &r, nil
}

// acknowledged moves a result out of the outbox.
func (s *spool) acknowledged(name string) error {
	if err := s.move(s.outbox, s.done, name); err != nil {
		return err
	}
	return prune(s.done, maxDone, maxDoneBytes)
}

// setAside moves a result that cannot be reported out of the way.
func (s *spool) setAside(name string) error {
	if err := s.move(s.outbox, s.refused, name); err != nil {
		return err
	}
	return prune(s.refused, maxRefused, maxRefused*maxMessageSize)
}

func (s *spool) keepRefused(name string, data []byte) error {
	if err := durablefile.Write(filepath.Join(s.refused, "full-"+name), data); err != nil {
		return err
	}
	return prune(s.refused, maxRefused, maxRefused*maxMessageSize)
}

func (s *spool) move(from, to, name string) error {
	if err := os.Rename(filepath.Join(from, name), filepath.Join(to, name)); err != nil {
		return err
	}
	// Becomes the youngest, so that pruning goes by when it came here.
	now := time.Now()
	if err := os.Chtimes(filepath.Join(to, name), now, now); err != nil {
		return err
	}
	return errors.Join(durablefile.SyncDir(from), durablefile.SyncDir(to))
}

func removeFile(path string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return durablefile.SyncDir(filepath.Dir(path))
}

type fileAge struct {
	name string
	at   time.Time
	size int64
}

// ages lists a folder's files, oldest first.
func ages(dir string) ([]fileAge, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var list []fileAge
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), fileSuffix) {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, fileAge{e.Name(), info.ModTime(), info.Size()})
	}
	slices.SortStableFunc(list, func(a, b fileAge) int { return a.at.Compare(b.at) })
	return list, nil
}

func files(dir string) ([]string, error) {
	list, err := ages(dir)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(list))
	for i, f := range list {
		names[i] = f.name
	}
	return names, nil
}

// prune drops a folder's oldest files until it is within both bounds.
func prune(dir string, maxFiles int, maxBytes int64) error {
	list, err := ages(dir)
	if err != nil {
		return err
	}
	var bytes int64
	for _, f := range list {
		bytes += f.size
	}
	for len(list) > maxFiles || (bytes > maxBytes && len(list) > 1) {
		if err := removeFile(filepath.Join(dir, list[0].name)); err != nil {
			return err
		}
		bytes -= list[0].size
		list = list[1:]
	}
	return nil
}
