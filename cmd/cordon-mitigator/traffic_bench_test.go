package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cordon-security/cordon/internal/testlan"
)

const (
	// trafficPause is between two packets: with what a wake-up costs, one is sent
	// every 60 to 100 µs.
	trafficPause = 50 * time.Microsecond
	// sentRing is how many send times are kept: a minute's at the least.
	sentRing = 1 << 20
	// tailTime and tailCount are how long and how many packets nothing may arrive
	// of, before the tail counts as lost.
	tailTime  = 20 * time.Millisecond
	tailCount = 100
)

// traffic is a stream of numbered UDP packets from one host to another. A packet
// through cables and bridge is in the receiver's socket before its send returns,
// unless the kernel is short of processors.
type traffic struct {
	base time.Time
	sent []atomic.Int64 // nanoseconds after base, by number modulo sentRing
	next atomic.Uint64
	// got is the highest number that arrived, plus one.
	got     uint64
	in, out *os.File
	stop    context.CancelFunc
	done    sync.WaitGroup
}

func startTraffic(t testing.TB, from, to *testlan.Host, addr netip.Addr) *traffic {
	t.Helper()
	in, err := to.ListenPacket(t.Context(), "udp", netip.AddrPortFrom(addr, 5005).String())
	if err != nil {
		t.Fatal(err)
	}
	out, err := from.Dial(t.Context(), "udp", netip.AddrPortFrom(addr, 5005).String())
	if err != nil {
		t.Fatal(err)
	}
	tr := &traffic{base: time.Now(), sent: make([]atomic.Int64, sentRing)}
	var errIn, errOut error
	tr.in, errIn = in.(*net.UDPConn).File()
	tr.out, errOut = out.(*net.UDPConn).File()
	if err := errors.Join(errIn, errOut, in.Close(), out.Close()); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptInt(int(tr.in.Fd()), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	tr.stop = stop
	tr.done.Go(func() { tr.send(ctx) })
	t.Cleanup(tr.close)
	return tr
}

func (tr *traffic) close() {
	tr.stop()
	tr.done.Wait()
	tr.in.Close()
	tr.out.Close()
}

func (tr *traffic) send(ctx context.Context) {
	runtime.LockOSThread() // never unlocked: its timer slack is its own
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	pause := unix.NsecToTimespec(int64(trafficPause))
	fd := int(tr.out.Fd())
	var packet [8]byte
	for n := uint64(0); ctx.Err() == nil; n++ {
		binary.BigEndian.PutUint64(packet[:], n)
		tr.sent[n%sentRing].Store(int64(time.Since(tr.base)))
		tr.next.Store(n + 1)
		_, _ = unix.Write(fd, packet[:]) // one that cannot be sent does not arrive either
		_ = unix.Nanosleep(&pause, nil)
	}
}

// drain takes in what arrived.
func (tr *traffic) drain() error {
	var packet [64]byte
	for {
		n, _, err := unix.Recvfrom(int(tr.in.Fd()), packet[:], unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		if n == 8 {
			tr.got = max(tr.got, binary.BigEndian.Uint64(packet[:8])+1)
		}
	}
}

func (tr *traffic) sentAt(n uint64) time.Time {
	return tr.base.Add(time.Duration(tr.sent[n%sentRing].Load()))
}

// flowing waits until a packet arrived that was sent after now.
func (tr *traffic) flowing(limit time.Duration) error {
	return tr.until(limit, "no packet arrives", func(began time.Time) bool {
		return tr.got > 0 && tr.sentAt(tr.got-1).After(began)
	})
}

// dropped waits until nothing arrives any more, and returns when the first packet
// of the unbroken lost tail was sent, and how long after the last that arrived.
func (tr *traffic) dropped(limit time.Duration) (at time.Time, grain time.Duration, err error) {
	err = tr.until(limit, "packets still arrive", func(time.Time) bool {
		return tr.got > 0 && tr.next.Load() > tr.got+tailCount && time.Since(tr.sentAt(tr.got)) > tailTime
	})
	if err != nil {
		return time.Time{}, 0, err
	}
	at = tr.sentAt(tr.got)
	return at, at.Sub(tr.sentAt(tr.got - 1)), nil
}

func (tr *traffic) until(limit time.Duration, what string, is func(began time.Time) bool) error {
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		if err := tr.drain(); err != nil {
			return err
		}
		if is(began) {
			return nil
		}
		if time.Since(began) > limit {
			return fmt.Errorf("%s for %s", what, limit)
		}
	}
}
