// Command payload plays malware on a host of a test LAN. It is harmless: it
// opens one TCP connection to the address it is given, says "beacon" on it five
// times a second, and starts copies of itself that do the same. It refuses to
// run anywhere but on a host of a test LAN, dials documentation and private
// addresses only, and ends by itself after half an hour.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	markPath = "/run/cordon-lan/host"
	lifetime = 30 * time.Minute
	interval = 200 * time.Millisecond
	// patience is how long an answer may take before the connection counts as
	// dead and is made again.
	patience = 3 * time.Second
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "payload:", err)
		os.Exit(1)
	}
}

func run() error {
	c2 := flag.String("c2", "", "address and port to connect to")
	name := flag.String("name", "payload", "what it calls itself")
	children := flag.Int("children", 0, "depth of the tree of children")
	orphans := flag.Int("orphans", 0, "processes that leave their parent")
	fork := flag.Bool("fork", false, "start one more and end at once")
	flag.Parse()
	if _, err := os.Stat(markPath); err != nil {
		return errors.New("this machine is no host of a test LAN: refusing to run")
	}
	to, err := netip.ParseAddrPort(*c2)
	if err != nil {
		return fmt.Errorf("-c2: %w", err)
	}
	if !allowed(to.Addr()) {
		return fmt.Errorf("-c2 %s: only documentation and private addresses", to)
	}
	if *fork {
		return spawn(*c2, *name, "")
	}
	time.AfterFunc(lifetime, func() { os.Exit(0) })
	for i := range min(*orphans, 64) {
		if err := spawn(*c2, *name+"-orphan"+strconv.Itoa(i+1), "-fork"); err != nil {
			return err
		}
	}
	if *children > 0 {
		base, _, _ := strings.Cut(*name, "-child")
		child := fmt.Sprintf("%s-child%d", base, *children)
		if err := spawn(*c2, child, "-children="+strconv.Itoa(min(*children, 64)-1)); err != nil {
			return err
		}
	}
	for {
		beacon(to, *name)
		time.Sleep(interval)
	}
}

// allowed keeps to TEST-NET addresses (RFC 5737, RFC 3849) and private ones.
func allowed(a netip.Addr) bool {
	if a.IsPrivate() || a.IsLoopback() {
		return true
	}
	for _, p := range []string{"192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32"} {
		if netip.MustParsePrefix(p).Contains(a) {
			return true
		}
	}
	return false
}

// spawn starts this program again. A process that forks and ends is waited
// for; any other is reaped in the background.
func spawn(c2, name, flag string) error {
	args := []string{"-c2", c2, "-name", name}
	if flag != "" {
		args = append(args, flag)
	}
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	if flag == "-fork" {
		return cmd.Wait()
	}
	go func() { _ = cmd.Wait() }() // reaped; why it ended does not matter
	return nil
}

// beacon holds one connection until it breaks.
func beacon(to netip.AddrPort, name string) {
	conn, err := net.DialTimeout("tcp", to.String(), patience)
	if err != nil {
		return
	}
	defer conn.Close()
	answers := bufio.NewReader(conn)
	for {
		if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
			return
		}
		if _, err := fmt.Fprintf(conn, "beacon %s %d\n", name, os.Getpid()); err != nil {
			return
		}
		if _, err := answers.ReadString('\n'); err != nil {
			return
		}
		time.Sleep(interval)
	}
}
