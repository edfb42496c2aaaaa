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
	"strings"
	"time"

	"github.com/cordon-security/cordon/agent/assess"
	"github.com/cordon-security/cordon/agent/procfs"
	"github.com/cordon-security/cordon/internal/durablefile"
)

// maxRecords bounds the finished tasks that are kept, oldest dropped.
const maxRecords = 512

// Record is what is known of one task.
type Record struct {
	Task    string    `json:"task"`
	Started time.Time `json:"started"`
	// Boot is the boot_id of random(4) that the process ids and inode numbers of
	// the evidence belong to.
	Boot string `json:"boot_id,omitempty"`
	// Evidence is everything that was found for the task so far.
	Evidence assess.Evidence `json:"evidence"`
	// Earlier are the processes that were found before the machine started
	// again. They ended then, and their ids are others' by now.
	Earlier []assess.Suspect `json:"earlier,omitempty"`
	// Actions are those done so far, as wire messages.
	Actions [][]byte `json:"actions,omitempty"`
	// Stopped is when the whole tree was stopped first.
	Stopped time.Time `json:"stopped,omitzero"`
	// Result is the finished task's result as a wire message; nil before.
	Result []byte `json:"result,omitempty"`
}

// Options is what a journal needs.
type Options struct {
	// Dir is the journal's folder, made with mode 0700 when it is not there.
	Dir string
	// Boot is the boot_id of random(4); empty asks the kernel.
	Boot string
}

// Journal is a folder with one file a task. Different tasks may be used
// concurrently.
type Journal struct{ dir, boot string }

// Open opens the journal's folder. It removes nothing, so that it may be called
// beside a running agent.
func Open(o Options) (*Journal, error) {
	if o.Boot == "" {
		id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
		if err != nil {
			return nil, fmt.Errorf("open the journal: %w", err)
		}
		o.Boot = strings.TrimSpace(string(id))
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the journal: %w", err)
	}
	return &Journal{o.Dir, o.Boot}, nil
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
	var r Record
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err == nil {
		err = r.convert(decodeText)
	}
	if err != nil {
		return Record{}, fmt.Errorf("read the journal of task %s: %w", task, err)
	}
	if r.Boot != j.boot {
		r.boot(j.boot)
	}
	return r, nil
}

// convert changes every text of the host in the record.
func (r *Record) convert(text func(string) (string, error)) error {
	all := assess.Evidence{Processes: r.Earlier}
	all, err := converted(all, text)
	if err != nil {
		return err
	}
	r.Earlier = all.Processes
	r.Evidence, err = converted(r.Evidence, text)
	return err
}

// boot takes out of the evidence what has no meaning after the machine started
// again: process ids and start times count anew, device numbers may change, and
// an inode may be another file's.
func (r *Record) boot(id string) {
	for _, p := range r.Evidence.Processes {
		p.Ended = true
		r.Earlier = append(r.Earlier, p)
	}
	r.Evidence.Processes = nil
	for n := range r.Evidence.Files {
		r.Evidence.Files[n].File, r.Evidence.Files[n].PID = procfs.FileID{}, 0
	}
	r.Boot = id
}

// Save puts a record on disk. When it returns, the record outlives a crash.
func (j *Journal) Save(r Record) error {
	r.Boot = j.boot
	err := r.convert(encodeText)
	var data []byte
	if err == nil {
		data, err = json.Marshal(r)
	}
	if err == nil {
		err = durablefile.Write(j.path(r.Task), data)
	}
	if err != nil {
		return fmt.Errorf("write the journal of task %s: %w", r.Task, err)
	}
	return nil
}

// Prune drops what a crash left half written, and the oldest records. Only the
// process that holds the state directory may call it.
func (j *Journal) Prune() error {
	if err := j.prune(); err != nil {
		return fmt.Errorf("prune the journal: %w", err)
	}
	return nil
}

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
