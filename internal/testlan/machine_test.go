package testlan

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
)

// ownerEnv makes the test binary build a LAN of that name and wait to be killed.
const ownerEnv = "CORDON_LAN_TEST_OWNER"

// runOwner plays the process that makes a LAN and dies.
func runOwner() {
	name, keep := strings.CutPrefix(os.Getenv(ownerEnv), "keep:")
	lan, err := NewStandard(context.Background(), StandardOptions{Options: Options{Name: name, Keep: keep}})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	if _, err := lan.Bob.StartReviver(context.Background(), "/bin/sleep", "1000"); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("up")
	select {}
}

// machineNetwork describes the machine's own network: links, addresses,
// routes, nftables tables with their chains and sets, and settings that a LAN
// changes in its hosts. Neighbours are left out: they change by themselves.
func machineNetwork(t *testing.T) []string {
	t.Helper()
	var out []string
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		out = append(out, fmt.Sprintf("link %d %s %s %s", l.Attrs().Index, l.Attrs().Name, l.Attrs().HardwareAddr, l.Attrs().Flags))
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		out = append(out, "address "+a.IPNet.String())
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		out = append(out, "route "+r.String())
	}
	conn := &nftables.Conn{}
	tables, err := conn.ListTables()
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		out = append(out, fmt.Sprintf("table %d %s", table.Family, table.Name))
		sets, err := conn.GetSets(table)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range sets {
			out = append(out, fmt.Sprintf("set %d %s %s", table.Family, table.Name, s.Name))
		}
	}
	chains, err := conn.ListChains()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range chains {
		out = append(out, fmt.Sprintf("chain %d %s %s", c.Table.Family, c.Table.Name, c.Name))
	}
	for _, key := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv6/conf/all/accept_dad", "kernel/hostname"} {
		value, err := os.ReadFile("/proc/sys/" + key)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, key+" "+strings.TrimSpace(string(value)))
	}
	slices.Sort(out)
	return out
}

// leftovers finds what a LAN of that name has on the machine: mounts, control
// groups, folders, and processes.
func leftovers(t *testing.T, name string) []string {
	t.Helper()
	var out []string
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, "cordon-lan/"+name) {
			out = append(out, "mount "+line)
		}
	}
	root, err := cgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(stateRoot, name), filepath.Join(root, "cordon-lan", name)} {
		if _, err := os.Stat(path); err == nil {
			out = append(out, path)
		}
	}
	processes, err := filepath.Glob("/proc/[0-9]*/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range processes {
		b, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(b), "cordon-lan/"+name+"/") {
			out = append(out, "process "+filepath.Dir(path))
		}
	}
	return out
}

func expectSameMachine(t *testing.T, before []string) {
	t.Helper()
	after := machineNetwork(t)
	if !slices.Equal(before, after) {
		t.Errorf("the machine's own network changed from\n%s\nto\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
}

func expectNothingLeft(t *testing.T, name string) {
	t.Helper()
	if left := leftovers(t, name); len(left) > 0 {
		t.Errorf("LAN %s left %s", name, strings.Join(left, "\n"))
	}
}

func TestCloseLeavesTheMachineAsItWas(t *testing.T) {
	needRoot(t)
	before := machineNetwork(t)
	lan := newStandard(t, StandardOptions{})
	if _, err := lan.Bob.StartReviver(t.Context(), "/bin/sleep", "1000"); err != nil {
		t.Fatal(err)
	}
	expectSameMachine(t, before)
	if len(leftovers(t, lan.Name())) == 0 {
		t.Error("a LAN that is up shows nothing: the search for leftovers finds nothing ever")
	}
	if err := lan.Close(); err != nil {
		t.Fatal(err)
	}
	expectSameMachine(t, before)
	expectNothingLeft(t, lan.Name())
}

func TestHalfBuiltLANGoes(t *testing.T) {
	needRoot(t)
	_, err := NewStandard(t.Context(), StandardOptions{
		Options: Options{Name: "half-built"}, NoSystemd: true,
		Customize: func(host string, o *HostOptions) {
			if host == "bob" {
				o.Binds = []Bind{{Source: "/does/not/exist"}}
			}
		},
	})
	if !errors.Is(err, os.ErrNotExist) && (err == nil || !strings.Contains(err.Error(), "/does/not/exist")) {
		t.Errorf("error is %v", err)
	}
	expectNothingLeft(t, "half-built")
}

// startOwner makes a LAN in another process and returns that process.
func startOwner(t *testing.T, spec string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	owner := exec.Command(exe)
	owner.Env = append(os.Environ(), ownerEnv+"="+spec)
	owner.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "up\n" {
		t.Fatalf("the other process says %q, %v", line, err)
	}
	return owner
}

func TestKilledMaker(t *testing.T) {
	needRoot(t)
	before := machineNetwork(t)
	for _, tt := range []struct {
		name string
		keep bool
	}{{"killed", false}, {"kept", true}} {
		t.Run(tt.name, func(t *testing.T) {
			name := fmt.Sprintf("%s-%d", tt.name, os.Getpid())
			spec := name
			if tt.keep {
				spec = "keep:" + name
			}
			owner := startOwner(t, spec)
			t.Cleanup(func() {
				if err := Down(name); err != nil {
					t.Error(err)
				}
			})
			if err := Down(name); !errors.Is(err, ErrInUse) {
				t.Errorf("Down while the maker runs: %v", err)
			}
			if _, err := New(t.Context(), Options{Name: name}); !errors.Is(err, ErrExists) {
				t.Errorf("New of the same name: %v", err)
			}
			if err := owner.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = owner.Wait() // killed, as meant
			checkOrphanedLAN(t, name, tt.keep)
			if err := Down(name); err != nil {
				t.Fatal(err)
			}
			expectSameMachine(t, before)
			expectNothingLeft(t, name)
		})
	}
}

// checkOrphanedLAN looks at a LAN whose maker was killed: a kept one runs on,
// of another no process is left.
func checkOrphanedLAN(t *testing.T, name string, kept bool) {
	t.Helper()
	s, err := loadState(name)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Hosts) != 5 {
		t.Fatalf("state file has hosts %+v", s.Hosts)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for _, h := range s.Hosts {
		for _, p := range append(h.Outside, h.Init) {
			if kept {
				if !p.alive() {
					t.Errorf("a process of %s has ended on a kept LAN", h.Name)
				}
				continue
			}
			if err := waitGone(ctx, p); err != nil {
				t.Errorf("%s outlives the maker: %v", h.Name, err)
			}
		}
	}
	list, err := List()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(list, func(i Info) bool { return i.Name == name })
	if i < 0 || list[i].Kept != kept || list[i].InUse || len(list[i].Hosts) != 5 {
		t.Errorf("List says %+v", list)
	}
}
