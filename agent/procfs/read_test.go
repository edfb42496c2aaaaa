package procfs

import "testing"

func TestStatLine(t *testing.T) {
	const tail = " 5 6 7 0 0 4194304 0 0 0 0 0 0 0 0 20 0 3 0 4242 0 0"
	for line, want := range map[string]Process{
		"9 (a) S" + tail:        {ID: ID{9, 4242}, PPID: 5, SID: 7, State: "S", Threads: 3, Comm: "a"},
		"9 (a) R) (b) Z" + tail: {ID: ID{9, 4242}, PPID: 5, SID: 7, State: "Z", Threads: 3, Comm: "a) R) (b"},
	} {
		got, err := parseStat(9, []byte(line))
		if err != nil || got.ID != want.ID || got.PPID != want.PPID || got.SID != want.SID || got.State != want.State || got.Threads != want.Threads || got.Comm != want.Comm {
			t.Errorf("%s: %+v, %v", line, got, err)
		}
	}
	for _, line := range []string{"", "9 (a", "9 (a) S 5 6", "9 (a) S x 6 7 0 0 4194304 0 0 0 0 0 0 0 0 20 0 3 0 4242"} {
		if _, err := parseStat(9, []byte(line)); err == nil {
			t.Errorf("%q is accepted", line)
		}
	}
}

func TestDeadIsWithoutThreads(t *testing.T) {
	for _, c := range []struct {
		state   string
		threads int
		want    bool
	}{{"S", 1, false}, {"Z", 1, true}, {"Z", 0, true}, {"Z", 2, false}, {"X", 2, true}} {
		p := Process{State: c.state, Threads: c.threads}
		if p.Dead() != c.want {
			t.Errorf("%s with %d threads: dead %v", c.state, c.threads, p.Dead())
		}
	}
}

// The kernel writes blanks and backslashes of a mount's path in octal.
func TestMountPaths(t *testing.T) {
	if got := unescape(`/a\040b\134c`); got != `/a b\c` {
		t.Errorf("%q", got)
	}
	for _, c := range []struct {
		name, dir, rest string
		ok              bool
	}{
		{"/a/b", "/a", "b", true}, {"/a", "/a", "", true}, {"/ab", "/a", "", false}, {"/a", "/", "a", true},
	} {
		if rest, ok := below(c.name, c.dir); ok != c.ok || ok && rest != c.rest {
			t.Errorf("%s below %s: %q %v", c.name, c.dir, rest, ok)
		}
	}
}
