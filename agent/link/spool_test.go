package link

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

func testSpool(t *testing.T) (*spool, string) {
	t.Helper()
	dir := t.TempDir()
	s, err := openSpool(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s, dir
}

func result(id string) *wirev1.TaskResult { return &wirev1.TaskResult{TaskId: id} }

func count(t *testing.T, dir string) int {
	t.Helper()
	names, err := files(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

func TestSpoolWayOfATask(t *testing.T) {
	s, dir := testSpool(t)
	hostile := "../../etc/passwd\x00" + strings.Repeat("x", 500)
	if err := s.accept(&wirev1.Task{Id: hostile}); err != nil {
		t.Fatal(err)
	}
	ids, err := s.unfinished()
	if err != nil || len(ids) != 1 || ids[0] != hostile {
		t.Fatalf("unfinished %q, %v", ids, err)
	}
	if err := s.finish(result(hostile)); err != nil {
		t.Fatal(err)
	}
	// A crash in the middle of a write leaves a file that must not count.
	if err := os.WriteFile(filepath.Join(dir, "outbox", ".half.pb.1"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err = openSpool(dir); err != nil {
		t.Fatal(err)
	}
	names, err := s.waiting()
	if err != nil || len(names) != 1 || count(t, s.accepted) != 0 {
		t.Fatalf("waiting %v, %v", names, err)
	}
	if r, err := s.result(names[0]); err != nil || r.GetTaskId() != hostile {
		t.Fatalf("result %v, %v", r, err)
	}
	if err := s.acknowledged(names[0]); err != nil {
		t.Fatal(err)
	}
	if found, err := s.hasResult(hostile); !found || err != nil {
		t.Fatalf("a done task is not known: %v", err)
	}
	if count(t, s.outbox) != 1 || count(t, s.done) != 0 {
		t.Fatal("a done task that is asked for is not reported again")
	}
	if found, err := s.hasResult("other"); found || err != nil {
		t.Fatalf("found %v, %v", found, err)
	}
	for range 2 {
		if err := s.drop("other"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestResultThatCannotBeSentIsReplaced(t *testing.T) {
	s, _ := testSpool(t)
	if err := s.accept(&wirev1.Task{Id: "bad"}); err != nil {
		t.Fatal(err)
	}
	started := timestamppb.New(time.Unix(1, 0))
	err := s.finish(&wirev1.TaskResult{
		TaskId: "bad", Status: wirev1.TaskStatus_TASK_STATUS_DONE, Verdict: wirev1.Verdict_VERDICT_CONFIRMED,
		Reasons: []string{"/tmp/\xff"}, AgentVersion: "\xff", StartedAt: started,
	})
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.result(fileName("bad"))
	if err != nil {
		t.Fatal(err)
	}
	if r.GetTaskId() != "bad" || r.GetStatus() != wirev1.TaskStatus_TASK_STATUS_FAILED || len(r.GetReasons()) != 1 || !r.GetStartedAt().AsTime().Equal(started.AsTime()) {
		t.Fatalf("result %v", r)
	}
	if ids, err := s.unfinished(); err != nil || len(ids) != 0 {
		t.Fatalf("unfinished %v, %v", ids, err)
	}
}

func TestSpoolIsBounded(t *testing.T) {
	s, _ := testSpool(t)
	for i := range maxDone + 5 {
		if err := s.finish(result(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
		if err := s.acknowledged(fileName(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	if n := count(t, s.done); n != maxDone {
		t.Fatalf("%d done results are kept, want %d", n, maxDone)
	}
	if found, _ := s.hasResult(fmt.Sprint(maxDone + 4)); !found {
		t.Fatal("the youngest was dropped")
	}
	for i := range maxOutbox {
		path := filepath.Join(s.outbox, fmt.Sprint(i)+fileSuffix)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.accept(&wirev1.Task{Id: "one more"}); !errors.Is(err, errOutboxFull) {
		t.Fatalf("error %v, want errOutboxFull", err)
	}
}

func TestSpoolDamagedFiles(t *testing.T) {
	s, _ := testSpool(t)
	for _, dir := range []string{s.accepted, s.outbox} {
		if err := os.WriteFile(filepath.Join(dir, "x.pb"), []byte{0xff, 0xff}, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if ids, err := s.unfinished(); err != nil || len(ids) != 0 {
		t.Fatalf("unfinished %v, %v", ids, err)
	}
	if _, err := s.result("x.pb"); err == nil {
		t.Fatal("a damaged result was read")
	}
	if err := s.setAside("x.pb"); err != nil || count(t, s.refused) != 1 {
		t.Fatalf("not set aside: %v", err)
	}
}

func TestBackoff(t *testing.T) {
	b := backoff{base: backoffBase, cap: backoffCap}
	for n := range 100 {
		bound := backoffCap
		if n < 7 {
			bound = min(backoffCap, backoffBase<<n)
		}
		if wait := b.next(); wait < 0 || wait > bound {
			t.Fatalf("wait %d is %s, more than %s", n, wait, bound)
		}
	}
	b.reset()
	if wait := b.next(); wait > backoffBase {
		t.Fatalf("after a reset it waits %s", wait)
	}
	waits := map[time.Duration]bool{}
	for range 20 {
		b.attempt = 10
		waits[b.next()] = true
	}
	if len(waits) < 10 {
		t.Fatal("there is no jitter")
	}
}
