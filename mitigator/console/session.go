package console

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"sync"
	"time"
)

const (
	cookieName = "__Host-cordon"
	cookieSize = 32
	// maxSessions bounds the memory; the one that was not used for longest goes
	// first.
	maxSessions = 1024
)

// sessions holds who is logged in. A session is found by the hash of its
// cookie, and the administrator's token lies in it sealed with a key that only
// the cookie gives: memory alone holds neither the one nor the other.
type sessions struct {
	lifetime, idle time.Duration

	mu   sync.Mutex
	held map[[sha256.Size]byte]*session
}

type session struct {
	sealed        []byte
	opened, until time.Time
	used          time.Time
}

func newSessions(lifetime, idle time.Duration) *sessions {
	return &sessions{lifetime: lifetime, idle: idle, held: make(map[[sha256.Size]byte]*session)}
}

// open starts a session for a token that was just found good and returns the
// cookie's value.
func (s *sessions) open(token string, now time.Time) (string, error) {
	secret := make([]byte, cookieSize)
	if _, err := rand.Read(secret); err != nil {
		return "", fmt.Errorf("make a session: %w", err)
	}
	aead, err := sealer(secret)
	if err != nil {
		return "", err
	}
	// Each key seals one text, ever: a fixed nonce is sound.
	sealed := aead.Seal(nil, make([]byte, aead.NonceSize()), []byte(token), nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.makeRoom(now)
	s.held[sha256.Sum256(secret)] = &session{sealed: sealed, opened: now, until: now.Add(s.lifetime), used: now}
	return base64.RawURLEncoding.EncodeToString(secret), nil
}

// token returns the token of the session that cookie names, if it lives. With
// touch the session counts as used now.
func (s *sessions) token(cookie string, now time.Time, touch bool) (string, bool) {
	secret, key, ok := readCookie(cookie)
	if !ok {
		return "", false
	}
	s.mu.Lock()
	held := s.held[key]
	if held == nil {
		s.mu.Unlock()
		return "", false
	}
	if s.over(held, now) {
		delete(s.held, key)
		s.mu.Unlock()
		return "", false
	}
	if touch {
		held.used = now
	}
	sealed := held.sealed
	s.mu.Unlock()

	aead, err := sealer(secret)
	if err != nil {
		return "", false
	}
	text, err := aead.Open(nil, make([]byte, aead.NonceSize()), sealed, nil)
	return string(text), err == nil
}

// end forgets the session that cookie names; one that is not there is ended.
func (s *sessions) end(cookie string) {
	if _, key, ok := readCookie(cookie); ok {
		s.mu.Lock()
		delete(s.held, key)
		s.mu.Unlock()
	}
}

func (s *sessions) over(held *session, now time.Time) bool {
	return !now.Before(held.until) || now.Sub(held.used) >= s.idle
}

// makeRoom drops what is over, and then the longest unused until one more fits.
func (s *sessions) makeRoom(now time.Time) {
	if len(s.held) < maxSessions {
		return
	}
	var oldest [sha256.Size]byte
	var used time.Time
	for key, held := range s.held {
		if s.over(held, now) {
			delete(s.held, key)
			continue
		}
		if used.IsZero() || held.used.Before(used) {
			oldest, used = key, held.used
		}
	}
	if len(s.held) >= maxSessions {
		delete(s.held, oldest)
	}
}

// readCookie returns the secret in a cookie and the key of its session.
func readCookie(cookie string) (secret []byte, key [sha256.Size]byte, ok bool) {
	if len(cookie) != base64.RawURLEncoding.EncodedLen(cookieSize) {
		return nil, key, false
	}
	secret, err := base64.RawURLEncoding.DecodeString(cookie)
	if err != nil {
		return nil, key, false
	}
	return secret, sha256.Sum256(secret), true
}

// sealer derives the key that seals a session's token from the cookie's secret.
func sealer(secret []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, secret, nil, "cordon console session token", 32)
	if err != nil {
		return nil, fmt.Errorf("derive a session's key: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("derive a session's key: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("derive a session's key: %w", err)
	}
	return aead, nil
}
