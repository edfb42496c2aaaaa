package link

import (
	"context"
	"errors"
	"io/fs"

	"connectrpc.com/connect"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

// reportLoop hands the outbox over, whenever there is something new in it or a
// new connection.
func (l *Link) reportLoop(ctx context.Context) {
	wait := backoff{base: l.options.BackoffBase, cap: l.options.BackoffCap}
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.report:
		}
		c := l.current.Load()
		if c == nil {
			continue
		}
		err := l.reportAll(ctx, c)
		if err == nil {
			wait.reset()
			continue
		}
		if ctx.Err() != nil {
			return
		}
		pause := wait.next()
		l.log.Warn("results not handed over yet", "error", err, "retry_in", pause)
		if !sleep(ctx, pause) {
			return
		}
		signal(l.report)
	}
}

func (l *Link) reportAll(ctx context.Context, c *conn) error {
	names, err := l.spool.waiting()
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := l.reportOne(ctx, c, name); err != nil {
			return err
		}
	}
	return nil
}

// reportOne returns an error only where trying again may help.
func (l *Link) reportOne(ctx context.Context, c *conn, name string) error {
	result, err := l.spool.result(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		l.log.Error("result set aside", "file", name, "error", err)
		return l.spool.setAside(name)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err = c.Report(ctx, connect.NewRequest(&wirev1.ReportRequest{Result: result}))
	if err == nil {
		return l.spool.acknowledged(name)
	}
	switch connect.CodeOf(err) {
	case connect.CodePermissionDenied, connect.CodeInvalidArgument, connect.CodeResourceExhausted:
		l.log.Error("the mitigator refused a result; it is kept in the folder \"refused\"",
			"task", result.GetTaskId(), "file", name, "error", err)
		return l.spool.setAside(name)
	}
	return err
}
