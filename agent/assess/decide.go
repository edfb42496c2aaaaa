package assess

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"

	"github.com/cordon-security/cordon/agent/observe"
	"github.com/cordon-security/cordon/agent/procfs"
)

// Decide comes to a verdict from facts alone.
func Decide(f Facts) Evidence {
	e, _ := decide(f)
	return e
}

// decide also names the files whose traits would be needed to be sure.
func decide(f Facts) (Evidence, []string) {
	d := newDecision(f)
	d.seed()
	if len(d.tree) == 0 {
		return d.nothing(), slices.Sorted(maps.Keys(d.missing))
	}
	d.grow()
	return d.evidence(), slices.Sorted(maps.Keys(d.missing))
}

func (d *decision) trait(path string) Trait {
	t, ok := d.f.Traits[path]
	if !ok && path != "" {
		d.missing[path] = true
	}
	return t
}

type decision struct {
	f Facts
	// past is the newest that is known of each process that ended, live the
	// others in the order of their start.
	past map[procfs.ID]observe.Process
	live []procfs.ID
	// before are the programs that a process became and was, oldest first.
	before map[procfs.ID][]observe.Process
	// children are the live and ended processes by the one that forked them,
	// sessions the live ones by their session.
	children map[procfs.ID][]procfs.ID
	sessions map[int][]procfs.ID
	tree     map[procfs.ID]*Suspect
	// queue holds the members of the tree whose family was not looked at yet.
	queue []procfs.ID
	// inodes and paths are the files of the threat.
	inodes   map[procfs.FileID]bool
	paths    map[string]bool
	files    []SuspectFile
	reasons  []string
	innocent []string
	// doubtful is true when what an innocent holder runs is not beyond doubt.
	doubtful bool
	// missing are the files whose traits were asked for and are not recorded.
	missing map[string]bool
}

func newDecision(f Facts) *decision {
	d := &decision{
		f: f, past: make(map[procfs.ID]observe.Process), before: make(map[procfs.ID][]observe.Process), children: make(map[procfs.ID][]procfs.ID), sessions: make(map[int][]procfs.ID),
		tree: make(map[procfs.ID]*Suspect), inodes: make(map[procfs.FileID]bool), paths: make(map[string]bool), missing: make(map[string]bool),
	}
	for _, p := range f.Live {
		d.live = append(d.live, p.ID)
	}
	slices.SortFunc(d.live, compareID)
	note := func(p observe.Process) {
		if !p.Inherited {
			d.before[p.ID] = append(d.before[p.ID], p)
		}
	}
	for _, p := range f.Ended {
		// A program that a process was before is no process of its own.
		if now, ok := f.Live[p.PID]; ok && now.Start == p.Start {
			note(p)
			continue
		}
		if old, ok := d.past[p.ID]; ok {
			note(old)
		}
		d.past[p.ID] = p
	}
	for _, id := range slices.Concat(d.live, slices.SortedFunc(maps.Keys(d.past), compareID)) {
		p, ended, _ := d.get(id)
		if parent := d.parentOf(p); parent.PID != 0 {
			d.children[parent] = append(d.children[parent], id)
		}
		if !ended && p.SID > 1 && p.SID != p.PID {
			d.sessions[p.SID] = append(d.sessions[p.SID], id)
		}
	}
	for _, k := range f.Known.Files {
		if !k.File.IsZero() {
			d.inodes[k.File] = true
		}
		if !k.Elsewhere {
			d.paths[k.Path] = true
		}
	}
	return d
}

// parentOf prefers who forked a process to whom it was handed afterwards.
func (d *decision) parentOf(p observe.Process) procfs.ID {
	if p.Parent.PID != 0 {
		return p.Parent
	}
	if live, ok := d.f.Live[p.PPID]; ok && live.Start <= p.Start {
		return live.ID
	}
	return procfs.ID{}
}

// get returns a process, live or ended.
func (d *decision) get(id procfs.ID) (p observe.Process, ended, ok bool) {
	if p, ok := d.f.Live[id.PID]; ok && p.Start == id.Start {
		return p, false, true
	}
	p, ok = d.past[id]
	return p, true, ok
}

// markOf scores a process by its executable and its input.
func (d *decision) markOf(p procfs.Process) mark {
	m := markExe(p, d.trait(p.Exe))
	if in, ok := d.input(p); ok {
		m = worse(m, markInput(in, d.trait(in.path)))
	}
	if d.isKnown(p) {
		m = worse(m, mark{points: pointsNameless, why: "it runs a file that is evidence already"})
	}
	return m
}

// markHolder scores a process that has the flow also by what it was before: a
// dropped program may connect and become a shell.
func (d *decision) markHolder(p observe.Process, h Holder) mark {
	m := d.markOf(p.Process)
	if h.Live && d.f.Inputs[p.PID] {
		m = worse(m, markShell(p.Process))
	}
	for _, was := range d.before[p.ID] {
		if old := d.markOf(was.Process); old.points > m.points {
			m = old
			m.why = fmt.Sprintf("it was %s before, and %s", was.Exe, old.why)
		}
	}
	return m
}

// protected says why the guard keeps a process out of every tree, "" otherwise.
func (d *decision) protected(p observe.Process, ended bool) string {
	if ended {
		return ""
	}
	return d.f.Protected[p.PID]
}

// isKnown reports whether a process runs a file of the threat.
func (d *decision) isKnown(p procfs.Process) bool {
	runs := !p.ExeFile.IsZero() && d.inodes[p.ExeFile] || !p.ExeElsewhere && d.paths[p.Exe]
	// Of a package's own file only the input can be evidence.
	if runs && !d.trusted(p) {
		return true
	}
	in, ok := d.input(p)
	return ok && in.path != "" && !in.elsewhere && d.paths[in.path]
}

// input is what an interpreter runs, by the name to which symbolic links lead.
func (d *decision) input(p procfs.Process) (input, bool) {
	in, ok := inputOf(p)
	if target := d.trait(in.path).Target; target != "" {
		in.path = target
	}
	if theirs, ok := d.f.Scripts[p.PID]; ok && d.f.Live[p.PID].Start == p.Start && !in.gone {
		in.elsewhere = theirs != d.trait(in.path).File
	}
	return in, ok
}

// trusted reports whether a process runs a package's own file.
func (d *decision) trusted(p procfs.Process) bool { return trusted(p, d.trait(p.Exe)) }

// seed takes the holders of the flows that are suspicious, and whatever runs
// files or belongs to processes that are evidence already.
func (d *decision) seed() {
	for _, h := range d.f.Holders {
		p, ended, ok := d.get(h.Process)
		if !ok {
			continue
		}
		m := d.markHolder(p, h)
		if m.points < suspicion {
			d.clear(p.Process, m)
			continue
		}
		if why := d.protected(p, ended); why != "" {
			d.clear(p.Process, mark{points: m.points, why: m.why + ", but " + why})
			continue
		}
		flow := d.f.Flows[h.Flow]
		d.reason("pid %d (%s) %s the connection to %s: %s", p.PID, p.Exe, map[bool]string{true: "holds", false: "held"}[h.Live], flow.Remote, m.why)
		d.add(p, ended, m.why)
	}
	for _, id := range d.f.Known.Processes {
		if p, ended, ok := d.get(id); ok {
			d.add(p, ended, "it was part of the tree before")
		}
	}
	d.runners("it runs a file that is evidence already")
}

// runners adds the live processes that run a file of the threat.
func (d *decision) runners(why string) {
	for _, id := range d.live {
		if p, _, _ := d.get(id); d.isKnown(p.Process) {
			d.add(p, false, why)
		}
	}
}

func (d *decision) clear(p procfs.Process, m mark) {
	why := "its executable is unchanged from a package and it runs no suspicious script"
	if m.points > 0 {
		why = m.why + ", which alone is not enough"
	}
	if text := fmt.Sprintf("pid %d (%s) has the connection: %s", p.PID, p.Exe, why); !slices.Contains(d.innocent, text) {
		d.innocent = append(d.innocent, text)
	}
	d.doubtful = d.doubtful || m.points > 0
}

func (d *decision) reason(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(d.reasons, text) {
		d.reasons = append(d.reasons, text)
	}
}

// add puts a process and the files that it runs into the evidence.
func (d *decision) add(p observe.Process, ended bool, why string) bool {
	if p.PID <= 1 || p.Kernel || d.protected(p, ended) != "" {
		return false
	}
	if _, ok := d.tree[p.ID]; ok {
		return false
	}
	d.tree[p.ID] = &Suspect{Process: p.Process, Why: why, Ended: ended}
	d.queue = append(d.queue, p.ID)
	d.addExe(p, ended)
	for _, was := range d.before[p.ID] {
		d.addExe(was, true)
	}
	if in, ok := d.input(p.Process); ok && in.path != "" {
		t := d.trait(in.path)
		if m := markInput(in, t); m.points >= suspicion {
			f := SuspectFile{Path: in.path, File: t.File, Why: m.why, Deleted: !t.There || in.elsewhere, Elsewhere: in.elsewhere}
			if in.elsewhere {
				f.File = d.f.Scripts[p.PID]
			}
			d.addFile(f)
		}
	}
	return true
}

// addExe puts what a process of the tree runs into the evidence, unless it is
// a package's, and what has its name now.
func (d *decision) addExe(p observe.Process, ended bool) {
	t := d.trait(p.Exe)
	m := markExe(p.Process, t)
	if m.points < suspicion && (!d.isKnown(p.Process) || interpreter(p.Exe) != "" || d.trusted(p.Process)) {
		return
	}
	f := SuspectFile{Path: p.Exe, File: p.ExeFile, Why: m.why, Deleted: p.ExeDeleted || p.ExeElsewhere, Elsewhere: p.ExeElsewhere}
	if f.Deleted && !ended {
		f.PID = p.PID
	}
	d.addFile(f)
	if now := markFile(p.Exe, t); replaced(p.Process, t) && now.points >= suspicion {
		d.addFile(SuspectFile{Path: p.Exe, File: t.File, Why: "it took the place of what runs, and " + now.why})
	}
}

func (d *decision) addFile(f SuspectFile) {
	if !f.File.IsZero() {
		d.inodes[f.File] = true
	}
	if !f.Elsewhere {
		d.paths[f.Path] = true
	}
	if f.Why == "" {
		f.Why = "it is evidence already"
	}
	for i, old := range d.files {
		if old.Path == f.Path && old.File == f.File {
			if old.PID == 0 {
				d.files[i].PID = f.PID
			}
			return
		}
	}
	d.files = append(d.files, f)
}

// grow walks from the seeds up while the parent is suspicious itself, and takes
// in whatever descends from the tree or runs its files, until nothing is added.
func (d *decision) grow() {
	for len(d.queue) > 0 {
		for len(d.queue) > 0 {
			id := d.queue[0]
			d.queue = d.queue[1:]
			d.up(id)
			d.down(id)
		}
		d.runners("it runs a file of the threat")
	}
}

// up adds the parent when more than its place speaks against it; its own parent
// follows by the queue. A home directory or /tmp is full of programs that start
// others: editors, build runners, tools of the user's own.
func (d *decision) up(id procfs.ID) {
	p, _, ok := d.get(id)
	if !ok {
		return
	}
	parent, ended, ok := d.get(d.parentOf(p))
	if !ok || d.tree[parent.ID] != nil {
		return
	}
	m := d.markOf(parent.Process)
	switch {
	case m.points < suspicion:
		return
	case !m.place:
	case d.besideFiles(parent.Process):
		m.why += ", beside a file of the threat"
	case d.revives(parent.ID):
		m.why += ", and it started the threat again"
	default:
		return
	}
	d.add(parent, ended, fmt.Sprintf("it started pid %d, and %s", p.PID, m.why))
}

// besideFiles reports whether the executable or script of a process lies in the
// directory of a file of the threat.
func (d *decision) besideFiles(p procfs.Process) bool {
	dirs := []string{path.Dir(p.Exe)}
	if in, ok := d.input(p); ok {
		dirs = []string{path.Dir(in.path)}
	}
	return slices.ContainsFunc(d.files, func(f SuspectFile) bool { return slices.Contains(dirs, path.Dir(f.Path)) })
}

// revives reports whether a process started a member that an earlier look found
// and, afterwards, something that runs a file of the threat again.
func (d *decision) revives(id procfs.ID) bool {
	before, again := false, false
	for _, child := range d.children[id] {
		p, _, ok := d.get(child)
		switch {
		case slices.Contains(d.f.Known.Processes, child):
			before = true
		case ok && d.isKnown(p.Process):
			again = true
		}
	}
	return before && again
}

// down adds the children, and the orphans of the session that a member opened:
// a number in use as a session is never given to a new process.
func (d *decision) down(id procfs.ID) {
	for _, child := range d.children[id] {
		if p, ended, ok := d.get(child); ok {
			d.add(p, ended, fmt.Sprintf("pid %d of the tree started it", id.PID))
		}
	}
	if d.tree[id].SID != id.PID {
		return
	}
	for _, member := range d.sessions[id.PID] {
		if p, ended, ok := d.get(member); ok && id.Start <= p.Start {
			d.add(p, ended, fmt.Sprintf("it belongs to the session that pid %d of the tree opened", id.PID))
		}
	}
}

func (d *decision) ids() []procfs.ID {
	ids := make([]procfs.ID, 0, len(d.tree))
	for id := range d.tree {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, compareID)
	return ids
}

func compareID(a, b procfs.ID) int {
	return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.PID, b.PID))
}

func (d *decision) evidence() Evidence {
	e := Evidence{Verdict: Confirmed, Reasons: d.reasons, Files: d.files}
	for _, id := range d.ids() {
		e.Processes = append(e.Processes, *d.tree[id])
	}
	// What an earlier look knew and nothing runs now is evidence still.
	for _, k := range d.f.Known.Files {
		if !slices.ContainsFunc(e.Files, func(f SuspectFile) bool { return f.Path == k.Path }) {
			e.Files = append(e.Files, SuspectFile{
				Path: k.Path, File: k.File, Why: "it is evidence already", Deleted: k.Elsewhere || !d.trait(k.Path).There, Elsewhere: k.Elsewhere,
			})
		}
	}
	if len(e.Reasons) == 0 {
		e.Reasons = []string{"something of the threat that was found before is there"}
	}
	return e
}

// nothing is the verdict when no process is suspicious.
func (d *decision) nothing() Evidence {
	if len(d.f.Known.Files) > 0 {
		return Evidence{Verdict: NotConfirmed, Reasons: []string{"nothing of the threat runs any more"}}
	}
	if len(d.innocent) == 0 {
		return Evidence{Verdict: Unknown, Reasons: []string{fmt.Sprintf(
			"no process that holds or held the connection in the last %s was found (observer: %s)", d.f.History, d.f.Observer)}}
	}
	verdict := NotConfirmed
	if d.doubtful {
		verdict = Unknown
	}
	return Evidence{Verdict: verdict, Reasons: d.innocent}
}
