package console

import (
	"bytes"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"
)

var everyPage = []string{"/", "/?show=open", "/threats/7", "/threats/8", "/events", "/endpoints", "/quarantines", "/quarantines?show=all"}

func TestLogInIsRequired(t *testing.T) {
	s := newSite(t, story())
	for _, path := range append(everyPage, "/nothing", "/threats/x", "/logout", "/static") {
		r := s.get(path)
		want := "/login?" + url.Values{"next": {path}}.Encode()
		if r.StatusCode != http.StatusSeeOther || r.Header.Get("Location") != want {
			t.Errorf("GET %s = %s to %q, want a redirect to %q", path, r.Status, r.Header.Get("Location"), want)
		}
		if strings.Contains(r.body, "alice") {
			t.Errorf("GET %s shows data to nobody", path)
		}
	}
	s.mustLogin()
	for _, path := range everyPage {
		if r := s.get(path); r.StatusCode != http.StatusOK || !strings.Contains(r.body, "Logged in as <bdi>ann</bdi>") {
			t.Errorf("logged in, GET %s = %s", path, r.Status)
		}
	}
	if r := s.get("/login?next=/events"); r.StatusCode != http.StatusSeeOther || r.Header.Get("Location") != "/events" {
		t.Errorf("logged in, GET /login = %s to %q", r.Status, r.Header.Get("Location"))
	}
	for _, path := range []string{"/nothing", "/threats/x", "/threats/-1", "/threats/4711", "/?before=x", "/events?before=-3", "/endpoints?after=9e9"} {
		if r := s.get(path); r.StatusCode != http.StatusNotFound {
			t.Errorf("logged in, GET %s = %s, want 404", path, r.Status)
		}
	}
}

func TestCookie(t *testing.T) {
	s := newSite(t, story())
	r := s.login("  " + goodToken + "\n")
	if r.StatusCode != http.StatusSeeOther || r.Header.Get("Location") != "/" {
		t.Fatalf("log-in = %s to %q: %s", r.Status, r.Header.Get("Location"), r.body)
	}
	cookies := r.Cookies()
	if len(cookies) != 1 {
		t.Fatalf("%d cookies, want 1", len(cookies))
	}
	c := cookies[0]
	if c.Name != "__Host-cordon" || !c.HttpOnly || !c.Secure || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Domain != "" {
		t.Errorf("cookie = %s", c)
	}
	secret, key, ok := readCookie(c.Value)
	if !ok || len(secret) != 32 {
		t.Fatalf("the cookie holds %d bytes, want 32", len(secret))
	}
	held := s.console.sessions.held[key]
	if held == nil || bytes.Contains(held.sealed, []byte("cordonadmin1")) || bytes.Contains(held.sealed, secret) {
		t.Error("the session does not hold the token sealed")
	}
	again := s.login(goodToken)
	if got := again.Cookies()[0].Value; got == c.Value {
		t.Error("a second log-in got the first one's cookie")
	}
	if _, ok := s.console.sessions.token(c.Value, s.clock.Now(), false); ok {
		t.Error("a new log-in of the same browser left its old session open")
	}
	if log := s.log.String(); strings.Contains(log, "aaaaaaaa") || strings.Contains(log, c.Value) || !strings.Contains(log, "admin=ann") {
		t.Errorf("the log must name the administrator and no secret: %s", log)
	}
}

func TestWrongToken(t *testing.T) {
	s := newSite(t, story())
	for name, token := range map[string]string{
		"none": "", "blank": " \n", "another": "cordonadmin1-secretsecret-x", "an agent's": "cordon1-secretsecret-x",
		"long": strings.Repeat("secretsecret", 200), "hostile": "\"><script>secretsecret</script>\x00\xff",
	} {
		r := s.login(token)
		if r.StatusCode != http.StatusForbidden || !strings.Contains(r.body, "That is not a valid administrator&#39;s token.") {
			t.Errorf("%s: %s", name, r.Status)
		}
		if len(r.Cookies()) != 0 || strings.Contains(r.body, "secretsecret") {
			t.Errorf("%s: a cookie was given, or the token repeated", name)
		}
	}
	if r := s.login(strings.Repeat("x", 100_000)); r.StatusCode != http.StatusBadRequest {
		t.Errorf("a form of 100 kB = %s, want 400", r.Status)
	}
	if strings.Contains(s.log.String(), "secretsecret") {
		t.Errorf("the log holds a token: %s", s.log)
	}
	if s.get("/").StatusCode != http.StatusSeeOther {
		t.Error("a wrong token opened the console")
	}
}

func TestAttemptsAreLimited(t *testing.T) {
	s := newSite(t, story())
	for range 3 * burst {
		s.mustLogin() // good ones do not count
	}
	for n := range burst {
		if r := s.login("wrong"); r.StatusCode != http.StatusForbidden {
			t.Fatalf("attempt %d = %s", n, r.Status)
		}
	}
	r := s.login(goodToken)
	if r.StatusCode != http.StatusTooManyRequests || r.Header.Get("Retry-After") != "6" || len(r.Cookies()) != 0 {
		t.Fatalf("attempt past the limit = %s, Retry-After %q", r.Status, r.Header.Get("Retry-After"))
	}
	if r := s.get("/"); r.StatusCode != http.StatusOK {
		t.Errorf("a session that was open before = %s", r.Status)
	}
	s.clock.advance(refill)
	s.mustLogin()
}

func TestAttemptsBySource(t *testing.T) {
	a := newAttempts()
	spend := func(addr string) int {
		n := 0
		for n < 1000 {
			if _, ok := a.take(netip.MustParseAddr(addr), day); !ok {
				break
			}
			n++
		}
		return n
	}
	if n := spend("192.0.2.1"); n != burst {
		t.Errorf("%d attempts, want %d", n, burst)
	}
	if n := spend("::ffff:192.0.2.1"); n != 0 {
		t.Errorf("the same address as IPv6 had %d more", n)
	}
	if n := spend("2001:db8::1"); n != burst {
		t.Errorf("another address had %d", n)
	}
	if n := spend("2001:db8::2"); n != 0 {
		t.Errorf("another address of the same /64 had %d more", n)
	}
	if wait, ok := a.take(netip.MustParseAddr("192.0.2.1"), day.Add(time.Second)); ok || wait != refill-time.Second {
		t.Errorf("wait %s, %t", wait, ok)
	}
}

func TestLogOut(t *testing.T) {
	s := newSite(t, story())
	s.mustLogin()
	if r := s.get("/logout"); r.StatusCode != http.StatusNotFound {
		t.Errorf("GET /logout = %s", r.Status)
	}
	u, err := url.Parse(s.server.URL)
	if err != nil {
		t.Fatal(err)
	}
	kept := s.client.Jar.Cookies(u)
	if s.get("/").StatusCode != http.StatusOK || len(kept) != 1 {
		t.Fatal("a GET of /logout ended the session")
	}
	r := s.do(http.MethodPost, "/logout", url.Values{})
	if r.StatusCode != http.StatusSeeOther || r.Header.Get("Location") != "/login" || r.Cookies()[0].MaxAge >= 0 {
		t.Fatalf("log-out = %s, cookies %v", r.Status, r.Cookies())
	}
	s.client.Jar.SetCookies(u, kept)
	if s.get("/").StatusCode != http.StatusSeeOther {
		t.Error("the cookie opens the console after the log-out")
	}
}

func TestSessionEnds(t *testing.T) {
	for _, c := range []struct {
		name string
		act  func(*site)
		open bool
	}{
		{"used within the hour", func(s *site) { s.clock.advance(59 * time.Minute) }, true},
		{"idle", func(s *site) { s.clock.advance(time.Hour) }, false},
		{"in use for 12 hours", func(s *site) {
			for range 24 {
				s.clock.advance(30 * time.Minute)
				s.get("/")
			}
		}, false},
		{"in use for less", func(s *site) {
			for range 23 {
				s.clock.advance(30 * time.Minute)
				s.get("/")
			}
		}, true},
		{"only refreshing", func(s *site) {
			for range 3 {
				s.clock.advance(20 * time.Minute)
				s.refresh()
			}
		}, false},
		{"token removed", func(s *site) { s.admins.remove(goodToken) }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t, story())
			s.mustLogin()
			c.act(s)
			if open := s.get("/").StatusCode == http.StatusOK; open != c.open {
				t.Errorf("open = %t, want %t", open, c.open)
			}
			if n := len(s.console.sessions.held); !c.open && n != 0 {
				t.Errorf("%d sessions are held after the end", n)
			}
		})
	}
}

// refresh gets the first page as the page's own script does.
func (s *site) refresh() {
	s.t.Helper()
	u, err := url.Parse(s.server.URL)
	if err != nil {
		s.t.Fatal(err)
	}
	mark := &http.Cookie{Name: refreshCookie, Value: "1", Path: "/", Secure: true}
	s.client.Jar.SetCookies(u, []*http.Cookie{mark})
	s.get("/")
	mark.MaxAge = -1
	s.client.Jar.SetCookies(u, []*http.Cookie{mark})
}

func TestSessionsAreBounded(t *testing.T) {
	s := newSessions(12*time.Hour, time.Hour)
	var cookies []string
	for n := range maxSessions + 10 {
		c, err := s.open(goodToken, day.Add(time.Duration(n)*time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		cookies = append(cookies, c)
	}
	if len(s.held) != maxSessions {
		t.Errorf("%d sessions, want %d", len(s.held), maxSessions)
	}
	now := day.Add(time.Minute)
	if _, ok := s.token(cookies[9], now, true); ok {
		t.Error("the longest unused session is there still")
	}
	if token, ok := s.token(cookies[len(cookies)-1], now, true); !ok || token != goodToken {
		t.Error("the newest session is gone")
	}
	for _, cookie := range []string{"", "x", strings.Repeat("A", 43), strings.Repeat("?", 43), cookies[50] + "A", strings.Repeat("A", 1<<20)} {
		if _, ok := s.token(cookie, now, true); ok {
			t.Errorf("the cookie %.50q opens a session", cookie)
		}
	}
}

func TestFormsFromElsewhere(t *testing.T) {
	s := newSite(t, story())
	s.mustLogin()
	for _, header := range [][]string{
		{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "https://evil.example"}, {"Origin", "null"},
	} {
		for _, path := range []string{"/logout", "/login"} {
			if r := s.do(http.MethodPost, path, url.Values{"token": {goodToken}}, header...); r.StatusCode != http.StatusForbidden || len(r.Cookies()) != 0 {
				t.Errorf("POST %s with %v = %s, want 403", path, header, r.Status)
			}
		}
	}
	if s.get("/").StatusCode != http.StatusOK {
		t.Error("a form from elsewhere ended the session")
	}
	if r := s.do(http.MethodPost, "/logout", url.Values{}, "Origin", s.server.URL); r.StatusCode != http.StatusSeeOther {
		t.Errorf("a form of our own = %s", r.Status)
	}
}

func TestNext(t *testing.T) {
	s := newSite(t, story())
	for next, want := range map[string]string{
		"/threats/7": "/threats/7", "/?show=open&before=9": "/?before=9&show=open", "/threats/7?a=%0d%0ax": "/threats/7?a=%0D%0Ax",
		"": "/", "threats/7": "/", "//evil.example/": "/", "///evil.example": "/", `/\evil.example`: "/", "/\t/evil.example": "/", "/%09/evil.example": "/", "/%2f/evil.example": "/", "/%5cevil.example": "/",
		"https://evil.example/": "/", "javascript:alert(1)": "/", "/login": "/", "/login?next=/": "/", "\x00": "/", "/" + strings.Repeat("a", 2000): "/",
	} {
		if got := ownPath(next); got != want {
			t.Errorf("ownPath(%.60q) = %q, want %q", next, got, want)
		}
		r := s.do(http.MethodPost, "/login", url.Values{"token": {goodToken}, "next": {next}})
		if r.Header.Get("Location") != want {
			t.Errorf("log-in with next %.60q leads to %q", next, r.Header.Get("Location"))
		}
	}
}
