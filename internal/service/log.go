package service

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"syscall"
)

// LevelVariable is the environment variable that sets the least level that
// [NewLogger] writes: debug, info (the default), warn or error.
const LevelVariable = "CORDON_LOG_LEVEL"

// NewLogger returns a logger of key=value lines to f. When f is the journal
// (JOURNAL_STREAM, systemd.exec(5)), each line begins with the priority that
// sd-daemon(3) describes and leaves the time to the journal.
func NewLogger(f *os.File) *slog.Logger {
	level := slog.LevelInfo
	if text := os.Getenv(LevelVariable); text != "" {
		if err := level.UnmarshalText([]byte(text)); err != nil {
			level = slog.LevelInfo
		}
	}
	if isJournal(f, os.Getenv("JOURNAL_STREAM")) {
		return slog.New(newJournalHandler(f, level))
	}
	return slog.New(slog.NewTextHandler(f, &slog.HandlerOptions{Level: level}))
}

// isJournal reports whether f is the stream that JOURNAL_STREAM, DEV:INODE,
// names.
func isJournal(f *os.File, stream string) bool {
	info, err := f.Stat()
	if err != nil || stream == "" {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && stream == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// journalHandler writes <PRIORITY> and the line of a text handler. Handlers
// made from it by WithAttrs and WithGroup share the buffer and its lock.
type journalHandler struct {
	slog.Handler
	out *journalOutput
}

type journalOutput struct {
	mu   sync.Mutex
	line bytes.Buffer
	w    io.Writer
}

func newJournalHandler(w io.Writer, level slog.Leveler) *journalHandler {
	out := &journalOutput{w: w}
	return &journalHandler{
		Handler: slog.NewTextHandler(&out.line, &slog.HandlerOptions{Level: level, ReplaceAttr: dropTimeAndLevel}),
		out:     out,
	}
}

// dropTimeAndLevel removes what the journal keeps in fields of its own.
func dropTimeAndLevel(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
		return slog.Attr{}
	}
	return a
}

// Handle writes one record as one line.
func (h *journalHandler) Handle(ctx context.Context, r slog.Record) error {
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	h.out.line.Reset()
	fmt.Fprintf(&h.out.line, "<%d>", priority(r.Level))
	if err := h.Handler.Handle(ctx, r); err != nil {
		return err
	}
	_, err := h.out.w.Write(h.out.line.Bytes())
	return err
}

// WithAttrs returns a handler that adds attrs to each record.
func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &journalHandler{Handler: h.Handler.WithAttrs(attrs), out: h.out}
}

// WithGroup returns a handler that puts later attributes under name.
func (h *journalHandler) WithGroup(name string) slog.Handler {
	return &journalHandler{Handler: h.Handler.WithGroup(name), out: h.out}
}

// priority returns the syslog priority of level.
func priority(level slog.Level) int {
	switch {
	case level >= slog.LevelError:
		return 3
	case level >= slog.LevelWarn:
		return 4
	case level >= slog.LevelInfo:
		return 6
	}
	return 7
}
