// Package fleettest has a Store and a Lifecycle in memory, for tests of the
// agent channel.
package fleettest

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
	"github.com/cordon-security/cordon/mitigator/fleet"
)

// Store is a fleet.Store in memory.
type Store struct {
	mu     sync.Mutex
	tokens map[[32]byte]fleet.Token
	agents map[string]fleet.Agent
	fail   error
}

var _ fleet.Store = (*Store)(nil)

// NewStore returns an empty store.
func NewStore() *Store {
	return &Store{tokens: make(map[[32]byte]fleet.Token), agents: make(map[string]fleet.Agent)}
}

// Fail makes every call return the error, until Fail(nil).
func (s *Store) Fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

// CreateToken implements fleet.Store.
func (s *Store) CreateToken(_ context.Context, t fleet.Token) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return s.fail
	}
	s.tokens[t.Hash] = t
	return nil
}

// EnrollAgent implements fleet.Store.
func (s *Store) EnrollAgent(_ context.Context, hash [32]byte, now time.Time, a fleet.Agent) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return s.fail
	}
	t, ok := s.tokens[hash]
	old := s.agents[a.ID]
	switch {
	case !ok:
		return fleet.ErrTokenUnknown
	case !t.UsedAt.IsZero() && (t.UsedBy != a.ID || !old.RevokedAt.IsZero()):
		return fleet.ErrTokenUsed
	case !now.Before(t.ExpiresAt):
		return fleet.ErrTokenExpired
	}
	t.UsedAt, t.UsedBy = now, a.ID
	s.tokens[hash] = t
	s.agents[a.ID] = a
	return nil
}

// Agent implements fleet.Store.
func (s *Store) Agent(_ context.Context, id string) (fleet.Agent, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return fleet.Agent{}, s.fail
	}
	a, ok := s.agents[id]
	if !ok {
		return fleet.Agent{}, fleet.ErrAgentUnknown
	}
	return a, nil
}

// Agents implements fleet.Store.
func (s *Store) Agents(context.Context) ([]fleet.Agent, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []fleet.Agent
	for _, a := range s.agents {
		all = append(all, a)
	}
	return all, s.fail
}

func (s *Store) change(id string, change func(*fleet.Agent)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return s.fail
	}
	a, ok := s.agents[id]
	if !ok {
		return fleet.ErrAgentUnknown
	}
	change(&a)
	s.agents[id] = a
	return nil
}

// TouchAgent implements fleet.Store.
func (s *Store) TouchAgent(_ context.Context, id string, seen time.Time, version, observer string) error {
	return s.change(id, func(a *fleet.Agent) {
		a.LastSeen = seen
		if version != "" {
			a.Version = version
		}
		if observer != "" {
			a.Observer = observer
		}
	})
}

// SetCertificate implements fleet.Store.
func (s *Store) SetCertificate(_ context.Context, id, serial string, expires time.Time) error {
	return s.change(id, func(a *fleet.Agent) { a.Serial, a.CertExpires = serial, expires })
}

// RevokeAgent implements fleet.Store.
func (s *Store) RevokeAgent(_ context.Context, id string, at time.Time, _, _ string) error {
	return s.change(id, func(a *fleet.Agent) {
		if a.RevokedAt.IsZero() {
			a.RevokedAt = at
		}
	})
}

// Lifecycle is a fleet.Lifecycle in memory.
type Lifecycle struct {
	mu        sync.Mutex
	tasks     []*wirev1.Task
	owner     map[string]string
	results   map[string]*wirev1.TaskResult
	reports   map[string]int
	delivered map[string]int
	observed  map[string][]*wirev1.ObserveRequest
	connected map[string]bool
	fail      error
}

var _ fleet.Lifecycle = (*Lifecycle)(nil)

// NewLifecycle returns one without tasks.
func NewLifecycle() *Lifecycle {
	return &Lifecycle{
		owner: make(map[string]string), results: make(map[string]*wirev1.TaskResult),
		reports: make(map[string]int), delivered: make(map[string]int),
		observed: make(map[string][]*wirev1.ObserveRequest), connected: make(map[string]bool),
	}
}

// Add makes a task due for the agent; call Fleet.Wake afterwards.
func (l *Lifecycle) Add(agentID string, task *wirev1.Task) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tasks = append(l.tasks, task)
	l.owner[task.GetId()] = agentID
}

// Withdraw makes a task no longer wanted; call Fleet.Wake afterwards.
func (l *Lifecycle) Withdraw(taskID string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, t := range l.tasks {
		if t.GetId() == taskID {
			l.tasks = append(l.tasks[:i:i], l.tasks[i+1:]...)
			return
		}
	}
}

// Forget makes a task undone again, as a store from a backup would.
func (l *Lifecycle) Forget(taskID string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.results, taskID)
}

// FailReports makes Report return the error, until FailReports(nil).
func (l *Lifecycle) FailReports(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail = err
}

// PendingTasks implements fleet.Lifecycle.
func (l *Lifecycle) PendingTasks(_ context.Context, agentID string) ([]*wirev1.Task, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var pending []*wirev1.Task
	for _, t := range l.tasks {
		if l.owner[t.GetId()] == agentID && l.results[t.GetId()] == nil {
			pending = append(pending, proto.CloneOf(t))
		}
	}
	return pending, nil
}

// TaskDelivered implements fleet.Lifecycle.
func (l *Lifecycle) TaskDelivered(_ context.Context, _, taskID string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delivered[taskID]++
	return nil
}

// Report implements fleet.Lifecycle.
func (l *Lifecycle) Report(_ context.Context, agentID string, r *wirev1.TaskResult) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		return l.fail
	}
	if l.owner[r.GetTaskId()] != agentID {
		return fleet.ErrNotYourTask
	}
	l.reports[r.GetTaskId()]++
	if l.results[r.GetTaskId()] == nil {
		l.results[r.GetTaskId()] = r
	}
	return nil
}

// Observe implements fleet.Lifecycle.
func (l *Lifecycle) Observe(_ context.Context, agentID string, _ netip.Addr, o *wirev1.ObserveRequest) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.observed[agentID] = append(l.observed[agentID], o)
	return nil
}

// AgentConnected implements fleet.Lifecycle.
func (l *Lifecycle) AgentConnected(_ context.Context, agentID string, connected bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.connected[agentID] = connected
}

// Result returns the task's result, or nil.
func (l *Lifecycle) Result(taskID string) *wirev1.TaskResult {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.results[taskID]
}

// Reports counts how often the task's result came in.
func (l *Lifecycle) Reports(taskID string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reports[taskID]
}

// Delivered counts how often the task was written to a stream.
func (l *Lifecycle) Delivered(taskID string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.delivered[taskID]
}

// Observed returns the agent's observations.
func (l *Lifecycle) Observed(agentID string) []*wirev1.ObserveRequest {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]*wirev1.ObserveRequest(nil), l.observed[agentID]...)
}

// Connected is what AgentConnected said last.
func (l *Lifecycle) Connected(agentID string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.connected[agentID]
}
