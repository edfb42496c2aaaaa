package demo

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"

	"github.com/cordon-security/cordon/internal/testlan"
)

const (
	// tricklePause is between two packets of a trickle, and so the grain with
	// which it tells when packets began to be dropped.
	tricklePause = time.Millisecond
	// trickleMark is how many bytes tell a trickle's packets from others'.
	trickleMark = 8
)

// trickle is a numbered ICMP echo request each millisecond from a host to an
// IPv4 address, which the kernel there answers at once. The first one without an
// answer, after which none is answered, is the first that was dropped.
type trickle struct {
	conn *icmp.PacketConn
	to   *net.IPAddr
	mark [trickleMark]byte
	stop context.CancelFunc
	done sync.WaitGroup

	mu       sync.Mutex
	sent     []time.Time // by number
	answered int         // highest number that was answered
}

func startTrickle(ctx context.Context, from *testlan.Host, to netip.Addr) (*trickle, error) {
	t := &trickle{to: &net.IPAddr{IP: to.AsSlice()}, answered: -1}
	rand.Read(t.mark[:]) // never fails: crypto/rand aborts the program instead
	err := from.NetNS(func() (err error) {
		t.conn, err = icmp.ListenPacket("ip4:icmp", "0.0.0.0")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("send packets from %s: %w", from.Name(), err)
	}
	ctx, t.stop = context.WithCancel(ctx)
	t.done.Go(func() { t.send(ctx) })
	t.done.Go(t.receive)
	context.AfterFunc(ctx, func() { t.conn.Close() })
	return t, nil
}

func (t *trickle) send(ctx context.Context) {
	tick := time.NewTicker(tricklePause)
	defer tick.Stop()
	for n := 0; ctx.Err() == nil; n++ {
		data := binary.BigEndian.AppendUint64(bytes.Clone(t.mark[:]), uint64(n))
		id := int(binary.BigEndian.Uint16(t.mark[:]))
		request, err := (&icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: id, Seq: n & 0xffff, Data: data}}).Marshal(nil)
		if err != nil {
			return // it would not be ICMP: no packet is ever answered, which is told
		}
		t.mu.Lock()
		t.sent = append(t.sent, time.Now())
		t.mu.Unlock()
		_, _ = t.conn.WriteTo(request, t.to) // one that cannot be sent has no answer either
		<-tick.C
	}
}

func (t *trickle) receive() {
	packet := make([]byte, 1500)
	for {
		n, _, err := t.conn.ReadFrom(packet)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		number, ok := t.number(packet[:n])
		if !ok {
			continue
		}
		t.mu.Lock()
		t.answered = max(t.answered, number)
		t.mu.Unlock()
	}
}

// number reads which request a packet answers.
func (t *trickle) number(packet []byte) (int, bool) {
	m, err := icmp.ParseMessage(ipv4.ICMPTypeEchoReply.Protocol(), packet)
	if err != nil || m.Type != ipv4.ICMPTypeEchoReply {
		return 0, false
	}
	echo, ok := m.Body.(*icmp.Echo)
	if !ok || len(echo.Data) != trickleMark+8 || !bytes.HasPrefix(echo.Data, t.mark[:]) {
		return 0, false
	}
	return int(binary.BigEndian.Uint64(echo.Data[trickleMark:])), true
}

// firstDropped ends the trickle and returns when the first packet without an
// answer was sent; false when the last packets were answered.
func (t *trickle) firstDropped() (time.Time, bool) {
	t.stop()
	t.done.Wait()
	t.mu.Lock()
	defer t.mu.Unlock()
	// The last packets' answers may have been on their way.
	const onTheWay = 50
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
