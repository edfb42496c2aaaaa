package link

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

const (
	// healthyAfter is how long a session must have lasted for the back-off to
	// start over.
	healthyAfter = 30 * time.Second
	// firstMessage is how long the mitigator may take to its first keep-alive.
	firstMessage = 30 * time.Second
	// A stream is dead when this many keep-alive intervals bring nothing.
	missedKeepAlives = 3
	minKeepAlive     = 100 * time.Millisecond
	maxKeepAlive     = 10 * time.Minute
)

var (
	errSilent  = errors.New("the mitigator fell silent")
	errRenewed = errors.New("the certificate was renewed")
	errAgain   = errors.New("undone tasks are wanted again")
)

// session is one connection from its first handshake to its end. A Tasks stream
// that is only opened again stays on the connection.
func (l *Link) session(ctx context.Context) error {
	c := dial(l.options.Server, l.identity.Load().clientTLS(l.options.Now))
	defer c.close()
	defer l.current.CompareAndSwap(c, nil)
	for {
		err := l.stream(ctx, c)
		if !errors.Is(err, errAgain) {
			return err
		}
	}
}

// stream reads one Tasks stream to its end.
func (l *Link) stream(ctx context.Context, c *conn) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(firstMessage, func() { cancel(errSilent) })
	defer watch.Stop()
	unfinished, err := l.spool.unfinished()
	if err != nil {
		return fmt.Errorf("read the accepted tasks: %w", err)
	}
	in, err := c.Tasks(ctx, connect.NewRequest(&wirev1.TasksRequest{
		Version: l.options.Version, Observer: l.options.Observer, TaskIds: unfinished,
	}))
	if err != nil {
		return causeOf(ctx, err)
	}
	stopSwitch := l.switchStream(ctx, cancel)
	defer stopSwitch()
	patience := firstMessage
	for in.Receive() {
		if keepAlive := in.Msg().GetKeepAlive(); keepAlive != nil {
			patience = missedKeepAlives * min(max(keepAlive.GetInterval().AsDuration(), minKeepAlive), maxKeepAlive)
		}
		watch.Reset(patience)
		l.connected(c)
		l.receive(in.Msg())
	}
	err = in.Err()
	if err == nil {
		err = errors.New("the mitigator ended the stream")
	}
	err = causeOf(ctx, err)
	cancel(nil)
	return errors.Join(err, closeStream(in))
}

// closeStream closes a stream whose context has ended; the error would only say
// so again.
func closeStream(in *connect.ServerStreamForClient[wirev1.TasksResponse]) error {
	_ = in.Close()
	return nil
}

// switchStream ends the stream when a new one is wanted. The returned function
// waits until it no longer looks.
func (l *Link) switchStream(ctx context.Context, cancel context.CancelCauseFunc) func() {
	ctx, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-ctx.Done():
		case <-l.renewed:
			cancel(errRenewed)
		case <-l.again:
			cancel(errAgain)
		}
	}()
	return func() {
		stop()
		<-done
	}
}

// causeOf prefers why we ended the stream over how that looked from inside.
func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

// connected makes the connection the one for calls, at its first message.
func (l *Link) connected(c *conn) {
	if l.current.Swap(c) == c {
		return
	}
	l.log.Info("connected to the mitigator", "server", l.options.Server, "agent", l.AgentID())
	signal(l.report)
	signal(l.observe)
}

func (l *Link) receive(m *wirev1.TasksResponse) {
	switch {
	case m.GetTask() != nil:
		l.tasks.offer(m.GetTask())
	case m.GetCancel() != nil:
		l.tasks.cancel(m.GetCancel().GetTaskId())
	}
}
