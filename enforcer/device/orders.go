package device

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/cordon-security/cordon/enforcer/desired"
	"github.com/cordon-security/cordon/enforcer/neighbor"
	"github.com/cordon-security/cordon/enforcer/reconcile"
	"github.com/cordon-security/cordon/internal/guard"
)

// ordered is a quarantine as an order names it.
type ordered struct {
	quarantine *desired.Quarantine
	bindings   []desired.Binding
}

// delta is an order on top of a revision.
type delta struct {
	base, revision desired.Revision
	puts           []ordered
	removes        []string
}

// part is one part of a snapshot.
type part struct {
	revision desired.Revision
	number   uint32
	last     bool
	puts     []ordered
}

// staging collects the parts of a snapshot.
type staging struct {
	revision desired.Revision
	next     uint32
	puts     []ordered
	bytes    int
}

const (
	// maxDesired bounds the desired set.
	maxDesired = 1_000_000
	// maxStaged bounds what the parts of a snapshot take in memory before the
	// last one comes.
	maxStaged = 512 << 20
)

// size is about what an order takes in memory.
func (o ordered) size() int {
	q := o.quarantine
	return 256 + len(q.ID) + len(q.Reason) + len(q.Fault) + 8*len(q.MACs) + 64*len(o.bindings)
}

// answer is what became of an order.
type answer struct {
	held         desired.Revision
	needSnapshot bool
	detail       string
	touched      []string
	gone         []goneID
}

type goneID struct {
	id     string
	phase  phaseGone
	detail string
}

func older(a, b desired.Revision) bool {
	return a.Epoch < b.Epoch || a.Epoch == b.Epoch && a.Number < b.Number
}

func (d *Device) refuse(format string, args ...any) answer {
	return answer{held: d.store.Revision(), needSnapshot: true, detail: fmt.Sprintf(format, args...)}
}

// applyDelta carries a delta out when it fits on the revision that is held. The
// revision that is held already is answered with what is in force.
func (d *Device) applyDelta(now time.Time, o delta) answer {
	held := d.store.Revision()
	d.staging = staging{}
	switch {
	case d.store.Degraded() != "":
		return d.refuse("%s", d.store.Degraded())
	case o.revision == held:
		return d.repeated(now, o)
	case older(o.revision, held):
		return d.refuse("order %s is older than %s, which the device holds: nothing was changed", o.revision, held)
	case o.base != held:
		return d.refuse("order %s applies on %s, the device holds %s: orders are missing", o.revision, o.base, held)
	case o.base.Epoch != o.revision.Epoch:
		return d.refuse("order %s begins a new epoch, which needs a snapshot", o.revision)
	}
	if d.grown(o) > d.most {
		return d.refuse("with order %s the device would hold more than %d quarantines, which is more than it can", o.revision, d.most)
	}
	return d.carryOut(now, o.revision, o.puts, o.removes, false)
}

// grown is how many quarantines there are after a delta.
func (d *Device) grown(o delta) int {
	n := d.store.Len()
	for _, p := range o.puts {
		if d.store.Get(p.quarantine.ID) == nil {
			n++
		}
	}
	for _, id := range o.removes {
		if d.store.Get(id) != nil {
			n--
		}
	}
	return n
}

// repeated answers a delta that was carried out already. Another order under the
// same revision is not that: to acknowledge it would be to lose it.
func (d *Device) repeated(now time.Time, o delta) answer {
	if id, other := d.another(now, o); other {
		return d.refuse("order %s is not the one that the device holds under that revision, they differ in %s", o.revision, id)
	}
	a := answer{held: d.store.Revision(), detail: d.alarm()}
	for _, p := range o.puts {
		if d.store.Get(p.quarantine.ID) != nil {
			a.touched = append(a.touched, p.quarantine.ID)
		} else if p.quarantine.Expired(now) {
			a.gone = append(a.gone, goneID{id: p.quarantine.ID, phase: expired})
		}
	}
	for _, id := range o.removes {
		if d.store.Get(id) == nil {
			a.gone = append(a.gone, goneID{id: id, detail: d.leaving[id].detail})
		}
	}
	return a
}

// another names a quarantine in which a delta under the held revision is not
// what is held.
func (d *Device) another(now time.Time, o delta) (id string, other bool) {
	for _, p := range o.puts {
		held := d.store.Get(p.quarantine.ID)
		if held == nil && !p.quarantine.Expired(now) || held != nil && !sameOrder(held, p.quarantine) {
			return p.quarantine.ID, true
		}
	}
	for _, id := range o.removes {
		if d.store.Get(id) != nil {
			return id, true
		}
	}
	return "", false
}

// sameOrder compares what decides whom a quarantine cuts off, from what, and
// until when.
func sameOrder(a, b *desired.Quarantine) bool {
	if a.Access != b.Access || a.Expires != b.Expires || len(a.MACs) != len(b.MACs) {
		return false
	}
	for _, m := range a.MACs {
		if !slices.Contains(b.MACs, m) {
			return false
		}
	}
	return true
}

// applyPart takes one part of a snapshot, and carries the whole out with the
// last one.
func (d *Device) applyPart(now time.Time, p part) answer {
	held := d.store.Revision()
	if older(p.revision, held) {
		d.staging = staging{}
		return d.refuse("snapshot %s is older than %s, which the device holds: nothing was changed", p.revision, held)
	}
	if p.number == 0 {
		d.staging = staging{revision: p.revision}
	}
	if p.number != d.staging.next || p.revision != d.staging.revision {
		want := d.staging
		d.staging = staging{}
		return d.refuse("part %d of snapshot %s came out of turn, part %d of %s was due: begin again with part 0",
			p.number, p.revision, want.next, want.revision)
	}
	d.staging.next++
	d.staging.puts = append(d.staging.puts, p.puts...)
	for _, o := range p.puts {
		d.staging.bytes += o.size()
	}
	if len(d.staging.puts) > d.most || d.staging.bytes > d.mostStaged {
		d.staging = staging{}
		return d.refuse("the snapshot has more than %d quarantines or %d MB, which is more than a device holds", d.most, d.mostStaged>>20)
	}
	if !p.last {
		return answer{held: held, detail: d.alarm()}
	}
	puts := lastOfEach(d.staging.puts)
	d.staging = staging{}
	return d.carryOut(now, p.revision, puts, d.missing(puts), true)
}

// lastOfEach keeps the last put of each id.
func lastOfEach(puts []ordered) []ordered {
	last := make(map[string]int, len(puts))
	for i, p := range puts {
		last[p.quarantine.ID] = i
	}
	if len(last) == len(puts) {
		return puts
	}
	out := make([]ordered, 0, len(last))
	for i, p := range puts {
		if last[p.quarantine.ID] == i {
			out = append(out, p)
		}
	}
	return out
}

// missing lists what is held and not among puts.
func (d *Device) missing(puts []ordered) []string {
	named := make(map[string]struct{}, len(puts))
	for _, p := range puts {
		named[p.quarantine.ID] = struct{}{}
	}
	var out []string
	d.store.Each(func(q *desired.Quarantine) {
		if _, ok := named[q.ID]; !ok {
			out = append(out, q.ID)
		}
	})
	return out
}

// order is one that is being carried out.
type order struct {
	now     time.Time
	ops     []desired.Operation
	touched members
	admit   *admission
	changed []*desired.Quarantine
	ended   []departure
	answer  answer
}

// departure is a quarantine that leaves, how, and what it held when it did.
type departure struct {
	quarantine *desired.Quarantine
	how        phaseGone
	members    members
}

// carryOut makes an order durable in one record, and then in force. The ids of
// puts and removes are distinct.
func (d *Device) carryOut(now time.Time, rev desired.Revision, puts []ordered, removes []string, whole bool) answer {
	o := &order{now: now, touched: members{}, admit: d.admission(now), answer: answer{held: rev}}
	o.ops = append(o.ops, desired.SetRevision(rev))
	degraded := whole && d.store.Degraded() != ""
	if degraded {
		o.ops = append(o.ops, desired.Degrade(""))
	}
	// What leaves makes room first, and leaves last, so that an endpoint that
	// only changes its quarantine's id is never free in between.
	var leave []desired.Operation
	for _, id := range removes {
		leave = append(leave, desired.Remove(id))
		d.takeOut(o, id, removed)
	}
	live := d.replace(o, puts)
	seen := d.addressesOf(live)
	d.letAllIn(o.admit, live, seen)
	for _, p := range live {
		o.ops = append(o.ops, desired.Put(p.quarantine))
		o.ops = append(o.ops, d.bindings(now, p, seen)...)
		o.changed = append(o.changed, p.quarantine)
		o.answer.touched = append(o.answer.touched, p.quarantine.ID)
	}
	if err := d.store.Commit(append(o.ops, leave...)...); err != nil {
		d.log.Error("order held in memory only", "revision", rev.String(), "err", err)
	}
	d.finish(o, degraded)
	return o.answer
}

func (d *Device) takeOut(o *order, id string, how phaseGone) {
	q := d.store.Get(id)
	if q == nil {
		o.answer.gone = append(o.answer.gone, goneID{id: id, phase: how, detail: d.leaving[id].detail})
		return
	}
	out := d.departing(q, how)
	o.touched.merge(out.members)
	o.ended = append(o.ended, out)
	o.admit.drop(q)
}

// departing notes what a quarantine holds that is still in the store.
func (d *Device) departing(q *desired.Quarantine, how phaseGone) departure {
	out := departure{quarantine: q, how: how, members: members{}}
	out.members.add(d.store.State, q)
	return out
}

// replace takes out what the puts replace or end, and returns those that live.
func (d *Device) replace(o *order, puts []ordered) []ordered {
	live := make([]ordered, 0, len(puts))
	for _, p := range puts {
		q := p.quarantine
		if q.Expired(o.now) {
			o.ops = append(o.ops, desired.Remove(q.ID))
			d.takeOut(o, q.ID, expired)
			continue
		}
		if old := d.store.Get(q.ID); old != nil {
			o.touched.add(d.store.State, old)
			o.admit.drop(old)
			q.Status = old.Status
		}
		live = append(live, p)
	}
	return live
}

// letAllIn decides by the device's own guard: first what was let in before,
// then what adds no MAC, then what does, so that a newcomer never takes the room
// of one that is in.
func (d *Device) letAllIn(a *admission, puts []ordered, seen map[guard.MAC][]neighbor.Observation) {
	var rest, newcomers []ordered
	for _, p := range puts {
		if old := d.store.Get(p.quarantine.ID); p.quarantine.Fault == "" && keeps(old, p.quarantine) {
			p.quarantine.Accepted = old.Accepted
			a.add(p.quarantine)
			continue
		}
		rest = append(rest, p)
	}
	for _, p := range rest {
		if !a.allIn(p.quarantine) {
			newcomers = append(newcomers, p)
			continue
		}
		d.letIn(a, p, seen)
	}
	for _, p := range newcomers {
		d.letIn(a, p, seen)
	}
}

// keeps reports that a quarantine stays let in when it is ordered anew, as long
// as it adds no MAC: an attacker's later claims do not change that.
func keeps(old, q *desired.Quarantine) bool {
	if old == nil || old.Accepted == 0 {
		return false
	}
	for _, m := range q.MACs {
		if !slices.Contains(old.MACs, m) {
			return false
		}
	}
	return true
}

func (d *Device) letIn(a *admission, p ordered, seen map[guard.MAC][]neighbor.Observation) {
	q := p.quarantine
	if q.Fault != "" {
		return
	}
	r := d.guard.Check(q.MACs, d.undisputed(a.now, p, seen))
	if r != nil && r.Rule == guard.RuleProtectedAddress {
		q.Fault = "the endpoint has a protected address: " + r.Detail
	}
	if r == nil && a.refuses(q) == nil {
		q.Accepted = a.now.UnixNano()
		a.add(q)
	}
}

// undisputed lists the addresses that the order's MACs have, by the order's word
// and by what this device sees, without those that are in dispute: a claim to a
// protected address must not protect who makes it.
func (d *Device) undisputed(now time.Time, p ordered, seen map[guard.MAC][]neighbor.Observation) (out []netip.Addr) {
	for _, b := range p.bindings {
		if owner, present := d.table.Owner(b.Address); !present || owner == b.MAC {
			out = append(out, b.Address)
		}
	}
	for _, m := range p.quarantine.MACs {
		for _, o := range seen[m] {
			out = append(out, o.Address)
		}
	}
	return slices.DeleteFunc(out, func(a netip.Addr) bool {
		_, contested := d.table.Contested(a, now)
		return contested
	})
}

// finish enforces an order that was committed and takes stock.
func (d *Device) finish(o *order, degraded bool) {
	for _, q := range o.changed {
		o.touched.add(d.store.State, q)
		delete(d.leaving, q.ID)
		delete(d.waiting, q.ID)
		d.noteExpiry(q)
	}
	var err error
	if degraded {
		d.log.Info("a snapshot came, the desired set is whole again")
		_, err = d.pruneAll(o.now)
	} else {
		err = d.enforce(o.now, o.touched)
	}
	if err != nil {
		d.log.Error("an order is not in force, retrying", "err", err)
	}
	for _, out := range o.ended {
		id := out.quarantine.ID
		d.left(o.now, out, err)
		o.answer.gone = append(o.answer.gone, goneID{id: id, phase: out.how, detail: d.leaving[id].detail})
	}
	for _, q := range o.changed {
		d.judge(o.now, q)
	}
	d.judgeTouched(o.now, o.touched)
	if len(o.ended) > 0 {
		d.admit(o.now)
	}
	o.answer.detail = d.alarm()
}

// addressesOf finds what is known of the addresses of the MACs that are
// ordered, with one pass over the table.
func (d *Device) addressesOf(puts []ordered) map[guard.MAC][]neighbor.Observation {
	out := map[guard.MAC][]neighbor.Observation{}
	for _, p := range puts {
		for _, m := range p.quarantine.MACs {
			out[m] = nil
		}
	}
	if len(out) == 0 {
		return out
	}
	d.table.Each(func(o neighbor.Observation) {
		if _, ok := out[o.MAC]; ok {
			out[o.MAC] = append(out[o.MAC], o)
		}
	})
	return out
}

// bindings are the addresses that an order's MACs have: those that the order
// names, unless this device sees them at somebody else, and those that it sees.
// Those in dispute are claims still.
func (d *Device) bindings(now time.Time, p ordered, seen map[guard.MAC][]neighbor.Observation) []desired.Operation {
	var ops []desired.Operation
	for _, b := range p.bindings {
		if owner, present := d.table.Owner(b.Address); present && owner != b.MAC {
			continue
		}
		if owner, held := d.store.Owner(b.Address); held && owner == b.MAC {
			d.table.Settle(b.Address)
		}
		op, _ := d.bindOrClaim(now, neighbor.Observation{Address: b.Address, MAC: b.MAC, Seen: b.Seen})
		ops = append(ops, op)
	}
	for _, m := range p.quarantine.MACs {
		for _, o := range seen[m] {
			op, _ := d.bindOrClaim(now, o)
			ops = append(ops, op)
		}
	}
	return ops
}

func addressMember(a netip.Addr) reconcile.Member { return reconcile.Member{Address: a} }

// alarm is what is wrong with the device itself, in words.
func (d *Device) alarm() string { return d.store.Alarm() }
