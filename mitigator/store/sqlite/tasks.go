package sqlite

import (
	"fmt"
	"time"

	"github.com/cordon-security/cordon/mitigator/threat"
)

const taskColumns = `id, threat_id, agent_id, kind, state, created_at, hold_until, delivered_at, work_limit, ended_at, result`

func scanTask(r row) (threat.Task, error) {
	var t threat.Task
	return t, r.Scan(&t.ID, &t.ThreatID, &t.AgentID, &t.Kind, &t.State, asTime(&t.CreatedAt), asTime(&t.HoldUntil),
		asTime(&t.DeliveredAt), &t.Limit, asTime(&t.EndedAt), &t.Result)
}

// Task implements store.View.
func (s *session) Task(id string) (threat.Task, error) {
	return one(s, scanTask, `SELECT `+taskColumns+` FROM task WHERE id = ?`, id)
}

// TasksOfThreat implements store.View.
func (s *session) TasksOfThreat(threatID int64) ([]threat.Task, error) {
	return list(s, scanTask, `SELECT `+taskColumns+` FROM task WHERE threat_id = ? ORDER BY created_at, rowid`, threatID)
}

// OpenTasks implements store.View.
func (s *session) OpenTasks(agentID string) ([]threat.Task, error) {
	return list(s, scanTask, `SELECT `+taskColumns+` FROM task WHERE agent_id = ? AND ended_at = 0
		ORDER BY created_at, rowid`, agentID)
}

// DeliveredTasks implements store.View.
func (s *session) DeliveredTasks() ([]threat.Task, error) {
	return list(s, scanTask, `SELECT `+taskColumns+` FROM task WHERE ended_at = 0 AND state = ?
		ORDER BY created_at, rowid`, string(threat.TaskDelivered))
}

// TasksDue implements store.View.
func (s *session) TasksDue(now time.Time, limit int) ([]threat.Task, error) {
	return list(s, scanTask, `SELECT `+taskColumns+` FROM task WHERE ended_at = 0 AND due_at <= ?
		ORDER BY due_at LIMIT ?`, micros(now), limitOr(limit))
}

// NextDue implements store.View.
func (s *session) NextDue() (time.Time, bool, error) {
	t, err := one(s, scanTime, `SELECT coalesce(min(due), 0) FROM (
		SELECT min(due_at) AS due FROM task WHERE ended_at = 0
		UNION ALL SELECT min(expires_at) FROM quarantine WHERE active = 1 AND expires_at > 0)`)
	return t, err == nil && !t.IsZero(), err
}

// AddTask implements store.Tx.
func (s *session) AddTask(t threat.Task) error {
	_, err := s.exec(`INSERT INTO task (id, threat_id, agent_id, kind, state, created_at, hold_until, delivered_at,
		work_limit, ended_at, due_at, result) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		t.ID, t.ThreatID, t.AgentID, string(t.Kind), string(t.State), micros(t.CreatedAt), micros(t.HoldUntil),
		micros(t.DeliveredAt), int64(t.Limit), micros(t.EndedAt), micros(t.Due()), t.Result)
	if err != nil {
		return fmt.Errorf("add task %s: %w", t.ID, err)
	}
	return nil
}

// SetTask implements store.Tx.
func (s *session) SetTask(t threat.Task) error {
	return s.change("set task "+t.ID, `UPDATE task SET state = ?, created_at = ?, hold_until = ?, delivered_at = ?,
		work_limit = ?, ended_at = ?, due_at = ?, result = ? WHERE id = ?`, string(t.State), micros(t.CreatedAt), micros(t.HoldUntil), micros(t.DeliveredAt),
		int64(t.Limit), micros(t.EndedAt), micros(t.Due()), t.Result, t.ID)
}
