// Package rooms holds the rules of the tree by its tests: which part may
// import which, what every package and exported name must say about itself,
// and what no file may say.
//
// The rooms are the folders that hold the product's parts: mitigator, enforcer,
// agent, portal, reputation, appliance. The command lines import the rooms, the
// rooms import internal, and rooms never import each other: they meet in the
// wire protocol. docs/ARCHITECTURE.md says why.
package rooms

import "strings"

// module is the import path of the tree.
const module = "github.com/cordon-security/cordon"

// names lists the rooms.
var names = []string{"mitigator", "enforcer", "agent", "portal", "reputation", "appliance"}

// Of returns the first folder of an import path inside the tree: a room, cmd,
// internal or packaging; "" for a package from elsewhere.
func Of(path string) string {
	rest, ok := strings.CutPrefix(path, module+"/")
	if !ok {
		return ""
	}
	first, _, _ := strings.Cut(rest, "/")
	return first
}

// IsRoom reports whether a folder's name is a room's.
func IsRoom(folder string) bool {
	for _, n := range names {
		if n == folder {
			return true
		}
	}
	return false
}

// Refused says why the package from may not import the package to, and returns
// "" when it may. In tests the same holds, except that those of packaging may
// look into rooms.
func Refused(from, to string) string {
	f, t := Of(from), Of(to)
	switch {
	case t == "" || f == t:
		return ""
	case t == "cmd":
		return "cmd holds programs: nothing imports it"
	case t == "packaging":
		return "packaging holds no library"
	case IsRoom(f) && IsRoom(t):
		return "rooms never import each other: they meet in the wire protocol"
	case f == "internal" && IsRoom(t):
		return "internal imports no room"
	}
	return ""
}
