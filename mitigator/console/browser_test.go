package console

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// browser is a real browser with one page, and what its console complained of.
type browser struct {
	t   *testing.T
	ctx context.Context

	mu         sync.Mutex
	complaints []string
}

// openBrowser starts Chromium, which trusts the server by its key alone.
func openBrowser(t *testing.T, server *httptest.Server) *browser {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("no Chromium: install it (apt-get install chromium)")
		}
		t.Skip("no Chromium: install it (apt-get install chromium)")
	}
	pin := sha256.Sum256(server.Certificate().RawSubjectPublicKeyInfo)
	options := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()), chromedp.Headless, chromedp.DisableGPU, chromedp.NoFirstRun,
		chromedp.Flag("ignore-certificate-errors-spki-list", base64.StdEncoding.EncodeToString(pin[:])),
	}
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // Chromium refuses to run as root with it
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	b := &browser{t: t, ctx: ctx}
	if err := chromedp.Listen(ctx, b.listen); err != nil {
		t.Fatalf("browser: %v", err)
	}
	b.do(command(network.Enable, network.EnableParams{}), command(log.Enable, cdp.Empty{}), command(runtime.Enable, cdp.Empty{}))
	return b
}

// command is a command of the protocol as a step.
func command[P, R any](c cdp.Command[P, R], params P) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		_, err := chromedp.Call(ctx, c, params)
		return err
	})
}

func (b *browser) listen(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *log.EventEntryAdded:
		b.complaints = append(b.complaints, string(e.Entry.Source)+": "+e.Entry.Text+" "+e.Entry.URL)
	case *runtime.EventExceptionThrown:
		b.complaints = append(b.complaints, "exception: "+e.ExceptionDetails.Text)
	case *runtime.EventConsoleAPICalled:
		b.complaints = append(b.complaints, "console: "+string(e.Type))
	case *network.EventLoadingFailed:
		if !e.Canceled {
			b.complaints = append(b.complaints, "not loaded: "+e.ErrorText)
		}
	}
}

func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.t.Fatalf("browser: %v", err)
	}
}

// eval returns what an expression comes to on the page.
func eval[T any](b *browser, expression string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Fatalf("browser: %v", err)
	}
	return v
}

// text is what a person can read on the page.
func (b *browser) text() string {
	b.t.Helper()
	return eval[string](b, `document.querySelector("main").innerText`)
}

func (b *browser) wants(parts ...string) {
	b.t.Helper()
	text := strings.ToLower(strings.Join(strings.Fields(b.text()), " "))
	for _, part := range parts {
		if !strings.Contains(text, strings.ToLower(part)) {
			b.t.Errorf("the page does not say %q; it says: %.1500s", part, text)
		}
	}
}

// shot keeps a picture of the page where CONSOLE_SHOTS says, for people; of
// one that is longer than anybody looks at, only its beginning.
func (b *browser) shot(name string) {
	b.t.Helper()
	dir := os.Getenv("CONSOLE_SHOTS")
	if dir == "" {
		return
	}
	take := chromedp.FullScreenshot(100)
	if eval[int](b, `document.documentElement.scrollHeight`) > 9000 {
		take = chromedp.CaptureScreenshot()
	}
	png, err := chromedp.Run(b.ctx, take)
	if err != nil {
		b.t.Fatalf("browser: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// fits holds that nothing makes the page wider than the window.
func (b *browser) fits(name string) {
	b.t.Helper()
	if over := eval[int](b, `document.documentElement.scrollWidth - innerWidth`); over > 0 {
		b.t.Errorf("%s is %d pixels wider than the window", name, over)
	}
}

// contrast lists the texts whose contrast with what is behind them is less than
// WCAG 2.2 wants at level AA (1.4.3: 4.5 to 1).
const contrast = `(() => {
  const rgba = c => { const n = c.match(/[\d.]+/g).map(Number); return [n[0], n[1], n[2], n.length > 3 ? n[3] : 1]; };
  const lum = c => { const [r, g, b] = c.slice(0, 3).map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
  const behind = e => { for (; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor); if (c[3] === 1) return c; } return [255, 255, 255, 1]; };
  const bad = [];
  for (const e of document.querySelectorAll("body *")) {
    if (!e.checkVisibility() || ![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
    const a = lum(rgba(getComputedStyle(e).color)), b = lum(behind(e));
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) bad.push(e.tagName + "." + e.className + " " + ratio.toFixed(2) + " " + e.textContent.slice(0, 40));
  }
  return bad;
})()`

func (b *browser) legible(name string) {
	b.t.Helper()
	for _, text := range eval[[]string](b, contrast) {
		b.t.Errorf("%s: too little contrast: %s", name, text)
	}
}

func scheme(name string) chromedp.Action[chromedp.Void] {
	return command(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: name}, {Name: "prefers-reduced-motion", Value: "reduce"},
	}})
}

func (b *browser) quiet() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.complaints {
		b.t.Errorf("the browser complains: %s", c)
	}
}

// looks holds that a page fits in every width and can be read in both schemes.
func (b *browser) looks(name string) {
	b.t.Helper()
	for _, size := range []struct {
		name  string
		width int64
	}{{"narrow", 360}, {"middle", 1000}, {"wide", 1280}} {
		b.do(chromedp.EmulateViewport(size.width, 800))
		b.fits(name + ", " + size.name)
		b.shot(name + "-" + size.name + "-light")
	}
	b.legible(name + ", light")
	b.do(scheme("dark"))
	b.legible(name + ", dark")
	b.shot(name + "-wide-dark")
	b.do(scheme("light"))
}

// open goes to a page of a site.
func (b *browser) open(s *site, path string) {
	b.t.Helper()
	b.do(chromedp.Navigate(s.server.URL+path), chromedp.WaitVisible(chromedp.CSS("main")))
}

// login logs in on the log-in page, which must be the one that is open.
func (b *browser) login() {
	b.t.Helper()
	token := chromedp.CSS("#token")
	b.do(chromedp.WaitVisible(token), chromedp.SendKeys(token, goodToken), chromedp.Submit(token),
		chromedp.WaitVisible(chromedp.CSS(".who")))
}

// at makes b's failures those of the test t.
func (b *browser) at(t *testing.T) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.t, b.complaints = t, nil
}

// TestBrowser has a real browser do what a person and a hostile alert do.
func TestBrowser(t *testing.T) {
	s := newSite(t, story())
	b := openBrowser(t, s.server)
	for _, c := range []struct {
		name string
		test func(*testing.T, *browser)
	}{
		{"reads a timeline", testTimeline}, {"looks", testLooks}, {"hostile text", testHostile},
		{"refresh", testRefresh}, {"other sites", testOtherSites},
	} {
		t.Run(c.name, func(t *testing.T) {
			b.at(t)
			defer b.do(chromedp.Navigate("about:blank")) // a page that is left open would refresh when its server is gone
			c.test(t, b)
		})
	}
}

func testTimeline(t *testing.T, b *browser) {
	s := newSite(t, story())
	b.open(s, "/threats/7")
	b.login()
	b.do(chromedp.WaitVisible(chromedp.CSS("#timeline")))
	b.wants("ET MALWARE Known C2 Beacon", "alice", "detected → assessing", "cleaning → resolved", "by agent alice",
		"Stopped pid 4711 /var/tmp/.x/beacon -d", "Moved into the vault: /var/tmp/.x/beacon", "cordon-agent restore v-81c2",
		"process tree stopped after 62 ms", "The guard refused to move into the vault")

	b.do(chromedp.Click(chromedp.CSS(".brand")), chromedp.WaitVisible(chromedp.CSS("#log")))
	b.wants("Enforce mode", "Alarm", "not healthy", "Open threats", "Threat event log", "2 of 3", "printer")
	b.do(chromedp.Click(chromedp.CSS(`section[aria-labelledby=log] a[href="/threats/7"]`)), chromedp.WaitVisible(chromedp.CSS("#timeline")))
	const visible = `document.querySelector("pre").checkVisibility()`
	before := eval[bool](b, visible)
	b.do(chromedp.Click(chromedp.CSS(".event summary")))
	if after := eval[bool](b, visible); before || !after {
		t.Errorf("the record is visible before %t and after %t its heading was clicked", before, after)
	}
	b.wants(`"signature_id": 2024897`)

	b.do(chromedp.Click(chromedp.CSS(".who button")), chromedp.WaitVisible(chromedp.CSS("#token")))
	b.open(s, "/")
	b.do(chromedp.WaitVisible(chromedp.CSS("#token")))
	b.quiet()
}

func testLooks(t *testing.T, b *browser) {
	s := newSite(t, story())
	b.open(s, "/login")
	b.looks("login")
	b.login()
	for name, path := range map[string]string{"home": "/", "threat7": "/threats/7", "threat8": "/threats/8",
		"events": "/events", "endpoints": "/endpoints", "quarantines": "/quarantines?show=all"} {
		b.open(s, path)
		b.looks(name)
	}
	b.quiet()
}

// testHostile opens pages that are full of what an attacker may put into an
// alert: nothing of it runs, loads, makes an element or breaks the page.
func testHostile(t *testing.T, b *browser) {
	s := newSite(t, hostileStory())
	b.open(s, "/login")
	b.login()
	for name, path := range map[string]string{"home": "/", "threat": "/threats/66", "events": "/events", "endpoints": "/endpoints",
		"quarantines": "/quarantines"} {
		b.open(s, path)
		for _, width := range []int64{360, 1280} {
			b.do(chromedp.EmulateViewport(width, 800))
			b.fits(path)
		}
		b.shot("hostile-" + name)
		if got := eval[string](b, `String(window.pwned)`); got != "undefined" {
			t.Errorf("%s: a script of the alert ran", path)
		}
		if n := eval[int](b, `document.querySelectorAll("main img, main script, main iframe, main svg, main style, main [onerror], main [onclick]").length`); n != 0 {
			t.Errorf("%s: %d elements came from the alert", path, n)
		}
	}
	b.quiet()
}

// testRefresh holds that a page that nobody touches refreshes by itself, can be
// paused, and does not keep its session alive.
func testRefresh(t *testing.T, b *browser) {
	s := newSite(t, story())
	s.console.refresh = time.Second
	b.open(s, "/")
	b.login()
	b.do(chromedp.WaitVisible(chromedp.CSS("#refresh button")))
	for range 2 {
		s.clock.advance(25 * time.Minute)
		b.shows(s.clock.Now())
	}
	b.do(chromedp.Click(chromedp.CSS("#refresh button")))
	if got := eval[string](b, `document.querySelector("#refresh button").textContent`); got != "Refresh by itself" {
		t.Errorf("after a click to pause, the button says %q", got)
	}
	b.do(chromedp.Click(chromedp.CSS("#refresh button")))
	s.clock.advance(11 * time.Minute)
	b.do(chromedp.WaitVisible(chromedp.CSS("#token")))
	b.quiet()
}

// shows waits until the page is one that was made at the time now.
func (b *browser) shows(now time.Time) {
	b.t.Helper()
	b.do(chromedp.WaitVisible(chromedp.CSS(`.foot time[datetime="` + now.UTC().Format(time.RFC3339) + `"]`)))
}

// testOtherSites follows a link from another site, which leads to the page, and
// sends a form from there, which changes nothing.
func testOtherSites(t *testing.T, b *browser) {
	s := newSite(t, story())
	other := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, err := io.WriteString(w, `<main><a href="`+s.server.URL+`/threats/8">see</a><form method=post action="`+s.server.URL+`/logout"><button>x</button></form></main>`)
		if err != nil {
			t.Error(err)
		}
	}))
	defer other.Close()
	elsewhere := strings.Replace(other.URL, "127.0.0.1", "localhost", 1)
	b.open(s, "/login")
	b.login()
	b.do(chromedp.Navigate(elsewhere), chromedp.Click(chromedp.CSS("a")), chromedp.WaitVisible(chromedp.CSS("#timeline")))
	b.wants("bob")
	b.do(chromedp.Navigate(elsewhere), chromedp.Click(chromedp.CSS("button")), chromedp.WaitNotPresent(chromedp.CSS("form")))
	b.open(s, "/threats/8")
	b.do(chromedp.WaitVisible(chromedp.CSS("#timeline")))
}
