package fleet

import (
	"context"
	"errors"
	"net/netip"
	"time"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

// Errors that a Store and a Lifecycle return, wrapped or not.
var (
	ErrTokenUnknown = errors.New("enrolment token unknown")
	ErrTokenUsed    = errors.New("enrolment token already used")
	ErrTokenExpired = errors.New("enrolment token expired")
	ErrAgentUnknown = errors.New("agent unknown")
	ErrNotYourTask  = errors.New("task belongs to another agent, or to none")
)

// Agent is an enrolled agent. Zero times mean "not yet".
type Agent struct {
	// ID is derived from the agent's first key; see AgentID.
	ID       string
	Hostname string
	Version  string
	// Observer names the event source that the agent runs on, for people.
	Observer    string
	EnrolledAt  time.Time
	LastSeen    time.Time
	CertExpires time.Time
	RevokedAt   time.Time
	// Serial is the newest certificate's serial number; see pki.SerialText.
	Serial string
}

// Token is an enrolment token as it is stored: without its secret.
type Token struct {
	// Hash is the SHA-256 of the secret; see pki.Secret.Hash.
	Hash      [32]byte
	Comment   string
	CreatedBy string
	CreatedAt time.Time
	ExpiresAt time.Time
	UsedAt    time.Time
	// UsedBy is the id of the agent that enrolled with the token.
	UsedBy string
}

// Store keeps agents and tokens. It is safe for concurrent use, and what it
// returned from is durable.
type Store interface {
	CreateToken(ctx context.Context, t Token) error
	// EnrollAgent consumes the token and creates the agent in one transaction.
	// The errors are ErrTokenUnknown, ErrTokenUsed and ErrTokenExpired, and
	// with them nothing has changed. A token that has not expired and that
	// a.ID itself used is no error, and only updates the agent's certificate,
	// unless the agent is revoked (ErrTokenUsed): so an agent that crashed
	// before it kept its first certificate may ask again with the same key.
	EnrollAgent(ctx context.Context, tokenHash [32]byte, now time.Time, a Agent) error
	// Agent returns ErrAgentUnknown where there is none.
	Agent(ctx context.Context, id string) (Agent, error)
	Agents(ctx context.Context) ([]Agent, error)
	// TouchAgent records a sign of life. Empty texts leave what is stored.
	TouchAgent(ctx context.Context, id string, seen time.Time, version, observer string) error
	SetCertificate(ctx context.Context, id, serial string, expires time.Time) error
	// RevokeAgent is final. Revoking a revoked agent changes nothing.
	RevokeAgent(ctx context.Context, id string, at time.Time, by, reason string) error
}

// Lifecycle is what the channel needs of the engine that owns tasks. It is safe
// for concurrent use.
type Lifecycle interface {
	// PendingTasks returns all tasks of the agent without an acknowledged
	// result, oldest first. One that it no longer returns is called back.
	PendingTasks(ctx context.Context, agentID string) ([]*wirev1.Task, error)
	// TaskDelivered says that the task was written to the agent's connection.
	// It comes again for each repetition.
	TaskDelivered(ctx context.Context, agentID, taskID string) error
	// Report makes the result durable before it returns. A repeated result
	// changes nothing. ErrNotYourTask for a task that is not the agent's.
	Report(ctx context.Context, agentID string, r *wirev1.TaskResult) error
	// Observe takes the endpoint's own view of its addresses, already checked
	// for form. source is where the agent's connection came from, which the
	// agent cannot make up; it is the zero address when that is not known.
	Observe(ctx context.Context, agentID string, source netip.Addr, o *wirev1.ObserveRequest) error
	// AgentConnected says whether the agent now holds a Tasks stream. Calls
	// for one agent come one at a time, the last one true to the state; a call
	// may repeat what the one before it said. A connection that died without a
	// word is noticed within 20 seconds, and TaskDelivered may have been called
	// for tasks that went into it. A stream that the agent's next one replaces
	// ends without a false. It must not call back into Fleet.
	AgentConnected(ctx context.Context, agentID string, connected bool)
}
