package journal

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cordon-security/cordon/agent/assess"
	"github.com/cordon-security/cordon/internal/durablefile"
)

// maxRecords bounds the finished tasks that are kept, oldest dropped.
const maxRecords = 512

// Record is what is known of one task.
type Record struct {
	Task    string    `json:"task"`
	Started time.Time `json:"started"`
	// Evidence is everything that was found for the task so far.
	Evidence assess.Evidence `json:"evidence"`
	// Actions are those done so far, as wire messages.
	Actions [][]byte `json:"actions,omitempty"`
	// Stopped is when the whole tree was stopped first.
	Stopped time.Time `json:"stopped,omitzero"`
	// Result is the finished task's result as a wire message; nil before.
	Result []byte `json:"result,omitempty"`
}

// Journal is a folder with one file a task. Different tasks may be used
// concurrently.
type Journal struct{ dir string }

// Open opens the journal's folder, and makes it when it is not there.
func Open(dir string) (*Journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the journal: %w", err)
	}
	j := &Journal{dir}
	if err := j.prune(); err != nil {
		return nil, fmt.Errorf("open the journal: %w", err)
	}
	return j, nil
}

func (j *Journal) path(task string) string {
	sum := sha256.Sum256([]byte(task))
	return filepath.Join(j.dir, hex.EncodeToString(sum[:16])+".json")
}

// Load returns the record of a task; one without Started when there is none.
func (j *Journal) Load(task string) (Record, error) {
	data, err := os.ReadFile(j.path(task))
	if errors.Is(err, fs.ErrNotExist) {
		return Record{Task: task}, nil
	}
	if err != nil {
		return Record{}, fmt.Errorf("read the journal of task %s: %w", task, err)
	}
	var r Record
	if err := json.Unmarshal(data, &r); err != nil {
		return Record{}, fmt.Errorf("read the journal of task %s: %w", task, err)
	}
	return r, nil
}

// Save puts a record on disk. When it returns, the record outlives a crash.
func (j *Journal) Save(r Record) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write the journal of task %s: %w", r.Task, err)
	}
	if err := durablefile.Write(j.path(r.Task), data); err != nil {
		return fmt.Errorf("write the journal of task %s: %w", r.Task, err)
	}
	return nil
}

// prune drops what a crash left half written, and the oldest records.
func (j *Journal) prune() error {
	if err := durablefile.RemoveTemporary(j.dir); err != nil {
		return err
	}
	entries, err := os.ReadDir(j.dir)
	if err != nil {
		return err
	}
	type aged struct {
		name string
		time time.Time
	}
	var records []aged
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			records = append(records, aged{e.Name(), info.ModTime()})
		}
	}
	slices.SortFunc(records, func(a, b aged) int { return cmp.Compare(b.time.UnixNano(), a.time.UnixNano()) })
	for _, r := range records[min(len(records), maxRecords):] {
		err = errors.Join(err, os.Remove(filepath.Join(j.dir, r.name)))
	}
	return err
}
