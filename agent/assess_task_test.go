package agent

import (
	"os"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

// A threat runs until the assessment's answer, so that must not wait for what
// takes long and says nothing about the verdict.
func TestAssessmentLeavesWhatStartsTheThreatToTheCleanup(t *testing.T) {
	a := newAgent(t, testConfig(t))
	dir, remote := dropDir(t), c2(t)
	exe := drop(t, dir+"/job")
	const crontab = "/etc/cron.d/zz-job"
	if err := os.WriteFile(crontab, []byte("@reboot root "+exe+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(crontab) })
	launch(t, exe, "-connect", remote.String())
	t.Cleanup(func() { killAll(t, exe) })
	connected(t, a, remote)
	entries := func(r *wirev1.TaskResult) bool {
		return slices.ContainsFunc(r.GetObjects(), func(o *wirev1.Object) bool { return o.GetKind() == wirev1.ObjectKind_OBJECT_KIND_PERSISTENCE })
	}
	r := a.Execute(t.Context(), task("look", assessTask, remote))
	if r.GetVerdict() != wirev1.Verdict_VERDICT_CONFIRMED || len(r.GetObjects()) < 2 || entries(r) {
		t.Errorf("assessment: %s", protojson.Format(r))
	}
	r = a.Execute(t.Context(), task("clean", cleanTask, remote))
	wantDone(t, r)
	if !entries(r) {
		t.Errorf("cleanup: %s", protojson.Format(r))
	}
}
