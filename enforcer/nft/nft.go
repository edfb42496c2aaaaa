// Package nft enforces quarantines with nftables: one table of ours in the inet
// family and one in the bridge family, with hash sets for MACs and addresses.
// The tables outlive the process that made them. What stands in the kernel is
// compared with what is wanted and only the difference is written, so there is
// no moment without protection.
package nft

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/cordon-security/cordon/enforcer/desired"
	"github.com/cordon-security/cordon/enforcer/reconcile"
)

// Options are what a Method needs.
type Options struct {
	// Allow is what endpoints with limited access may reach.
	Allow []Allowed
	// Reserved are addresses, beside the single ones in Allow, that endpoints
	// with limited access may not claim by ARP or neighbour discovery. Networks
	// among them are passed over: they may hold the endpoint itself.
	Reserved []netip.Prefix
	Log      *slog.Logger
}

// Method enforces with nftables. It is safe for concurrent use.
type Method struct {
	opts Options

	mu       sync.Mutex
	sock     *socket
	skeleton *skeleton
	watcher  *watcher
}

// New opens the kernel's interfaces in the network namespace of the calling
// thread. It changes nothing; Prune makes all right for the first time.
func New(o Options) (*Method, error) {
	for _, a := range o.Allow {
		if !a.Prefix.IsValid() {
			return nil, errors.New("allow list: an entry has no prefix")
		}
		if a.Port != 0 && a.Protocol != unix.IPPROTO_TCP && a.Protocol != unix.IPPROTO_UDP {
			return nil, fmt.Errorf("allow list: %s: a port needs the protocol tcp or udp", a.Prefix)
		}
	}
	m := &Method{opts: o}
	if err := m.open(); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *Method) open() error {
	var err error
	if m.skeleton, err = newSkeleton(m.opts.Allow, m.opts.Reserved); err != nil {
		return err
	}
	if m.sock, err = dial(); err != nil {
		m.skeleton.close()
		return err
	}
	if m.watcher != nil {
		return m.watcher.ignore(m.sock.port, m.skeleton.port)
	}
	return nil
}

// reopen starts with clean sockets after an error that may have left answers
// unread.
func (m *Method) reopen() {
	old, oldSkeleton := m.sock, m.skeleton
	if err := m.open(); err != nil {
		m.opts.Log.Error("nftables cannot be reopened", "err", err)
		m.sock, m.skeleton = old, oldSkeleton
		return
	}
	old.close()
	oldSkeleton.close()
}

// Close closes the sockets. What is in force stays in force.
func (m *Method) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sock.close()
	m.skeleton.close()
	if m.watcher != nil {
		m.watcher.close()
	}
	return nil
}

// Name is the method's in statuses.
func (m *Method) Name() string { return "nftables" }

// places calls f with the sets that a member belongs to: those of every access level,
// or those of limited access alone.
func places(mb reconcile.Member, suffix string, f func(place, key)) {
	k := keyOf(mb)
	if !mb.Address.IsValid() {
		f(place{inet, setMAC + suffix}, k)
		f(place{bridge, setMAC + suffix}, k)
		return
	}
	if mb.Address.Is4() {
		f(place{inet, setIP4 + suffix}, k)
		return
	}
	f(place{inet, setIP6 + suffix}, k)
}

// Ensure puts the members into the sets of their access, all of them in one
// transaction. Repeating it changes nothing.
func (m *Method) Ensure(members []reconcile.Member) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	edits, err := m.ensureEdits(members)
	if err == nil {
		err = m.sock.commit(edits)
	}
	return m.checked(err)
}

func (m *Method) ensureEdits(members []reconcile.Member) ([]edit, error) {
	var edits []edit
	var loosen []question
	for _, mb := range members {
		places(mb, "", func(p place, k key) { edits = append(edits, edit{place: p, key: k}) })
		places(mb, limited, func(p place, k key) {
			if mb.Access == desired.AccessLimited {
				edits = append(edits, edit{place: p, key: k})
				return
			}
			loosen = append(loosen, question{p, k})
		})
	}
	stale, err := m.sock.present(loosen)
	for i, there := range stale {
		if there {
			edits = append(edits, edit{place: loosen[i].place, key: loosen[i].key, del: true})
		}
	}
	return edits, err
}

// Remove takes the members out of every set, in one transaction. What is not
// there is no error.
func (m *Method) Remove(members []reconcile.Member) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var ask []question
	for _, mb := range members {
		for _, suffix := range []string{limited, ""} {
			places(mb, suffix, func(p place, k key) { ask = append(ask, question{p, k}) })
		}
	}
	// Somebody may take an element away between the question and the deletion,
	// which the kernel answers by refusing the whole transaction.
	var err error
	for range 3 {
		var there []bool
		if there, err = m.sock.present(ask); err != nil {
			break
		}
		var edits []edit
		for i, q := range ask {
			if there[i] {
				edits = append(edits, edit{place: q.place, key: q.key, del: true})
			}
		}
		if err = m.sock.commit(edits); !errors.Is(err, unix.ENOENT) {
			break
		}
	}
	return m.checked(err)
}

// checked reopens the sockets when their state is not known.
func (m *Method) checked(err error) error {
	if err != nil && (errors.Is(err, errUnknownState) || errors.Is(err, unix.ENOBUFS)) {
		m.reopen()
	}
	return err
}

// ReadBack asks the kernel whether each member is in exactly the sets that its
// access wants. It does not look at the rules; the watch does.
func (m *Method) ReadBack(members []reconcile.Member) ([]bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	type check struct {
		member int
		want   bool
	}
	var ask []question
	var checks []check
	for i, mb := range members {
		places(mb, "", func(p place, k key) {
			ask, checks = append(ask, question{p, k}), append(checks, check{i, mb.Access != 0})
		})
		places(mb, limited, func(p place, k key) {
			ask, checks = append(ask, question{p, k}), append(checks, check{i, mb.Access == desired.AccessLimited})
		})
	}
	there, err := m.sock.present(ask)
	if err != nil {
		return nil, m.checked(err)
	}
	out := make([]bool, len(members))
	for i := range out {
		out[i] = true
	}
	for i, c := range checks {
		out[c.member] = out[c.member] && there[i] == c.want
	}
	return out, nil
}

// Clear takes our tables away with all that is in them, and reads back that
// they are gone: the break-glass way.
func (m *Method) Clear() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	err := m.skeleton.remove()
	if err != nil {
		m.reopen()
	}
	return err
}
