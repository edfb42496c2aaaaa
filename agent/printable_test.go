package agent

import (
	"os"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/cordon-security/cordon/agent/vault"
	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

func TestEveryTextOfAResultIsPrintable(t *testing.T) {
	const raw, fit = "/tmp/\xff\n\x1b[1mü\u009b", "/tmp/\uFFFD\\x0a\\x1b[1mü\\x9b"
	build := func(s string) *wirev1.TaskResult {
		return &wirev1.TaskResult{
			TaskId: "t", Reasons: []string{"plain", s}, Observer: s, AgentVersion: s,
			Objects: []*wirev1.Object{{Id: s, Name: s, Reason: s, Parent: s, Sha256: s}, {}},
			Actions: []*wirev1.Action{{Verb: s, ObjectId: s, Error: s, VaultId: s}},
		}
	}
	r := build(raw)
	printable(r.ProtoReflect())
	if want := build(fit); !proto.Equal(r, want) {
		t.Fatalf("got  %v\nwant %v", r, want)
	}
	if _, err := proto.Marshal(r); err != nil {
		t.Fatal(err)
	}
}

func TestFileNameThatIsNoText(t *testing.T) {
	a := newAgent(t, testConfig(t))
	dir, remote := dropDir(t), c2(t)
	exe := drop(t, dir+"/\xff\xfe")
	launch(t, exe, "-connect", remote.String())
	t.Cleanup(func() { killAll(t, remote.String()) })
	connected(t, a, remote)
	assessed := a.Execute(t.Context(), task("look", assessTask, remote))
	if _, err := proto.Marshal(assessed); err != nil {
		t.Fatal(err)
	}
	r := a.Execute(t.Context(), task("name", cleanTask, remote))
	wantDone(t, r)
	if _, err := proto.Marshal(r); err != nil {
		t.Fatal(err)
	}
	if again := a.finished("name"); again == nil || !proto.Equal(again, r) {
		t.Error("the result is not in the journal")
	}
	if left := running(t, remote.String()); len(left) != 0 {
		t.Errorf("still running: %v", left)
	}
	if _, err := os.Lstat(exe); !os.IsNotExist(err) {
		t.Errorf("the executable is still there: %v", err)
	}
	items, err := a.vault.List()
	if err != nil || !slices.ContainsFunc(items, func(i vault.Item) bool { return i.Name() == exe }) {
		t.Errorf("the executable is not in the vault: %v", err)
	}
}

// The error of an action names the file too.
func TestFileNameThatIsNoTextInAnError(t *testing.T) {
	c := testConfig(t)
	a := newAgent(t, c)
	dir, remote := dropDir(t), c2(t)
	exe := drop(t, dir+"/\xff\xfe")
	if err := os.Truncate(exe, c.VaultMaxFileSize+1); err != nil {
		t.Fatal(err)
	}
	launch(t, exe, "-connect", remote.String())
	t.Cleanup(func() { killAll(t, remote.String()) })
	connected(t, a, remote)
	r := a.Execute(t.Context(), task("large", cleanTask, remote))
	if _, err := proto.Marshal(r); err != nil {
		t.Fatal(err)
	}
	if r.GetStatus() != wirev1.TaskStatus_TASK_STATUS_UNRESOLVED || a.finished("large") == nil {
		t.Errorf("result:\n%s", protojson.Format(r))
	}
}

func TestRestoreOfWhatIsNotThere(t *testing.T) {
	a := newAgent(t, testConfig(t))
	r := a.Execute(t.Context(), &wirev1.Task{Id: "r", Kind: wirev1.TaskKind_TASK_KIND_RESTORE, VaultIds: []string{"none", "a\nb"}})
	if r.GetStatus() != wirev1.TaskStatus_TASK_STATUS_UNRESOLVED || len(r.GetActions()) != 2 {
		t.Fatalf("%v", r)
	}
	if got := r.GetActions()[1].GetVaultId(); got != `a\x0ab` {
		t.Errorf("vault id %q", got)
	}
}
