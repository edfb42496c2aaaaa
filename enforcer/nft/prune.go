package nft

import (
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/cordon-security/cordon/enforcer/desired"
	"github.com/cordon-security/cordon/enforcer/reconcile"
)

// Prune reads everything back and makes the kernel what is wanted, whole
// tables included, changing differences alone. With keep, elements that nobody
// wants stay: for a desired set that is known not to be whole.
func (m *Method) Prune(want reconcile.Wanted, keep bool) (reconcile.Report, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var r reconcile.Report
	var err error
	if r.Wrong, _, err = m.skeleton.ensure(); err != nil {
		m.reopen()
		return r, err
	}
	p := pruning{method: m, want: want, keep: keep, report: &r}
	p.sets = make([]pruned, 0, 8)
	for _, suffix := range []string{"", limited} {
		for _, at := range []place{
			{bridge, setMAC + suffix}, {inet, setMAC + suffix}, {inet, setIP4 + suffix}, {inet, setIP6 + suffix},
		} {
			p.sets = append(p.sets, pruned{place: at, limited: suffix == limited})
		}
	}
	for i := range p.sets {
		if err := p.strip(&p.sets[i]); err != nil {
			return r, m.checked(err)
		}
	}
	return r, m.checked(p.fill())
}

// Repair makes the tables right and leaves the elements as they are, unless
// sets were lost, which lost says.
func (m *Method) Repair() (wrong []string, lost bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	wrong, lost, err = m.skeleton.ensure()
	if err != nil {
		m.reopen()
	}
	return wrong, lost, err
}

// Count reads back how many quarantined MACs and addresses the tables hold,
// whoever wanted them. Tables that are not there hold none.
func (m *Method) Count() (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	total := 0
	for _, p := range []place{{bridge, setMAC}, {inet, setMAC}, {inet, setIP4}, {inet, setIP6}} {
		n := 0
		err := m.sock.list(p, func() { n = 0 }, func(key) { n++ })
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return 0, m.checked(err)
		}
		total += n
	}
	return total, nil
}

type pruning struct {
	method *Method
	want   reconcile.Wanted
	keep   bool
	report *reconcile.Report
	sets   []pruned
}

// pruned is one set while it is made what is wanted.
type pruned struct {
	place
	limited bool
	// listed, right and wanted count the keys that it holds, those of them that
	// are wanted, and all that are wanted. When the last two are equal nothing is
	// missing, and it need not be known which keys it holds.
	listed, right, wanted int
	holds                 map[key]struct{}
	edits                 []edit
}

func (s *pruned) takes(k *key, a desired.Access) bool {
	return k.n == width(s.place) && in(a, s.limited)
}

// strip takes out of a set what is not wanted.
func (p *pruning) strip(s *pruned) error {
	var edits []edit
	err := p.method.sock.list(s.place, func() {
		s.listed, s.right, edits = 0, 0, nil
	}, func(k key) {
		s.listed++
		if in(p.want.Access(k.member()), s.limited) {
			s.right++
			return
		}
		edits = append(edits, edit{place: s.place, key: k, del: true})
	})
	if err != nil {
		return err
	}
	if p.keep && !s.limited {
		p.report.Kept += len(edits)
		return nil
	}
	p.report.Removed += len(edits)
	return p.method.sock.commit(edits)
}

const fillChunk = 16384

// fill puts into the sets what they lack.
func (p *pruning) fill() error {
	p.want.Each(func(mb reconcile.Member) {
		k := keyOf(mb)
		for i := range p.sets {
			if p.sets[i].takes(&k, mb.Access) {
				p.sets[i].wanted++
			}
		}
	})
	var short []*pruned
	for i := range p.sets {
		s := &p.sets[i]
		if s.wanted <= s.right {
			continue
		}
		short, s.holds = append(short, s), make(map[key]struct{}, s.listed)
		if s.listed == 0 {
			continue
		}
		err := p.method.sock.list(s.place, func() { clear(s.holds) }, func(k key) { s.holds[k] = struct{}{} })
		if err != nil {
			return err
		}
	}
	if len(short) == 0 {
		return nil
	}
	var failed error
	p.want.Each(func(mb reconcile.Member) {
		k := keyOf(mb)
		for _, s := range short {
			if failed != nil || !s.takes(&k, mb.Access) {
				continue
			}
			if _, there := s.holds[k]; there {
				continue
			}
			if s.edits = append(s.edits, edit{place: s.place, key: k}); len(s.edits) >= fillChunk {
				failed = p.add(s)
			}
		}
	})
	for _, s := range short {
		if failed == nil {
			failed = p.add(s)
		}
	}
	return failed
}

func (p *pruning) add(s *pruned) error {
	p.report.Added += len(s.edits)
	err := p.method.sock.commit(s.edits)
	s.edits = s.edits[:0]
	return err
}

func in(a desired.Access, limitedOnly bool) bool {
	if limitedOnly {
		return a == desired.AccessLimited
	}
	return a != 0
}

// width is the length of a set's keys in bytes.
func width(p place) uint8 {
	switch p.set {
	case setIP4, setIP4 + limited:
		return 4
	case setIP6, setIP6 + limited:
		return 16
	}
	return 6
}

func keyOf(mb reconcile.Member) (k key) {
	if mb.Address.IsValid() {
		k.n = uint8(copy(k.b[:], mb.Address.AsSlice()))
	} else {
		k.n = uint8(copy(k.b[:], mb.MAC[:]))
	}
	return k
}

func (k key) member() reconcile.Member {
	var mb reconcile.Member
	switch k.n {
	case 4:
		mb.Address = netip.AddrFrom4([4]byte(k.b[:4]))
	case 16:
		mb.Address = netip.AddrFrom16(k.b)
	default:
		copy(mb.MAC[:], k.b[:6])
	}
	return mb
}
