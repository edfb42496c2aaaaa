package testlan

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// exposeDial bounds one connection's way into a host.
const exposeDial = 10 * time.Second

// Expose makes a TCP service that the host can reach answer on the machine's
// loopback too, at listen, or at another free port of that address when it is
// taken; it returns where. A process of its own carries the connections and
// ends with the host. Nothing of the machine's network is changed.
func (h *Host) Expose(ctx context.Context, listen, to netip.AddrPort) (netip.AddrPort, error) {
	at, err := h.expose(ctx, listen, to)
	if err != nil {
		return at, fmt.Errorf("expose %[2]s of %[3]s at %[1]s: %[4]w", listen, to, h.name, err)
	}
	return at, nil
}

func (h *Host) expose(ctx context.Context, listen, to netip.AddrPort) (at netip.AddrPort, err error) {
	if !listen.Addr().IsLoopback() {
		return at, errors.New("only the machine's loopback may be listened on")
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listen.String())
	if errors.Is(err, syscall.EADDRINUSE) {
		l, err = (&net.ListenConfig{}).Listen(ctx, "tcp", netip.AddrPortFrom(listen.Addr(), 0).String())
	}
	if err != nil {
		return at, err
	}
	defer l.Close()
	if at, err = netip.ParseAddrPort(l.Addr().String()); err != nil {
		return at, err
	}
	return at, h.startForwarder(l, to)
}

// startForwarder hands the listener, the host's network and its first process
// to a process that stays on the machine's network.
func (h *Host) startForwarder(l net.Listener, to netip.AddrPort) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	socket, err := l.(*net.TCPListener).File()
	if err != nil {
		return err
	}
	defer socket.Close()
	pidfd, err := unix.PidfdOpen(h.PID(), 0)
	if err != nil {
		return err
	}
	first := os.NewFile(uintptr(pidfd), "first")
	defer first.Close()
	network, err := unix.FcntlInt(uintptr(h.netns), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	netFile := os.NewFile(uintptr(network), "network")
	defer netFile.Close()
	log, err := os.OpenFile(filepath.Join(h.lan.dir, forwarderActor+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(exe, to.String())
	cmd.Args[0] = "lan-" + forwarderActor
	cmd.Env = []string{actorEnv + "=" + forwarderActor, "PATH=" + hostPath}
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{socket, netFile, first}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: h.lan.deathSignal()}
	if err := h.lan.spawner.do(cmd.Start); err != nil {
		return err
	}
	id := identify(cmd.Process.Pid)
	go func() { _ = cmd.Wait() }() // reaped, whatever it says at its end
	return h.lan.record(func(s *state) {
		entry := s.host(h.name)
		entry.Outside = append(entry.Outside, id)
	})
}

// runForwarder carries connections from the listener that it was given into
// the network of a host, until the host's first process ends.
func runForwarder(args []string) error {
	const socketFD, networkFD, firstFD = 3, 4, 5
	for fd := socketFD; fd <= firstFD; fd++ {
		unix.CloseOnExec(fd)
	}
	go func() {
		poll := []unix.PollFd{{Fd: firstFD, Events: unix.POLLIN}}
		for {
			if n, err := unix.Poll(poll, -1); n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
				os.Exit(0)
			}
		}
	}()
	inside, err := newThread(func() error { return unix.Setns(networkFD, unix.CLONE_NEWNET) })
	if err != nil {
		return fmt.Errorf("enter the host's network: %w", err)
	}
	l, err := net.FileListener(os.NewFile(socketFD, "listener"))
	if err != nil {
		return err
	}
	to := strings.Join(args, "")
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go carry(inside, conn, to)
	}
}

// carry joins a connection with a new one from the host's network.
func carry(inside *thread, near net.Conn, to string) {
	defer near.Close()
	var far net.Conn
	err := inside.do(func() (err error) {
		far, err = net.DialTimeout("tcp", to, exposeDial)
		return err
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer far.Close()
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
		both.Go(func() {
			_, _ = io.Copy(way[0], way[1]) // either side's end is the end
			_ = way[0].(*net.TCPConn).CloseWrite()
		})
	}
	both.Wait()
}
