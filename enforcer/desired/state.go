package desired

import (
	"net/netip"
	"slices"
	"time"

	"github.com/cordon-security/cordon/internal/guard"
)

// State is the desired set in memory, with what is found by MAC and by address.
// It is changed by operations alone, the same when they are ordered and when
// the journal is read. It is not safe for concurrent use.
type State struct {
	revision    Revision
	degraded    string
	quarantines map[string]*Quarantine
	subjects    map[guard.MAC]*subject
	owners      map[[16]byte]guard.MAC
	claims      map[guard.MAC][]claimed
	begun       map[guard.MAC]int64
	reasons     map[string]string
	accepted    int
}

// subject is what hangs on one quarantined MAC. The addresses of a MAC whose
// last quarantine went go with it.
type subject struct {
	quarantines []*Quarantine
	// accepted is how many of them the guard let in.
	accepted  int
	addresses []bound
}

type bound struct {
	address [16]byte
	seen    int64
}

// claimed is an address of a MAC that is in dispute.
type claimed struct {
	bound
	until int64
}

func newState() *State { return sizedState(0) }

// sizedState is an empty state with room for about n quarantines, which spares
// the maps their growing.
func sizedState(n int) *State {
	return &State{
		quarantines: make(map[string]*Quarantine, n), subjects: make(map[guard.MAC]*subject, n),
		owners: make(map[[16]byte]guard.MAC, n), claims: map[guard.MAC][]claimed{},
		begun: map[guard.MAC]int64{}, reasons: map[string]string{},
	}
}

// Revision is the last order's.
func (s *State) Revision() Revision { return s.revision }

// Degraded says why the set cannot be trusted to be whole; empty when it can.
// What is enforced beyond it must stay until a snapshot came.
func (s *State) Degraded() string { return s.degraded }

// Len is how many quarantines there are.
func (s *State) Len() int { return len(s.quarantines) }

// Accepted is how many MACs a quarantine names that the guard let in: what the
// cap counts.
func (s *State) Accepted() int { return s.accepted }

// AcceptedOf is how many of the quarantines that name this MAC the guard let in.
func (s *State) AcceptedOf(m guard.MAC) int {
	if sub := s.subjects[m]; sub != nil {
		return sub.accepted
	}
	return 0
}

// Get returns the quarantine with this id, or nil.
func (s *State) Get(id string) *Quarantine { return s.quarantines[id] }

// Each calls f with every quarantine, in no order.
func (s *State) Each(f func(*Quarantine)) {
	for _, q := range s.quarantines {
		f(q)
	}
}

// Of returns the quarantines that name this MAC. The slice is the state's own.
func (s *State) Of(m guard.MAC) []*Quarantine {
	if sub := s.subjects[m]; sub != nil {
		return sub.quarantines
	}
	return nil
}

// EachMAC calls f with every MAC that a quarantine names.
func (s *State) EachMAC(f func(guard.MAC)) {
	for m := range s.subjects {
		f(m)
	}
}

// EachOwner calls f with every address of a quarantined MAC.
func (s *State) EachOwner(f func(netip.Addr, guard.MAC)) {
	for a, m := range s.owners {
		f(netip.AddrFrom16(a).Unmap(), m)
	}
}

// Owner returns the quarantined MAC that an address is bound to.
func (s *State) Owner(a netip.Addr) (guard.MAC, bool) {
	m, ok := s.owners[a.As16()]
	return m, ok
}

// Bindings are the addresses of a quarantined MAC.
func (s *State) Bindings(m guard.MAC) []Binding {
	sub := s.subjects[m]
	if sub == nil {
		return nil
	}
	out := make([]Binding, len(sub.addresses))
	for i, b := range sub.addresses {
		out[i] = Binding{Address: netip.AddrFrom16(b.address).Unmap(), MAC: m, Seen: time.Unix(0, b.seen).UTC()}
	}
	return out
}

// Claims are the addresses that a quarantined MAC claims and that are in dispute.
func (s *State) Claims(m guard.MAC) []Claim {
	list := s.claims[m]
	if len(list) == 0 {
		return nil
	}
	out := make([]Claim, len(list))
	for i, c := range list {
		out[i] = c.of(m)
	}
	return out
}

// EachClaim calls f with every claim.
func (s *State) EachClaim(f func(Claim)) {
	for m, list := range s.claims {
		for _, c := range list {
			f(c.of(m))
		}
	}
}

func (c claimed) of(m guard.MAC) Claim {
	return Claim{Until: time.Unix(0, c.until).UTC(), Binding: Binding{
		Address: netip.AddrFrom16(c.address).Unmap(), MAC: m, Seen: time.Unix(0, c.seen).UTC()}}
}

// Begun returns when the MACs that were let in after a time were let in.
func (s *State) Begun(after time.Time) []time.Time {
	var out []time.Time
	for _, at := range s.begun {
		if at > after.UnixNano() {
			out = append(out, time.Unix(0, at))
		}
	}
	return out
}

// HasBegun reports whether this MAC was let in after a time.
func (s *State) HasBegun(m guard.MAC, after time.Time) bool {
	at, ok := s.begun[m]
	return ok && at > after.UnixNano()
}

// Forget drops the history of what began before a time. The journal follows
// when it is next compacted.
func (s *State) Forget(before time.Time) {
	for m, at := range s.begun {
		if at <= before.UnixNano() {
			delete(s.begun, m)
		}
	}
}

func (s *State) put(q *Quarantine) {
	if kept, ok := s.reasons[q.Reason]; ok {
		q.Reason = kept
	} else if len(s.reasons) < 4096 {
		s.reasons[q.Reason] = q.Reason
	}
	old := s.quarantines[q.ID]
	s.quarantines[q.ID] = q
	for _, m := range q.MACs {
		sub := s.subjects[m]
		if sub == nil {
			sub = &subject{}
			s.subjects[m] = sub
		}
		if i := slices.Index(sub.quarantines, old); old != nil && i >= 0 {
			sub.quarantines[i] = q
			continue
		}
		sub.quarantines = append(sub.quarantines, q)
	}
	if q.Accepted != 0 {
		s.begin(q)
	}
	if old != nil {
		s.detach(old)
	}
}

func (s *State) remove(id string) {
	if q := s.quarantines[id]; q != nil {
		delete(s.quarantines, id)
		s.detach(q)
	}
}

// detach takes q, which is no longer in the set, from its MACs.
func (s *State) detach(q *Quarantine) {
	for _, m := range q.MACs {
		sub := s.subjects[m]
		if sub == nil {
			continue
		}
		if q.Accepted != 0 {
			if sub.accepted--; sub.accepted == 0 {
				s.accepted--
			}
		}
		sub.quarantines = slices.DeleteFunc(sub.quarantines, func(o *Quarantine) bool { return o == q })
		if len(sub.quarantines) > 0 {
			continue
		}
		for _, b := range sub.addresses {
			delete(s.owners, b.address)
		}
		delete(s.subjects, m)
		delete(s.claims, m)
	}
}

func (s *State) accept(id string, at int64) {
	q := s.quarantines[id]
	if q == nil || at == 0 {
		return
	}
	again := q.Accepted != 0
	q.Accepted = at
	if again {
		s.remember(q)
		return
	}
	s.begin(q)
}

// begin counts the MACs of a quarantine that was let in.
func (s *State) begin(q *Quarantine) {
	for _, m := range q.MACs {
		sub := s.subjects[m]
		if sub.accepted++; sub.accepted == 1 {
			s.accepted++
		}
	}
	s.remember(q)
}

// remember notes when the MACs of a quarantine were let in last.
func (s *State) remember(q *Quarantine) {
	for _, m := range q.MACs {
		if s.begun[m] < q.Accepted {
			s.begun[m] = q.Accepted
		}
	}
}

// bind gives an address to a quarantined MAC; the oldest address of the MAC
// goes when it has too many. A MAC that is not quarantined is ignored.
func (s *State) bind(m guard.MAC, a [16]byte, seen int64) {
	sub := s.subjects[m]
	if sub == nil {
		return
	}
	s.concede(m, a)
	if owner, ok := s.owners[a]; ok && owner != m {
		s.unbind(a)
	}
	s.owners[a] = m
	for i := range sub.addresses {
		if sub.addresses[i].address == a {
			sub.addresses[i].seen = max(sub.addresses[i].seen, seen)
			return
		}
	}
	if len(sub.addresses) >= MaxBindings {
		s.unbind(oldest(sub.addresses))
	}
	sub.addresses = append(sub.addresses, bound{a, seen})
}

// claim notes an address that a quarantined MAC claims; the oldest claim goes
// when there are too many.
func (s *State) claim(m guard.MAC, c claimed) {
	if s.subjects[m] == nil {
		return
	}
	s.concede(m, c.address)
	list := append(s.claims[m], c)
	s.claims[m] = list[max(0, len(list)-MaxBindings):]
}

func (s *State) concede(m guard.MAC, a [16]byte) {
	list, ok := s.claims[m]
	if !ok {
		return
	}
	list = slices.DeleteFunc(list, func(c claimed) bool { return c.address == a })
	if s.claims[m] = list; len(list) == 0 {
		delete(s.claims, m)
	}
}

func oldest(list []bound) [16]byte {
	return slices.MinFunc(list, func(x, y bound) int { return int(min(max(x.seen-y.seen, -1), 1)) }).address
}

func (s *State) unbind(a [16]byte) {
	m, ok := s.owners[a]
	if !ok {
		return
	}
	delete(s.owners, a)
	if sub := s.subjects[m]; sub != nil {
		sub.addresses = slices.DeleteFunc(sub.addresses, func(b bound) bool { return b.address == a })
	}
}
