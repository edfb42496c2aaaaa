package console

import (
	"math"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

const (
	maxForm  = 8 << 10
	maxToken = 1 << 10
	// refreshCookie is set by the page's script for the moment of a refresh, so
	// that a page that refreshes by itself does not keep its session alive.
	refreshCookie = "__Host-cordon-refresh"
)

// loginView is what the log-in page shows.
type loginView struct {
	Next  string
	Error string
}

// loggedIn lets a request through to next with the administrator's name, and
// sends everybody else to the log-in.
func (c *Console) loggedIn(next func(w http.ResponseWriter, r *http.Request, admin string)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		admin, ok := c.who(r)
		switch {
		case ok:
			next(w, r, admin)
		case r.Header.Get("Sec-Fetch-Site") == "cross-site":
			// The browser keeps a strict cookie back when a link on another site is
			// followed. A step of our own makes it send the cookie.
			c.render(w, http.StatusOK, "enter", page{Title: "Open the console", Data: ownPath(r.URL.RequestURI())})
		default:
			http.Redirect(w, r, "/login?"+url.Values{"next": {r.URL.RequestURI()}}.Encode(), http.StatusSeeOther)
		}
	}
}

// who returns the administrator of the request's session. The token is asked
// about anew each time: one that was removed opens nothing any more.
func (c *Console) who(r *http.Request) (string, bool) {
	cookie, err := r.Cookie(cookieName)
	if err != nil {
		return "", false
	}
	_, err = r.Cookie(refreshCookie)
	byPerson := err != nil
	token, ok := c.sessions.token(cookie.Value, c.now(), byPerson)
	if !ok {
		return "", false
	}
	name, ok := c.admins.Authenticate(token)
	if !ok {
		c.sessions.end(cookie.Value)
	}
	return name, ok
}

func (c *Console) showLogin(w http.ResponseWriter, r *http.Request) {
	next := ownPath(r.URL.Query().Get("next"))
	if _, ok := c.who(r); ok {
		http.Redirect(w, r, next, http.StatusSeeOther)
		return
	}
	c.renderLogin(w, http.StatusOK, next, "")
}

func (c *Console) login(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		c.renderLogin(w, http.StatusBadRequest, "/", "The form could not be read. Type the token and try again.")
		return
	}
	next := ownPath(r.PostForm.Get("next"))
	addr := remote(r)
	now := c.now()
	if wait, ok := c.attempts.take(addr, now); !ok {
		seconds := int(math.Ceil(wait.Seconds()))
		w.Header().Set("Retry-After", strconv.Itoa(seconds))
		c.renderLogin(w, http.StatusTooManyRequests, next,
			"Too many failed attempts from your address. Try again in "+plural(seconds, "second", "seconds")+".")
		return
	}
	token := strings.TrimSpace(r.PostForm.Get("token"))
	name, ok := "", false
	if token != "" && len(token) <= maxToken {
		name, ok = c.admins.Authenticate(token)
	}
	if !ok {
		c.log.Warn("console log-in failed", "remote", addr)
		c.renderLogin(w, http.StatusForbidden, next, "That is not a valid administrator's token.")
		return
	}
	c.attempts.giveBack(addr)
	value, err := c.sessions.open(token, now)
	if err != nil {
		c.log.Error("console session not opened", "err", err)
		c.renderLogin(w, http.StatusInternalServerError, next, "The session could not be opened. Try again.")
		return
	}
	if old, err := r.Cookie(cookieName); err == nil {
		c.sessions.end(old.Value)
	}
	c.log.Info("console log-in", "admin", name, "remote", addr)
	http.SetCookie(w, sessionCookie(value, 0))
	http.Redirect(w, r, next, http.StatusSeeOther)
}

func (c *Console) logout(w http.ResponseWriter, r *http.Request) {
	if cookie, err := r.Cookie(cookieName); err == nil {
		c.sessions.end(cookie.Value)
	}
	http.SetCookie(w, sessionCookie("", -1))
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}

func (c *Console) renderLogin(w http.ResponseWriter, status int, next, message string) {
	c.render(w, status, "login", page{Title: "Log in", Data: loginView{Next: next, Error: message}})
}

func sessionCookie(value string, maxAge int) *http.Cookie {
	return &http.Cookie{
		Name: cookieName, Value: value, Path: "/", MaxAge: maxAge,
		Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode,
	}
}

// ownPath returns where to go after the log-in: text if it is a path on this
// console, else the first page. Browsers read a backslash as a slash and drop
// tabs and line ends, so none of them may pass.
func ownPath(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.IsAbs() || u.Host != "" || u.User != nil || u.Opaque != "" ||
		!strings.HasPrefix(u.Path, "/") || strings.HasPrefix(u.Path, "//") || len(text) > 1024 ||
		strings.ContainsFunc(u.Path, func(r rune) bool { return r < ' ' || r == '\\' || r == 0x7f }) ||
		strings.HasPrefix(u.Path, "/login") {
		return "/"
	}
	return (&url.URL{Path: u.Path, RawQuery: u.Query().Encode()}).String()
}

// remote is the address that the request's connection comes from. Headers that
// say otherwise are anybody's to write and are not looked at.
func remote(r *http.Request) netip.Addr {
	a, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return a.Addr().Unmap()
}
