// Command payload plays malware in the agent's tests. It is harmless: it holds
// a connection, starts more of itself, and waits.
package main

import (
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

var (
	connect = flag.String("connect", "", "hold a connection to this address")
	hold    = flag.Duration("hold", time.Hour, "close the connection after this")
	remove  = flag.Bool("remove", false, "remove the executable once started")
	memfd   = flag.Bool("memfd", false, "start again from a file without a name")
	ring    = flag.String("ring", "", "folder of a ring of processes that start each other again")
	size    = flag.Int("size", 8, "size of the ring")
	more    = flag.Int("children", 0, "start this many more of itself as children, which wait")
	slot    = flag.Int("slot", -1, "place in the ring")
	middle  = flag.Bool("middle", false, "start the rest of the arguments and end")
	become  = flag.String("become", "", "become this program, which waits, once connected")
	dropper = flag.Duration("dropper", 0, "start the rest of the arguments again and again, this often")
)

func main() {
	flag.Parse()
	if *middle {
		start(flag.Args()...)
		return
	}
	if *memfd {
		fail(nameless())
	}
	if *remove {
		fail(os.Remove(executable()))
	}
	if *dropper > 0 {
		for {
			start(flag.Args()...)
			time.Sleep(*dropper)
		}
	}
	if *connect != "" {
		c, err := net.Dial("tcp", *connect)
		fail(err)
		time.AfterFunc(*hold, func() { _ = c.Close() })
		if *become != "" {
			fail(syscall.Exec(*become, []string{*become, "100321"}, nil))
		}
	}
	for range *more {
		start(executable())
	}
	if *ring != "" {
		keepRing()
	}
	for {
		time.Sleep(time.Hour)
	}
}

// keepRing writes its own place and starts whoever is missing, by forking
// twice, so that nobody in the ring is another's child.
func keepRing() {
	if *slot >= 0 {
		fail(os.WriteFile(filepath.Join(*ring, strconv.Itoa(*slot)), []byte(strconv.Itoa(os.Getpid())), 0o600))
	}
	for {
		for n := range *size {
			// Each begins at its own place, so that not all start the same.
			i := (n + max(*slot, 0)) % *size
			if !lives(i) {
				start(executable(), "-middle", "--", executable(), "-ring", *ring, "-size", strconv.Itoa(*size), "-slot", strconv.Itoa(i))
				time.Sleep(50 * time.Millisecond)
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func lives(i int) bool {
	data, err := os.ReadFile(filepath.Join(*ring, strconv.Itoa(i)))
	if err != nil {
		return false
	}
	stat, err := os.ReadFile("/proc/" + string(data) + "/stat")
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func start(args ...string) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if cmd.Start() == nil {
		go func() { _ = cmd.Wait() }()
	}
}

// nameless copies the executable to a memfd and becomes that.
func nameless() error {
	data, err := os.ReadFile(executable())
	if err != nil {
		return err
	}
	name := []byte("kworker\x00")
	fd, _, errno := syscall.Syscall(319, uintptr(unsafe.Pointer(&name[0])), 0, 0) // memfd_create on amd64
	if errno != 0 {
		return errno
	}
	if _, err := syscall.Write(int(fd), data); err != nil {
		return err
	}
	return syscall.Exec(fmt.Sprintf("/proc/self/fd/%d", fd), []string{"kworker", "-connect", *connect}, nil)
}

func executable() string {
	path, err := os.Executable()
	fail(err)
	return path
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "payload:", err)
		os.Exit(1)
	}
}
