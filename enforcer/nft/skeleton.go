package nft

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
)

// skeleton is our tables but for the quarantined keys: chains, rules, sets, and
// the allow sets with their content. It compares before it writes, so that
// what is right is adopted untouched.
type skeleton struct {
	conn    *nftables.Conn
	port    uint32
	layouts []layout
}

func newSkeleton(allow []Allowed, reserved []netip.Prefix) (*skeleton, error) {
	s := &skeleton{layouts: []layout{inetLayout(allow, reserved), bridgeLayout(allow, reserved)}}
	var err error
	s.conn, err = nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		s.port = c.PID()
		return errors.Join(c.SetReadBuffer(1<<20), c.SetWriteBuffer(socketBuffer))
	}))
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	return s, nil
}

func (s *skeleton) close() { _ = s.conn.CloseLasting() }

// ensure makes the tables right. It returns what was wrong in words, empty when
// nothing, and whether sets were made anew and are empty.
func (s *skeleton) ensure() (wrong []string, emptied bool, err error) {
	for i := range s.layouts {
		l := &s.layouts[i]
		found, err := s.compare(l)
		if err != nil {
			return wrong, emptied, err
		}
		if len(found.wrong) == 0 {
			continue
		}
		wrong = append(wrong, found.wrong...)
		emptied = emptied || found.setsMissing
		if err := s.write(l, found); err != nil {
			return wrong, emptied, fmt.Errorf("write table %s %s: %w", familyName(l.family), tableName, err)
		}
	}
	return wrong, emptied, nil
}

// findings are how a table differs from its layout.
type findings struct {
	wrong       []string
	setsMissing bool
	dormant     bool
	// Chains and sets that stand there and are deleted: those that are not ours
	// or cannot be changed into ours. The sets' content is taken over.
	chains     []*nftables.Chain
	sets       []*nftables.Set
	elements   map[string][]nftables.SetElement
	everyChain []*nftables.Chain
}

func (f *findings) add(format string, args ...any) {
	f.wrong = append(f.wrong, fmt.Sprintf(format, args...))
}

func familyName(f nftables.TableFamily) string {
	if f == nftables.TableFamilyBridge {
		return "bridge"
	}
	return "inet"
}

func (s *skeleton) compare(l *layout) (*findings, error) {
	f := &findings{elements: map[string][]nftables.SetElement{}}
	name := familyName(l.family) + " " + tableName
	tables, err := s.conn.ListTablesOfFamily(l.family)
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	i := slices.IndexFunc(tables, func(t *nftables.Table) bool { return t.Name == tableName })
	if i < 0 {
		f.setsMissing = true
		f.add("table %s was not there", name)
		return f, nil
	}
	// Ours has no flags; the one that matters is "dormant", which switches it off.
	if tables[i].Flags != 0 {
		f.dormant = true
		f.add("table %s was dormant or owned by a process", name)
	}
	if err := s.compareSets(l, f, tables[i]); err != nil {
		return nil, err
	}
	return f, s.compareChains(l, f, tables[i])
}

func (s *skeleton) compareSets(l *layout, f *findings, table *nftables.Table) error {
	sets, err := s.conn.GetSets(table)
	if err != nil {
		return fmt.Errorf("list sets: %w", err)
	}
	for _, want := range l.sets {
		i := slices.IndexFunc(sets, func(have *nftables.Set) bool { return have.Name == want.name })
		if i < 0 {
			f.setsMissing = true
			f.add("set %s of table %s was not there", want.name, familyName(l.family))
			continue
		}
		have := sets[i]
		if have.KeyType.Bytes != want.keyType.Bytes || have.Interval != want.interval || have.IsMap || have.HasTimeout {
			f.add("set %s of table %s was of another kind", want.name, familyName(l.family))
			if err := s.takeOver(have, want, f); err != nil {
				return err
			}
			continue
		}
		if !want.interval {
			continue
		}
		elements, err := s.conn.GetSetElements(have)
		if err != nil {
			return fmt.Errorf("list set %s: %w", want.name, err)
		}
		if !sameIntervals(elements, intervals(want.prefixes)) {
			f.add("set %s of table %s held other addresses", want.name, familyName(l.family))
		}
	}
	return nil
}

// takeOver notes that a set is made anew, with the keys that it holds. Keys that
// do not fit are lost, and put back from what is wanted.
func (s *skeleton) takeOver(have *nftables.Set, want set, f *findings) error {
	f.sets, f.setsMissing = append(f.sets, have), true
	if want.interval {
		return nil
	}
	elements, err := s.conn.GetSetElements(have)
	if err != nil {
		return fmt.Errorf("list set %s: %w", have.Name, err)
	}
	for _, e := range elements {
		if len(e.Key) == int(want.keyType.Bytes) && !e.IntervalEnd {
			f.elements[want.name] = append(f.elements[want.name], nftables.SetElement{Key: e.Key})
		}
	}
	return nil
}

func sameIntervals(a, b []nftables.SetElement) bool {
	flat := func(list []nftables.SetElement) []string {
		var out []string
		for _, e := range list {
			if e.IntervalEnd && isZero(e.Key) {
				continue
			}
			out = append(out, fmt.Sprintf("%x %t", e.Key, e.IntervalEnd))
		}
		slices.Sort(out)
		return out
	}
	return slices.Equal(flat(a), flat(b))
}

func isZero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

// intervals are the elements of an interval set that holds the prefixes.
func intervals(prefixes []netip.Prefix) []nftables.SetElement {
	sorted := slices.Clone(prefixes)
	slices.SortFunc(sorted, func(a, b netip.Prefix) int {
		if c := a.Masked().Addr().Compare(b.Masked().Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	var out []nftables.SetElement
	var last netip.Prefix
	for _, p := range sorted {
		p = p.Masked()
		if last.IsValid() && last.Contains(p.Addr()) {
			continue
		}
		last = p
		out = append(out, nftables.SetElement{Key: p.Addr().AsSlice()})
		if end := after(p); end.IsValid() {
			out = append(out, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
		}
	}
	return out
}

// after is the first address behind a prefix; invalid behind the last of all.
func after(p netip.Prefix) netip.Addr {
	last := p.Addr().AsSlice()
	for i := p.Bits(); i < len(last)*8; i++ {
		last[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(last)
	return a.Next()
}

func (s *skeleton) compareChains(l *layout, f *findings, table *nftables.Table) error {
	all, err := s.conn.ListChainsOfTableFamily(l.family)
	if err != nil {
		return fmt.Errorf("list chains: %w", err)
	}
	have := map[string]*nftables.Chain{}
	for _, c := range all {
		if c.Table.Name == tableName {
			have[c.Name] = c
			f.everyChain = append(f.everyChain, c)
		}
	}
	for _, want := range l.chains {
		c := have[want.name]
		delete(have, want.name)
		if c == nil {
			f.add("chain %s of table %s was not there", want.name, familyName(l.family))
			continue
		}
		if !sameHook(c, &want) {
			f.chains = append(f.chains, c)
			f.add("chain %s of table %s was hooked elsewhere", want.name, familyName(l.family))
			continue
		}
		rules, err := s.conn.GetRules(table, c)
		if err != nil {
			return fmt.Errorf("list chain %s: %w", want.name, err)
		}
		if !sameRules(rules, want.rules) {
			f.add("chain %s of table %s held other rules", want.name, familyName(l.family))
		}
	}
	for name, c := range have {
		f.chains = append(f.chains, c)
		f.add("chain %s of table %s is not ours", name, familyName(l.family))
	}
	return nil
}

func sameHook(have *nftables.Chain, want *chain) bool {
	if (have.Hooknum == nil) != (want.hook == nil) {
		return false
	}
	if want.hook == nil {
		return true
	}
	return *have.Hooknum == *want.hook && have.Priority != nil && *have.Priority == want.priority &&
		have.Type == nftables.ChainTypeFilter && (have.Policy == nil || *have.Policy == nftables.ChainPolicyAccept)
}

func sameRules(have []*nftables.Rule, want [][]expr.Any) bool {
	return slices.EqualFunc(have, want, func(h *nftables.Rule, w []expr.Any) bool {
		return describe(h.Exprs) == describe(w)
	})
}

// describe writes expressions so that equal rules read equal: without what the
// kernel counts and numbers.
func describe(exprs []expr.Any) string {
	var b strings.Builder
	for _, e := range exprs {
		switch e := e.(type) {
		case *expr.Counter:
			b.WriteString("counter;")
		case *expr.Lookup:
			fmt.Fprintf(&b, "lookup %s %d %t;", e.SetName, e.SourceRegister, e.Invert)
		case *expr.Payload:
			fmt.Fprintf(&b, "payload %d %d %d %d %d;", e.OperationType, e.Base, e.Offset, e.Len, e.DestRegister)
		case *expr.Bitwise:
			fmt.Fprintf(&b, "bitwise %d %d %x %x;", e.SourceRegister, e.DestRegister, e.Mask, e.Xor)
		default:
			fmt.Fprintf(&b, "%T %+v;", e, e)
		}
	}
	return b.String()
}

// write puts the whole layout in place in one transaction. Sets that fit keep
// their content, the others are made anew with it, so nothing that is in force
// lapses.
func (s *skeleton) write(l *layout, f *findings) error {
	table := &nftables.Table{Family: l.family, Name: tableName}
	s.conn.AddTable(table)
	if f.dormant {
		// By itself: the kernel refuses some changes of chains together with it.
		if err := s.conn.Flush(); err != nil {
			return fmt.Errorf("wake it: %w", err)
		}
	}
	// Rules hold on to the chains and sets that they name.
	for _, c := range f.everyChain {
		s.conn.FlushChain(c)
	}
	for _, c := range f.chains {
		s.conn.DelChain(c)
	}
	for _, old := range f.sets {
		s.conn.DelSet(old)
	}
	for _, want := range l.sets {
		if err := s.writeSet(table, want, f.elements[want.name]); err != nil {
			return err
		}
	}
	chains := make([]*nftables.Chain, len(l.chains))
	for i, want := range l.chains {
		chains[i] = &nftables.Chain{Table: table, Name: want.name}
		if want.hook != nil {
			policy := nftables.ChainPolicyAccept
			chains[i].Type, chains[i].Hooknum, chains[i].Policy = nftables.ChainTypeFilter, want.hook, &policy
			chains[i].Priority = &want.priority
		}
		s.conn.AddChain(chains[i])
	}
	for i, want := range l.chains {
		for _, exprs := range want.rules {
			s.conn.AddRule(&nftables.Rule{Table: table, Chain: chains[i], Exprs: exprs})
		}
	}
	return s.conn.Flush()
}

// maxMessage is how many plain elements fit one message of the library, which
// cuts off the others without a word.
const maxMessage = 2000

func (s *skeleton) writeSet(table *nftables.Table, want set, content []nftables.SetElement) error {
	out := &nftables.Set{Table: table, Name: want.name, KeyType: want.keyType, Interval: want.interval}
	if err := s.conn.AddSet(out, nil); err != nil {
		return fmt.Errorf("set %s: %w", want.name, err)
	}
	if !want.interval {
		for chunk := range slices.Chunk(content, maxMessage) {
			if err := s.conn.SetAddElements(out, chunk); err != nil {
				return fmt.Errorf("set %s: %w", want.name, err)
			}
		}
		return nil
	}
	s.conn.FlushSet(out)
	if len(want.prefixes) == 0 {
		return nil
	}
	return s.conn.SetAddElements(out, intervals(want.prefixes))
}

// remove takes our tables away, whatever is in them. That they are not there is
// no error.
func (s *skeleton) remove() error {
	for _, l := range s.layouts {
		table := &nftables.Table{Family: l.family, Name: tableName}
		s.conn.AddTable(table)
		s.conn.DelTable(table)
	}
	if err := s.conn.Flush(); err != nil {
		return fmt.Errorf("delete our tables: %w", err)
	}
	for _, l := range s.layouts {
		tables, err := s.conn.ListTablesOfFamily(l.family)
		if err != nil {
			return fmt.Errorf("read back: %w", err)
		}
		if slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == tableName }) {
			return fmt.Errorf("table %s %s is still there after it was deleted", familyName(l.family), tableName)
		}
	}
	return nil
}
