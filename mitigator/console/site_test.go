package console

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// clock is a clock that a test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// site is a console on a TLS server of its own, and a client like a browser.
type site struct {
	t       *testing.T
	console *Console
	server  *httptest.Server
	client  *http.Client
	admins  *admins
	clock   *clock
	log     *logged
}

// logged is what the console wrote to its log.
type logged struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newSite(t *testing.T, a *api) *site {
	t.Helper()
	s := &site{t: t, admins: &admins{tokens: map[string]string{goodToken: "ann"}}, clock: &clock{now: day.Add(9 * time.Minute)}, log: &logged{}}
	c, err := New(Options{API: a, Admins: s.admins, Log: slog.New(slog.NewTextHandler(s.log, nil)), Now: s.clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	s.console = c
	s.server = httptest.NewUnstartedServer(c.Handler())
	s.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.server.StartTLS()
	t.Cleanup(s.server.Close)
	s.client = s.newClient()
	return s
}

// newClient returns a client with cookies of its own that follows nothing.
func (s *site) newClient() *http.Client {
	s.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return &http.Client{
		Transport: s.server.Client().Transport, Jar: jar,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// reply is an answer with its body read.
type reply struct {
	*http.Response
	body string
}

func (s *site) do(method, path string, form url.Values, header ...string) reply {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.server.URL+path, strings.NewReader(form.Encode()))
	if err != nil {
		s.t.Fatal(err)
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	answer, err := s.client.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := answer.Body.Close(); err != nil {
		s.t.Fatal(err)
	}
	return reply{answer, string(body)}
}

func (s *site) get(path string, header ...string) reply {
	s.t.Helper()
	return s.do(http.MethodGet, path, nil, header...)
}

func (s *site) login(token string) reply {
	s.t.Helper()
	return s.do(http.MethodPost, "/login", url.Values{"token": {token}, "next": {"/"}})
}

// mustLogin logs ann in.
func (s *site) mustLogin() {
	s.t.Helper()
	if r := s.login(goodToken); r.StatusCode != http.StatusSeeOther {
		s.t.Fatalf("log-in answers %s: %s", r.Status, r.body)
	}
}
