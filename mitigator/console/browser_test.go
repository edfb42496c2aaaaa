package console

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
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
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second)
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

// shot keeps a picture of the page where CONSOLE_SHOTS says, for people.
func (b *browser) shot(name string) {
	b.t.Helper()
	dir := os.Getenv("CONSOLE_SHOTS")
	if dir == "" {
		return
	}
	png, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
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
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = c => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1); return canvas.getImageData(0, 0, 1, 1).data; };
  const lum = c => { const [r, g, b] = [...c].slice(0, 3).map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
  const behind = e => { for (; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor); if (c[3] === 255) return c; } return [255, 255, 255, 255]; };
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

// TestBrowser walks through the console as a person does.
func TestBrowser(t *testing.T) {
	s := newSite(t, story())
	b := openBrowser(t, s.server)
	b.do(chromedp.EmulateViewport(1280, 800), scheme("light"),
		chromedp.Navigate(s.server.URL+"/threats/7"), chromedp.WaitVisible(chromedp.CSS("#token")))
	b.fits("log-in")
	b.legible("log-in")
	b.shot("login-light")
	b.do(chromedp.SendKeys(chromedp.CSS("#token"), goodToken), chromedp.Submit(chromedp.CSS("#token")), chromedp.WaitVisible(chromedp.CSS("#timeline")))
	b.wants("ET MALWARE Known C2 Beacon", "alice", "detected → assessing", "cleaning → resolved", "by agent alice",
		"Stopped pid 4711 /var/tmp/.x/beacon -d", "Moved into the vault: /var/tmp/.x/beacon", "cordon-agent restore v-81c2",
		"process tree stopped after 62 ms", "The guard refused to move into the vault")

	b.do(chromedp.Click(chromedp.CSS(".brand")), chromedp.WaitVisible(chromedp.CSS("#log")))
	b.wants("Enforce mode", "Alarm", "not healthy", "Open threats", "Threat event log", "2 of 3", "printer")
	b.do(chromedp.Click(chromedp.CSS(`section[aria-labelledby=log] a[href="/threats/7"]`)), chromedp.WaitVisible(chromedp.CSS("#timeline")))
	const visible = `document.querySelector("pre").checkVisibility()`
	before := eval[bool](b, visible)
	b.do(chromedp.Click(chromedp.CSS("summary")))
	after := eval[bool](b, visible)
	if before || !after {
		t.Errorf("the record is visible before %t and after %t its heading was clicked", before, after)
	}
	b.wants(`"signature_id": 2024897`)

	for _, size := range []struct {
		name  string
		width int64
	}{{"wide", 1280}, {"narrow", 360}} {
		for _, colours := range []string{"light", "dark"} {
			b.do(chromedp.EmulateViewport(size.width, 800), scheme(colours))
			for _, p := range []struct{ name, path string }{{"home", "/"}, {"threat7", "/threats/7"}, {"threat8", "/threats/8"}, {"threat9", "/threats/9"},
				{"events", "/events"}, {"endpoints", "/endpoints"}, {"quarantines", "/quarantines?show=all"}} {
				b.do(chromedp.Navigate(s.server.URL+p.path), chromedp.WaitVisible(chromedp.CSS("main")))
				name := p.name + "-" + size.name + "-" + colours
				b.fits(name)
				b.legible(name)
				b.shot(name)
			}
		}
	}
	b.do(chromedp.Click(chromedp.CSS(".who button")), chromedp.WaitVisible(chromedp.CSS("#token")))
	b.do(chromedp.Navigate(s.server.URL+"/"), chromedp.WaitVisible(chromedp.CSS("#token")))
	b.quiet()
}
