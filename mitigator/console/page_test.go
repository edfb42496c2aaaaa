package console

import (
	"html"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

func TestNew(t *testing.T) {
	good := Options{API: story(), Admins: &admins{}, Log: slog.New(slog.DiscardHandler)}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	negative := good
	negative.SessionLifetime = -time.Second
	for _, o := range []Options{{}, negative} {
		if _, err := New(o); err == nil {
			t.Errorf("New(%+v) accepted", o)
		}
	}
}

func TestHeaders(t *testing.T) {
	s := newSite(t, story())
	want := map[string]string{
		"Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; " +
			"form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
		"Strict-Transport-Security": "max-age=31536000",
		"X-Content-Type-Options":    "nosniff",
		"Referrer-Policy":           "same-origin",
		"Cache-Control":             "no-store",
	}
	check := func(path string) {
		t.Helper()
		r := s.get(path)
		for name, value := range want {
			if got := r.Header.Get(name); got != value {
				t.Errorf("GET %s: %s = %q, want %q", path, name, got, value)
			}
		}
	}
	for _, path := range []string{"/login", "/", "/static/nothing", "/static/style.css"} {
		check(path)
	}
	s.mustLogin()
	for _, path := range append(everyPage, "/nothing") {
		check(path)
	}
}

func TestOwnFiles(t *testing.T) {
	s := newSite(t, story())
	page := s.get("/login").body
	links := regexp.MustCompile(`(?:src|href)="(/static/[^"]+)"`).FindAllStringSubmatch(page, -1)
	if len(links) < 2 {
		t.Fatalf("the page loads %d files", len(links))
	}
	for _, l := range links {
		r := s.get(html.UnescapeString(l[1]))
		if r.StatusCode != http.StatusOK || !strings.Contains(r.Header.Get("Cache-Control"), "immutable") || len(r.body) == 0 {
			t.Errorf("%s = %s, Cache-Control %q", l[1], r.Status, r.Header.Get("Cache-Control"))
		}
	}
	for _, path := range []string{"/static/nothing", "/static/..%2fconsole.go", "/static/"} {
		if r := s.get(path); r.StatusCode == http.StatusOK {
			t.Errorf("GET %s = %s", path, r.Status)
		}
	}
	if strings.Contains(page, "http://") || strings.Contains(page, "https://") || strings.Contains(page, "<style") || strings.Contains(page, "style=") {
		t.Error("the page names another site or brings a style of its own")
	}
}

func TestNothingButReads(t *testing.T) {
	s := newSite(t, story())
	s.mustLogin()
	for _, path := range everyPage {
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete} {
			if r := s.do(method, path, url.Values{"id": {"7"}}); r.StatusCode != http.StatusMethodNotAllowed {
				t.Errorf("%s %s = %s, want 405", method, path, r.Status)
			}
		}
	}
}

// readable is a page's text as a person reads it, on one line.
func readable(body string) string {
	_, body, _ = strings.Cut(body, "<main")
	text := html.UnescapeString(regexp.MustCompile(`<[^>]*>`).ReplaceAllString(body, " "))
	return strings.Join(strings.Fields(text), " ")
}

func TestPagesSay(t *testing.T) {
	a := story()
	s := newSite(t, a)
	s.mustLogin()
	for path, parts := range map[string][]string{
		"/":             {"Enforce mode", "Source dmz is not healthy", "2 open threats", "1 waits for a person", "2 of 3 agents connected", "1 of 2 quarantines in force", "1312 events, 2 rejected"},
		"/threats/7":    {"detected → assessing", "+1.412 s", "Found 2 processes, 2 files, 1 connection, 1 start entry.", "2 processes stopped, 1 file moved into the vault, 1 start entry disabled, 1 connection cut, 1 action failed or refused.", `"signature_id": 2024897`},
		"/threats/8":    {"the agent did not answer in time", "in force", "19 ms after the order", "limited access", "note follows the endpoint to 10.47.8.152", "by device enforcer"},
		"/threats/9":    {"Waits for a person to decide: the endpoint is a victim", "the endpoint has no agent"},
		"/events":       {"GPL ICMP PING", "kept", "threat 9", "198.51.100.7:26078 → 10.47.8.20:22"},
		"/endpoints":    {"alice", "fd00::a", "agent connected", "agent away", "no agent", "q-5f1c", "4 10.47.8.77 –", "5 endpoint 5"},
		"/quarantines":  {"bob", "in force", "by policy", "released by a person"},
		"/?show=open":   {"Threat event log", "printer", "bob"},
		"/threats/4711": {"There is nothing at this address."},
	} {
		text := readable(s.get(path).body)
		for _, part := range parts {
			if !strings.Contains(text, part) {
				t.Errorf("%s does not say %q: %s", path, part, text)
			}
		}
	}
	if body := s.get("/").body; !strings.Contains(body, `<time datetime="2026-03-24T14:45:19.037Z">2026-03-24 14:45:19</time>`) {
		t.Error("no time in UTC by RFC 3339")
	}
	if body := s.get("/").body; strings.Index(body, "Open threats") > strings.Index(body, "Threat event log") || strings.Index(body, "not healthy") > strings.Index(body, "Open threats") {
		t.Error("the alarm does not stand before the open threats, or they not before the log")
	}
	if strings.Contains(readable(s.get("/?show=open").body), "alice") || strings.Contains(readable(s.get("/quarantines").body), "carol") {
		t.Error("what is over is shown with what is open")
	}
	a.status.Mode = "observe"
	if text := readable(s.get("/").body); !strings.Contains(text, "Observe mode Cordon does everything but enforce: nobody new is cut off.") {
		t.Errorf("the observe mode is not stated: %s", text)
	}
}

func TestPaging(t *testing.T) {
	const total = 2*perPage + 7
	a := &api{status: &wirev1.GetStatusResponse{}}
	for n := range total {
		id := int64(total - n)
		a.threats = append(a.threats, &wirev1.GetThreatResponse{Threat: &wirev1.Threat{Id: id, Signature: "s", Ended: id%2 == 0}})
		a.events = append(a.events, &wirev1.Event{Id: id})
		a.endpoints = append(a.endpoints, &wirev1.Endpoint{Id: int64(n + 1)})
	}
	s := newSite(t, a)
	s.mustLogin()
	for start, want := range map[string]int{"/": total, "/?show=open": (total + 1) / 2, "/events": total, "/endpoints": total} {
		seen := make(map[string]bool)
		pages := 0
		for path := start; path != ""; pages++ {
			body := s.get(path).body
			for _, id := range regexp.MustCompile(`<span class="id">(\d+)</span>`).FindAllStringSubmatch(body, -1) {
				seen[id[1]] = true
			}
			path = ""
			if m := regexp.MustCompile(`rel="next" href="([^"]+)"`).FindStringSubmatch(body); m != nil {
				path = html.UnescapeString(m[1])
			}
		}
		if len(seen) != want || pages != (want+perPage-1)/perPage {
			t.Errorf("%s: %d rows on %d pages, want %d", start, len(seen), pages, want)
		}
	}
	if body := s.get("/").body; !strings.Contains(body, "All open threats") {
		t.Error("no way to all open threats")
	}
}

func TestWhenTheAPIFails(t *testing.T) {
	a := story()
	s := newSite(t, a)
	s.mustLogin()
	a.broken = true
	for _, path := range everyPage {
		r := s.get(path)
		if r.StatusCode != http.StatusServiceUnavailable || strings.Contains(r.body, "secret path") || !strings.Contains(r.body, "its log says what is wrong") {
			t.Errorf("GET %s = %s", path, r.Status)
		}
	}
	if !strings.Contains(s.log.String(), "secret path") {
		t.Error("the log does not say why")
	}
}

// TestHostile holds that what alerts bring arrives as text, bounded and without
// characters that deceive.
func TestHostile(t *testing.T) {
	s := newSite(t, hostileStory())
	s.mustLogin()
	own := regexp.MustCompile(`<script src="/static/refresh\.js\?v=[0-9a-f]+" defer></script>`)
	for _, path := range []string{"/", "/threats/66", "/events", "/endpoints", "/quarantines"} {
		r := s.get(path)
		if r.StatusCode != http.StatusOK {
			t.Fatalf("GET %s = %s", path, r.Status)
		}
		body := own.ReplaceAllString(r.body, "")
		if len(body) > 3<<20 {
			t.Errorf("%s has %d bytes", path, len(body))
		}
		for _, tag := range []string{"<script", "<img src=x", "<iframe", "<svg", `href="javascript:`, "<!--"} {
			if strings.Contains(body, tag) {
				t.Errorf("%s holds %s from an alert", path, tag)
			}
		}
		if !utf8.ValidString(body) {
			t.Errorf("%s is not UTF-8", path)
		}
		for _, c := range body {
			if c != '\n' && !unicode.IsPrint(c) {
				t.Errorf("%s holds %U", path, c)
				break
			}
		}
		for _, shown := range []string{"<script>window.pwned=1", "⟨U+202E⟩", "⟨FF⟩"} {
			if !strings.Contains(html.UnescapeString(body), html.UnescapeString(shown)) {
				t.Errorf("%s does not show %s", path, shown)
			}
		}
	}
}

func TestClean(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"plain", "plain"}, {"Größe 大きい שלום 🙂", "Größe 大きい שלום 🙂"}, {"a\tb\r\nc", "a b  c"}, {"a\u202eb", "a⟨U+202E⟩b"}, {"\x00\x1b", "⟨U+0000⟩⟨U+001B⟩"},
		{"\xff", "⟨FF⟩"}, {"\ufffd", "\ufffd"}, {"\u2028", "⟨U+2028⟩"}, {"\u3164", "⟨U+3164⟩"}, {"\U000e0041", "⟨U+E0041⟩"},
		{"e" + strings.Repeat("\u0301", 9), "e\u0301\u0301\u0301"}, {strings.Repeat("é", 60), strings.Repeat("é", 50) + "…"}, {strings.Repeat("é", 50), strings.Repeat("é", 50)},
	} {
		if got := clean(c.in, 50); got != c.want {
			t.Errorf("clean(%q) = %q, want %q", c.in, got, c.want)
		}
	}
	if got := clean(strings.Repeat("\u202e", 1<<20), 50); utf8.RuneCountInString(got) > 70 {
		t.Errorf("numbers are not counted: %q", got)
	}
}

func TestLayout(t *testing.T) {
	budget := maxRecords
	if got := layout([]byte(`{"a":[1,"x\ny"]}`), &budget); got.Text != "{\n  \"a\": [\n    1,\n    \"x\\ny\"\n  ]\n}" || got.Note != "" {
		t.Errorf("JSON = %+v", got)
	}
	if got := layout([]byte("not { json"), &budget); got.Text != "not { json" {
		t.Errorf("no JSON = %+v", got)
	}
	for i, raw := range records() {
		budget := maxRecords
		if got := layout([]byte(raw), &budget); len(got.Text) > maxLaidOut || got.Text == "" {
			t.Errorf("record %d: %d bytes of text", i, len(got.Text))
		}
	}
	big := []byte(strings.Repeat("x", 1<<20))
	if got := layout(big, &budget); len(got.Text) != maxRecord || got.Note != "the first "+strconv.Itoa(maxRecord)+" of 1048576 bytes" {
		t.Errorf("a large record = %d bytes, note %q", len(got.Text), got.Note)
	}
	shown := 0
	for budget = maxRecords; layout(big, &budget).Text != ""; {
		shown++
	}
	if shown != maxRecords/maxRecord {
		t.Errorf("%d large records are shown on a page", shown)
	}
}

// FuzzLayout holds that any record becomes bounded text that can be read.
func FuzzLayout(f *testing.F) {
	for _, seed := range slices.Concat(hostile(), []string{record1, `{"a":"\u202e"}`}) {
		f.Add([]byte(seed[:min(len(seed), 5000)]))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		budget := maxRecords
		got := layout(raw, &budget)
		if len(got.Text) > 16*maxLaidOut || !utf8.ValidString(got.Text) {
			t.Errorf("%d bytes of text", len(got.Text))
		}
		for _, c := range got.Text + clean(string(raw), maxText) {
			if c != '\n' && !unicode.IsPrint(c) {
				t.Errorf("%U in the text", c)
			}
		}
	})
}

func TestActions(t *testing.T) {
	for _, c := range []struct {
		verb    string
		outcome wirev1.ActionOutcome
		want    string
		tone    tone
	}{
		{"stop", wirev1.ActionOutcome_ACTION_OUTCOME_DONE, "Stopped x", good},
		{"stop", wirev1.ActionOutcome_ACTION_OUTCOME_FAILED, "Could not stop x: why", alarm},
		{"vault", wirev1.ActionOutcome_ACTION_OUTCOME_ALREADY, "Was gone already: x", good},
		{"disable", wirev1.ActionOutcome_ACTION_OUTCOME_REFUSED, "The guard refused to disable x: why", warning},
		{"<new>", wirev1.ActionOutcome_ACTION_OUTCOME_DONE, "Done (<new>): x", good},
		{"stop", 99, "Could not stop x: why", alarm},
	} {
		a := &wirev1.Action{Verb: c.verb, Outcome: c.outcome}
		if c.tone != good {
			a.Error = "why"
		}
		if text, tone := actionWords(a, "x"); text != c.want || tone != c.tone {
			t.Errorf("%s %v = %q, %s", c.verb, c.outcome, text, tone)
		}
	}
}

func TestOutcomes(t *testing.T) {
	task := func(kind wirev1.TaskKind, status wirev1.TaskStatus, verdict wirev1.Verdict) *wirev1.TaskInfo {
		return &wirev1.TaskInfo{Kind: kind, State: "done", Result: &wirev1.TaskResult{Status: status, Verdict: verdict}}
	}
	const assess, cleanup = wirev1.TaskKind_TASK_KIND_ASSESS, wirev1.TaskKind_TASK_KIND_CLEAN
	const done = wirev1.TaskStatus_TASK_STATUS_DONE
	for _, c := range []struct {
		task *wirev1.TaskInfo
		want string
	}{
		{&wirev1.TaskInfo{State: "pending"}, "waiting for the agent"},
		{&wirev1.TaskInfo{State: "delivered"}, "the agent is at it"},
		{&wirev1.TaskInfo{State: "cancelled"}, "called back"},
		{&wirev1.TaskInfo{State: "done"}, "done"},
		{task(assess, done, wirev1.Verdict_VERDICT_CONFIRMED), "confirmed"},
		{task(assess, done, wirev1.Verdict_VERDICT_NOT_CONFIRMED), "not confirmed: nothing of it was found"},
		{task(assess, done, wirev1.Verdict_VERDICT_UNKNOWN), "the agent could not tell"},
		{task(cleanup, done, wirev1.Verdict_VERDICT_CONFIRMED), "gone: a second assessment found nothing more"},
		{task(cleanup, wirev1.TaskStatus_TASK_STATUS_UNRESOLVED, 0), "something of the threat is left"},
		{task(cleanup, wirev1.TaskStatus_TASK_STATUS_FAILED, 0), "the agent could not carry it out"},
		{task(cleanup, wirev1.TaskStatus_TASK_STATUS_CANCELLED, 0), "called back"},
	} {
		if got := outcome(c.task).Text; got != c.want {
			t.Errorf("%v = %q, want %q", c.task, got, c.want)
		}
	}
}
