// Package threat holds what Cordon tracks to its end, and the decisions of its
// life: pure functions from what is known and what happened to the next states
// and their effects. It stores nothing and calls nobody; package lifecycle does.
package threat

import (
	"crypto/rand"
	"encoding/hex"
	"net/netip"
	"time"

	"github.com/cordon-security/cordon/mitigator/endpoint"
	"github.com/cordon-security/cordon/mitigator/event"
)

// State is where a threat is in its life.
type State string

// The states. A threat starts in Detected; Resolved, NotConfirmed, Released and
// Closed are its ends.
const (
	Detected     State = "detected"
	Assessing    State = "assessing"
	Confirmed    State = "confirmed"
	Cleaning     State = "cleaning"
	Resolved     State = "resolved"
	Unresolved   State = "unresolved"
	Quarantined  State = "quarantined"
	NotConfirmed State = "not-confirmed"
	Released     State = "released"
	Closed       State = "closed"
)

// Ended reports whether nothing follows from the state.
func (s State) Ended() bool {
	switch s {
	case Resolved, NotConfirmed, Released, Closed:
		return true
	}
	return false
}

// Flow is one exchange of the endpoint that a data source took offence at.
type Flow struct {
	Proto    uint8          `json:"proto"`
	Local    netip.AddrPort `json:"local"`
	Remote   netip.AddrPort `json:"remote"`
	Outbound bool           `json:"outbound"`
	At       time.Time      `json:"at"`
}

// MaxFlows bounds how many different flows a threat keeps for the agent; a
// burst of thousands says no more than its first.
const MaxFlows = 16

// Threat is one kind of badness on one endpoint, from the first event to its end.
type Threat struct {
	ID         int64
	EndpointID int64
	// Kind joins events: the same kind on the same endpoint feeds the same threat.
	Kind       string
	Signature  string
	Severity   event.Severity
	Role       event.Role
	RoleReason string
	// Containable reports whether policy may cut the endpoint off on this
	// evidence without a person; Spoofable says in words why not.
	Containable bool
	Spoofable   string
	State       State
	Flows       []Flow
	EventCount  int
	// FirstSeen and LastSeen are the data source's times.
	FirstSeen time.Time
	LastSeen  time.Time
	OpenedAt  time.Time
	UpdatedAt time.Time
	EndedAt   time.Time
	// QuarantineID is the endpoint's quarantine that this threat holds up.
	QuarantineID string
	// WaitingFor says in words what it waits for; empty when for nobody. What
	// waits for a person begins with ForPerson.
	WaitingFor string
}

// ForPerson begins what a threat waits for when that is a person.
const ForPerson = "a person"

// Transition is one durable step of a threat, or a note when From equals To.
type Transition struct {
	ThreatID int64
	From     State
	To       State
	At       time.Time
	// Cause in words.
	Cause string
	// Actor is "policy", "agent:NAME", "device:NAME", "admin:NAME" or "source:NAME".
	Actor string
}

// TaskKind is what an agent is ordered to do.
type TaskKind string

// The kinds of task.
const (
	Assess TaskKind = "assess"
	Clean  TaskKind = "clean"
)

// TaskState is how far an order to an agent has come.
type TaskState string

// The states of a task. Pending tasks are the outbox to agents: they are
// delivered until a result is durable.
const (
	TaskPending   TaskState = "pending"
	TaskDelivered TaskState = "delivered"
	TaskDone      TaskState = "done"
	TaskExpired   TaskState = "expired"
	TaskCancelled TaskState = "cancelled"
)

// Open reports whether a result is still awaited.
func (s TaskState) Open() bool { return s == TaskPending || s == TaskDelivered }

// Task is one order to one agent.
type Task struct {
	ID        string
	ThreatID  int64
	AgentID   string
	Kind      TaskKind
	State     TaskState
	CreatedAt time.Time
	// HoldUntil is when a task that was never delivered expires.
	HoldUntil   time.Time
	DeliveredAt time.Time
	// Limit is how long the agent may work on it once delivered.
	Limit   time.Duration
	EndedAt time.Time
	// Result is the agent's TaskResult in protobuf; empty until done.
	Result []byte
}

// Due is when the task expires if nothing happens.
func (t Task) Due() time.Time {
	if t.State == TaskDelivered {
		return t.DeliveredAt.Add(t.Limit)
	}
	return t.HoldUntil
}

// Access is what a quarantined endpoint may still reach.
type Access string

// The accesses.
const (
	// AccessNone lets nothing pass.
	AccessNone Access = "none"
	// AccessLimited lets the mitigator and the device's allow set pass.
	AccessLimited Access = "limited"
)

// QuarantineState is how far a quarantine has come.
type QuarantineState string

// The states of a quarantine.
const (
	// QuarantineObserved is what observe mode would have ordered.
	QuarantineObserved QuarantineState = "observed"
	// QuarantineHeld waits at the fleet's cap for a person or the next window.
	QuarantineHeld QuarantineState = "held"
	// QuarantineOrdered is durable and on its way to the devices.
	QuarantineOrdered QuarantineState = "ordered"
	// QuarantineInForce was read back by a device.
	QuarantineInForce QuarantineState = "in-force"
	// QuarantineRefused was refused by a guard.
	QuarantineRefused QuarantineState = "refused"
	// QuarantineSuspended is not enforced: break glass is on at the device.
	QuarantineSuspended QuarantineState = "suspended"
	// QuarantineReleasing was released here and not yet read back as gone.
	QuarantineReleasing QuarantineState = "releasing"
	// QuarantineEnded is gone.
	QuarantineEnded QuarantineState = "ended"
)

// Ordered reports whether a device shall hold it: what a snapshot contains.
func (s QuarantineState) Ordered() bool {
	switch s {
	case QuarantineOrdered, QuarantineInForce, QuarantineRefused, QuarantineSuspended:
		return true
	}
	return false
}

// Active reports whether it stands between the endpoint and the network, or is
// about to: an endpoint has at most one active quarantine.
func (s QuarantineState) Active() bool {
	return s.Ordered() || s == QuarantineHeld
}

// Quarantine is a decision that an endpoint has limited access or none.
type Quarantine struct {
	ID         string
	EndpointID int64
	// ThreatID is 0 when a person took the decision without a threat.
	ThreatID  int64
	MACs      []endpoint.MAC
	Access    Access
	Reason    string
	Actor     string
	CreatedAt time.Time
	// ExpiresAt is zero when only a release ends it.
	ExpiresAt time.Time
	State     QuarantineState
	// Detail says in words what is wrong, when something is.
	Detail       string
	InForceAt    time.Time
	EndedAt      time.Time
	EndedBy      string
	Confirmation string
}

// NewID makes an identifier for a task or a quarantine that no other
// installation, and no restored backup of this one, makes again: agents and
// devices drop what they have already done by it.
func NewID(prefix string) string {
	var b [10]byte
	rand.Read(b[:]) // never fails: crypto/rand aborts the program instead
	return prefix + hex.EncodeToString(b[:])
}
