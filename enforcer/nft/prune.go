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
	p := pruning{method: m, want: want, keep: keep, report: &r, seen: map[[16]byte]struct{}{}}
	for _, suffix := range []string{"", limited} {
		for _, set := range []place{
			{bridge, setMAC + suffix}, {inet, setMAC + suffix}, {inet, setIP4 + suffix}, {inet, setIP6 + suffix},
		} {
			if err := p.set(set, suffix == limited); err != nil {
				return r, m.checked(err)
			}
		}
	}
	return r, nil
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
	seen   map[[16]byte]struct{}
}

// set makes one set what is wanted, in transactions of some thousand elements.
func (p *pruning) set(at place, limitedOnly bool) error {
	var edits []edit
	err := p.method.sock.list(at, func() {
		clear(p.seen)
		edits = nil
	}, func(k key) {
		p.seen[k.b] = struct{}{}
		if !in(p.want.Access(k.member()), limitedOnly) {
			edits = append(edits, edit{place: at, key: k, del: true})
		}
	})
	if err != nil {
		return err
	}
	if p.keep && !limitedOnly {
		p.report.Kept += len(edits)
		edits = nil
	}
	p.report.Removed += len(edits)
	if err := p.method.sock.commit(edits); err != nil {
		return err
	}
	return p.fill(at, limitedOnly)
}

const fillChunk = 16384

func (p *pruning) fill(at place, limitedOnly bool) error {
	edits := make([]edit, 0, 64)
	var failed error
	p.want.Each(func(mb reconcile.Member) {
		if failed != nil || !in(mb.Access, limitedOnly) {
			return
		}
		places(mb, "", func(q place, k key) {
			if _, there := p.seen[k.b]; there || q.family != at.family || k.n != width(at) {
				return
			}
			edits = append(edits, edit{place: at, key: k})
		})
		if len(edits) >= fillChunk {
			failed = p.method.sock.commit(edits)
			p.report.Added += len(edits)
			edits = edits[:0]
		}
	})
	if failed != nil {
		return failed
	}
	p.report.Added += len(edits)
	return p.method.sock.commit(edits)
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
