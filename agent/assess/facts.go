package assess

import (
	"net/netip"
	"time"

	"github.com/cordon-security/cordon/agent/observe"
	"github.com/cordon-security/cordon/agent/packages"
	"github.com/cordon-security/cordon/agent/procfs"
)

// Flow is one exchange on the network, as seen from the endpoint.
type Flow struct {
	// Protocol is the IANA number: 6 TCP, 17 UDP.
	Protocol uint8          `json:"protocol"`
	Local    netip.AddrPort `json:"local"`
	Remote   netip.AddrPort `json:"remote"`
	SeenAt   time.Time      `json:"seen_at"`
}

// Holder is a process that holds or held the socket of a flow.
type Holder struct {
	Flow    int       `json:"flow"` // index in Facts.Flows
	Process procfs.ID `json:"process"`
	// Via says how it was found: "sock_diag", "history", "listener".
	Via string `json:"via"`
	// Live is true while the connection is open.
	Live   bool      `json:"live"`
	Closed time.Time `json:"closed,omitzero"`
}

// Trait is what is known of a file that may be evidence.
type Trait struct {
	// There is true when a regular file is at the path itself.
	There bool `json:"there"`
	// Target is where the path leads when symbolic links are followed; empty
	// when it leads to itself or to nothing.
	Target string        `json:"target,omitempty"`
	File   procfs.FileID `json:"file,omitzero"`
	// Memory is true when it lies on a file system in memory, as tmpfs.
	Memory   bool              `json:"memory,omitempty"`
	Standing packages.Standing `json:"standing"`
}

// Known is what an earlier look of the same task found; it stays evidence.
type Known struct {
	Files []KnownFile `json:"files,omitempty"`
	// Processes were part of the tree.
	Processes []procfs.ID `json:"processes,omitempty"`
}

// KnownFile is a file of an earlier look.
type KnownFile struct {
	Path string        `json:"path"`
	File procfs.FileID `json:"file,omitzero"`
	// Elsewhere is true when the path is none of this host's.
	Elsewhere bool `json:"elsewhere,omitempty"`
}

// Facts are all that Decide looks at.
type Facts struct {
	At      time.Time `json:"at"`
	Flows   []Flow    `json:"flows"`
	Holders []Holder  `json:"holders"`
	// Live is the process table by pid, Ended those that ended, in order.
	Live  map[int]observe.Process `json:"live"`
	Ended []observe.Process       `json:"ended,omitempty"`
	// Inputs are the holders whose descriptor 0 is the socket of a flow: what
	// the other side sends is what they run.
	Inputs map[int]bool `json:"inputs,omitempty"`
	// Scripts are the files that the script paths of live interpreters lead to
	// in their own root directory, which need not be the host's.
	Scripts map[int]procfs.FileID `json:"scripts,omitempty"`
	// Traits is by path.
	Traits map[string]Trait `json:"traits"`
	// Protected says of each live process that the guard keeps why it does.
	Protected map[int]string `json:"protected,omitempty"`
	Known     Known          `json:"known,omitzero"`
	// Observer names the source of events, History how long it reaches back.
	Observer string        `json:"observer"`
	History  time.Duration `json:"history"`
}
