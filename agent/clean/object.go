package clean

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/cordon-security/cordon/agent/assess"
	"github.com/cordon-security/cordon/agent/procfs"
	"github.com/cordon-security/cordon/agent/sockdiag"
	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

// ProcessObject returns the id that results use for a process.
func ProcessObject(id procfs.ID) string { return fmt.Sprintf("process-%d-%d", id.PID, id.Start) }

// FileObject returns the id that results use for a file.
func FileObject(path string) string { return "file-" + short(path) }

// EntryObject returns the id that results use for what starts the threat.
func EntryObject(s assess.Start) string { return "persistence-" + short(s.Key()) }

// SocketObject returns the id that results use for a connection.
func SocketObject(s sockdiag.Socket) string { return fmt.Sprintf("socket-%x", s.Cookie) }

func short(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:6])
}

// Objects describes evidence for a result. hashes are hex SHA-256 by path.
func Objects(e assess.Evidence, hashes map[string]string) []*wirev1.Object {
	var all []*wirev1.Object
	ids := make(map[int]string)
	for _, p := range e.Processes {
		ids[p.PID] = ProcessObject(p.ID)
	}
	for _, p := range e.Processes {
		o := &wirev1.Object{
			Id: ProcessObject(p.ID), Kind: wirev1.ObjectKind_OBJECT_KIND_PROCESS, Pid: int32(p.PID), Parent: ids[p.PPID],
			Name: printable(fmt.Sprintf("pid %d %s", p.PID, strings.Join(command(p.Process), " "))), Reason: printable(p.Why),
		}
		if p.Ended {
			o.Name += " (ended)"
		}
		all = append(all, o)
	}
	for _, f := range e.Files {
		all = append(all, &wirev1.Object{
			Id: FileObject(f.Path), Kind: wirev1.ObjectKind_OBJECT_KIND_FILE, Name: printable(f.Path), Reason: printable(f.Why),
			Sha256: hashes[f.Path], Deleted: f.Deleted,
		})
	}
	for _, s := range e.Entries {
		all = append(all, &wirev1.Object{
			Id: EntryObject(s), Kind: wirev1.ObjectKind_OBJECT_KIND_PERSISTENCE, Name: printable(s.Name()), Reason: printable(s.Why),
		})
	}
	return all
}

func command(p procfs.Process) []string {
	if len(p.Args) == 0 {
		return []string{p.Exe}
	}
	return append([]string{p.Exe}, p.Args[1:]...)
}

const maxPrinted = 1024

// printable makes text of the host, which may hold any byte, fit for a result.
func printable(s string) string {
	if len(s) > maxPrinted {
		s = s[:maxPrinted] + "…"
	}
	var b strings.Builder
	for _, r := range strings.ToValidUTF8(s, "\uFFFD") {
		if r < ' ' || r == 0x7f {
			fmt.Fprintf(&b, "\\x%02x", r)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}
