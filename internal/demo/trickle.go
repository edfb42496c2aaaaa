package demo

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/cordon-security/cordon/internal/testlan"
)

// tricklePause is between two packets of a trickle, and so the grain with which
// it tells when packets began to be dropped.
const tricklePause = time.Millisecond

// trickle is a numbered UDP packet each millisecond to another host's echo. The
// first one without an answer, after which none is answered, is the first that
// was dropped.
type trickle struct {
	conn net.Conn
	stop context.CancelFunc
	done sync.WaitGroup

	mu       sync.Mutex
	sent     []time.Time // by number
	answered int         // highest number that was answered
}

func startTrickle(ctx context.Context, from *testlan.Host, to netip.Addr) (*trickle, error) {
	conn, err := from.Dial(ctx, "udp", netip.AddrPortFrom(to, echoPort).String())
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	t := &trickle{conn: conn, stop: stop, answered: -1}
	t.done.Go(func() { t.send(ctx) })
	t.done.Go(t.receive)
	context.AfterFunc(ctx, func() { conn.Close() })
	return t, nil
}

func (t *trickle) send(ctx context.Context) {
	tick := time.NewTicker(tricklePause)
	defer tick.Stop()
	var packet [8]byte
	for n := uint64(0); ctx.Err() == nil; n++ {
		binary.BigEndian.PutUint64(packet[:], n)
		t.mu.Lock()
		t.sent = append(t.sent, time.Now())
		t.mu.Unlock()
		_, _ = t.conn.Write(packet[:]) // one that cannot be sent has no answer either
		<-tick.C
	}
}

func (t *trickle) receive() {
	var packet [64]byte
	for {
		n, err := t.conn.Read(packet[:])
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n != 8 {
			continue
		}
		number := int(binary.BigEndian.Uint64(packet[:8]))
		t.mu.Lock()
		t.answered = max(t.answered, number)
		t.mu.Unlock()
	}
}

// firstDropped ends the trickle and returns when the first packet without an
// answer was sent; false when the last packets were answered.
func (t *trickle) firstDropped() (time.Time, bool) {
	t.stop()
	t.done.Wait()
	t.mu.Lock()
	defer t.mu.Unlock()
	// The last packets' answers may have been on their way.
	const onTheWay = 200
	if t.answered < 0 || len(t.sent)-t.answered < onTheWay {
		return time.Time{}, false
	}
	return t.sent[t.answered+1], true
}

// flowing waits until packets are answered.
func (t *trickle) flowing(ctx context.Context) error {
	return until(ctx, "packets are answered", func(context.Context) error {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.answered < 0 {
			return errors.New("none is")
		}
		return nil
	})
}
