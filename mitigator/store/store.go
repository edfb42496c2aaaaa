// Package store is where the mitigator keeps what must outlive it: events,
// threats with their history, tasks, quarantines and the orders to devices,
// endpoints and their bindings, agents and tokens.
//
// One contract, several engines: package sqlite is the embedded default, and
// storetest is the conformance suite that every engine passes. A transition and
// all that it causes are written in one Update; the open tasks and the orders
// are themselves the outbox that is carried out after a crash.
package store

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/cordon-security/cordon/mitigator/endpoint"
	"github.com/cordon-security/cordon/mitigator/event"
	"github.com/cordon-security/cordon/mitigator/fleet"
	"github.com/cordon-security/cordon/mitigator/threat"
)

// ErrNotFound is returned where one thing was asked for by its identifier and
// there is none.
var ErrNotFound = errors.New("not found")

// ErrFull is returned by Update when the disk has no room: nothing of the
// update was written, and it may be tried again.
var ErrFull = errors.New("no space left for the store")

// Store is a transactional store. It is safe for concurrent use.
type Store interface {
	// Update runs fn in one transaction that is durable when Update returns nil.
	// Updates are serialised. Several may share one commit; an error from one
	// fn undoes that one alone. fn must have no effect but through
	// its Tx: the commit that it shares may still fail, and fn may run again.
	//
	// On a full disk an Update with a context of Urgent uses up the store's reserve.
	Update(ctx context.Context, fn func(Tx) error) error
	// Reserve is how much of the reserve is left and how much there should be, in
	// bytes; both 0 for a store that keeps none. While less is left, Update
	// returns ErrFull, and each call fills the reserve first if there is room.
	Reserve() (left, whole int64)
	// View runs fn on one consistent state, beside any update.
	View(ctx context.Context, fn func(View) error) error
	Close() error
}

// Urgent marks an Update as one that cannot wait for a person to make room:
// containments, releases, what a device read back. Keep such an update small:
// the reserve that it may use up is. It is a mark on the context, so that
// whoever stands between a caller and the store sees every update at one place.
func Urgent(ctx context.Context) context.Context { return context.WithValue(ctx, urgent{}, true) }

// IsUrgent reports whether the context is one of Urgent.
func IsUrgent(ctx context.Context) bool { return ctx.Value(urgent{}) != nil }

type urgent struct{}

// View reads. Lists are bounded by their limit, 0 meaning DefaultLimit.
type View interface {
	// Threat returns ErrNotFound when there is none.
	Threat(id int64) (threat.Threat, error)
	// LastThreat finds the endpoint's newest threat of the kind, ended or not.
	LastThreat(endpointID int64, kind string) (threat.Threat, bool, error)
	// Threats lists the newest first, those below beforeID when it is not 0.
	Threats(openOnly bool, beforeID int64, limit int) ([]threat.Threat, error)
	// ThreatsOfEndpoint lists an endpoint's threats that have not ended.
	ThreatsOfEndpoint(endpointID int64) ([]threat.Threat, error)
	// CountThreats counts those not ended, and of them those that wait for somebody.
	CountThreats() (open, waiting int, err error)
	// CountWaitingFor counts those not ended whose WaitingFor begins with who.
	CountWaitingFor(who string) (int, error)
	Timeline(threatID int64) ([]threat.Transition, error)

	// Task returns ErrNotFound when there is none.
	Task(id string) (threat.Task, error)
	TasksOfThreat(threatID int64) ([]threat.Task, error)
	// OpenTasks lists an agent's tasks without a result, oldest first.
	OpenTasks(agentID string) ([]threat.Task, error)
	// DeliveredTasks lists every agent's tasks that were delivered and are open.
	DeliveredTasks() ([]threat.Task, error)
	// NextDue is when the first open task or active quarantine comes due.
	NextDue() (time.Time, bool, error)
	// TasksDue lists open tasks that are due.
	TasksDue(now time.Time, limit int) ([]threat.Task, error)

	// Quarantine returns ErrNotFound when there is none.
	Quarantine(id string) (threat.Quarantine, error)
	// ActiveQuarantine finds the endpoint's; there is at most one.
	ActiveQuarantine(endpointID int64) (threat.Quarantine, bool, error)
	// Quarantines lists the newest first.
	Quarantines(activeOnly bool, limit int) ([]threat.Quarantine, error)
	// QuarantinesIn lists those in a state, oldest first.
	QuarantinesIn(state threat.QuarantineState, limit int) ([]threat.Quarantine, error)
	// CountQuarantinesIn counts those in a state.
	CountQuarantinesIn(state threat.QuarantineState) (int, error)
	// QuarantinesDue lists active quarantines whose expiry has passed.
	QuarantinesDue(now time.Time, limit int) ([]threat.Quarantine, error)
	// QuarantineTimes lists when quarantines that reached a device were ordered,
	// since a time: what the fleet's cap counts.
	QuarantineTimes(since time.Time) ([]time.Time, error)
	// CountOrderedQuarantines counts those that a device shall hold, up to a
	// limit: it runs inside every containment, whose time must not grow with them.
	CountOrderedQuarantines(limit int) (int, error)
	// Orders lists what changed after a revision of the present epoch, each
	// quarantine once, and the revision that they lead to: the head, or less where
	// the limit cut them off. ok is false when the
	// log no longer reaches back that far: a snapshot is needed.
	Orders(after uint64, limit int) (orders []Order, head uint64, ok bool, err error)
	// Snapshot lists every quarantine that a device shall hold, and the revision.
	Snapshot() (quarantines []threat.Quarantine, head uint64, err error)
	// Epoch is this history of orders: it grows when a store is made anew, and with
	// BeginEpoch.
	Epoch() (uint64, error)

	Events(beforeID int64, limit int) ([]event.Record, error)
	EventsOfThreat(threatID int64, limit int) ([]event.Record, error)
	// Cursor returns nil when the source has none.
	Cursor(source string) ([]byte, error)
	// SourceCounts gives how many events and rejects a source delivered ever.
	SourceCounts(source string) (events, rejects uint64, err error)
	// Rejects lists the unreadable records that are kept aside, the newest first;
	// those of every source when source is empty.
	Rejects(source string, limit int) ([]Reject, error)

	// Endpoint returns ErrNotFound when there is none.
	Endpoint(id int64) (endpoint.Endpoint, error)
	EndpointByMAC(m endpoint.MAC) (endpoint.Endpoint, bool, error)
	EndpointByAgent(agentID string) (endpoint.Endpoint, bool, error)
	// EndpointByAddress finds the endpoint known by nothing but the address.
	EndpointByAddress(a netip.Addr) (endpoint.Endpoint, bool, error)
	// CountUnknown counts, up to a limit, the endpoints known by nothing but an
	// address: without MAC and without agent.
	CountUnknown(limit int) (int, error)
	// CountEndpoints counts them, and with them the addresses whose MAC is no
	// endpoint's. It may walk over all: it is not for what must be fast.
	CountEndpoints() (int, error)
	EndpointsByHostname(name string) ([]endpoint.Endpoint, error)
	Endpoints(afterID int64, limit int) ([]endpoint.Endpoint, error)
	// Bindings lists an address's, the newest first.
	Bindings(a netip.Addr) ([]endpoint.Binding, error)
	// BindingsOfMAC lists those that hold now.
	BindingsOfMAC(m endpoint.MAC) ([]endpoint.Binding, error)

	// Agent returns ErrNotFound when there is none.
	Agent(id string) (fleet.Agent, error)
	Agents() ([]fleet.Agent, error)
	// Token returns ErrNotFound when there is none with the hash.
	Token(hash [32]byte) (fleet.Token, error)
}

// Tx reads and writes. What changes one thing by its identifier returns
// ErrNotFound when there is none.
type Tx interface {
	View

	// AddThreat stores a new threat and sets its ID.
	AddThreat(t *threat.Threat) error
	SetThreat(t threat.Threat) error
	AddTransition(t threat.Transition) error

	AddTask(t threat.Task) error
	SetTask(t threat.Task) error

	AddQuarantine(q threat.Quarantine) error
	SetQuarantine(q threat.Quarantine) error
	// AddOrder appends to the log of orders: the devices must look at the
	// quarantine again. It returns the new revision, or ErrNotFound when there is
	// no such quarantine.
	AddOrder(quarantineID string) (uint64, error)
	// BeginEpoch makes this history of orders a new one, above the epoch that is
	// given, and returns it. Every device then needs a snapshot.
	BeginEpoch(above uint64) (uint64, error)

	// AddEvent stores a classified event, sets its ID and returns true; or returns
	// false when one with the same source and key is there already.
	AddEvent(r *event.Record) (bool, error)
	// SetEventThreat notes what an event led to.
	SetEventThreat(eventID, threatID int64) error
	// AddReject keeps a record that could not be read; the oldest above
	// MaxRejects of a source are dropped, some at a time, the count is not.
	AddReject(r event.Reject, source string) error
	SetCursor(source string, cursor []byte) error

	// AddEndpoint stores a new endpoint with its MACs and sets its ID.
	AddEndpoint(e *endpoint.Endpoint) error
	// SetEndpoint replaces it; MACs that another endpoint had move here.
	SetEndpoint(e endpoint.Endpoint) error
	// MergeEndpoint moves threats, quarantines and MACs from one endpoint to
	// another and removes the first. At most one of the two may have an active
	// quarantine: otherwise it is an error. The second keeps its own host name,
	// address and agent.
	MergeEndpoint(from, into int64) error
	// OpenBinding starts a binding, or confirms the one that holds; a confirmation
	// by a device makes it the device's. One MAC holds MaxBindingsOfMAC addresses:
	// above that the one unseen longest ends; and MaxPastBindings that ended are
	// kept of a MAC and of an address.
	OpenBinding(b endpoint.Binding) error
	// CloseBinding ends the address's binding to the MAC if it holds.
	CloseBinding(a netip.Addr, m endpoint.MAC, at time.Time) error

	AddAgent(a fleet.Agent) error
	SetAgent(a fleet.Agent) error
	// RevokeAgent is final; revoking a revoked agent changes nothing.
	RevokeAgent(id string, at time.Time, by, reason string) error
	AddToken(t fleet.Token) error
	SetToken(t fleet.Token) error

	// Prune looks at about limit rows and removes those that the cutoffs name. It
	// never removes what is open or active, nor what that needs: the first
	// EvidenceEvents events of an open threat, the quarantine and the endpoint of
	// any threat that is kept. A quarantine goes only when the log of orders names
	// it no longer; the log is trimmed for that, so that a device from before it
	// asks for a snapshot. Call it again from Next while there is More.
	Prune(c Cutoffs, limit int) (Pruned, error)
}

// Reject is a record that could not be read, as the store keeps it.
type Reject struct {
	event.Reject
	// ID is the store's, ascending.
	ID int64
	// Source is the data source that it came from.
	Source string
}

// Order is one line of the log of orders to devices, with the quarantine as it
// stands now: a device shall hold it, or, if its state is not an ordered one,
// shall not.
type Order struct {
	Revision   uint64
	Quarantine threat.Quarantine
}

// DefaultLimit bounds a list when the caller does not.
const DefaultLimit = 200

// MaxRejects is how many unreadable records are kept a source.
const MaxRejects = 1000

// MaxOrders is how far back the log of orders reaches: beyond, a snapshot is the
// smaller message anyway.
const MaxOrders = 20_000
