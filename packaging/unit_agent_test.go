package packaging

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cordon-security/cordon/internal/testlan"
	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

const (
	dropped = "/var/tmp/.cache/updater"
	crontab = "/var/spool/cron/crontabs/root"
	ownLine = "17 4 * * * /usr/bin/true\n"
	reviver = "cache-updater.service"
	// fileCapability is the attribute of CAP_NET_RAW in a file's permitted and
	// effective set, revision 2; see linux/capability.h.
	fileCapability = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
)

// agentWorks lets the agent under its unit clean an endpoint, and bring a file
// back with all that it had.
func (s *site) agentWorks(t *testing.T) {
	appliance, alice := s.in(t)
	c2 := netip.AddrPortFrom(testlan.C2IPv4, testlan.C2Port)
	alice.must(alice.host.DropPayload(t.Context(), dropped))
	alice.must(alice.host.Do(func() error {
		return errors.Join(unix.Chown(dropped, 1234, 1234), unix.Chmod(dropped, 0o4755),
			unix.Setxattr(dropped, "security.capability", []byte(fileCapability), 0), unix.Setxattr(dropped, "trusted.mark", []byte("x"), 0))
	}))
	command := strings.Join(append([]string{dropped}, testlan.PayloadOptions{C2: c2, Name: "updater", Children: 1}.Args()...), " ")
	alice.must(alice.host.WriteFile(crontab, []byte(ownLine+"@reboot "+command+"\n"), 0o600))
	alice.write(dropIns+reviver, "[Service]\nExecStart="+command+"\nRestart=always\n[Install]\nWantedBy=multi-user.target\n")
	alice.run("systemctl", "enable", "--now", reviver)
	var open []testlan.Connection
	_, err := s.lan.C2.WaitFor(t.Context(), func(all []testlan.Connection) bool {
		open = testlan.Receiving(all, testlan.AliceIPv4, time.Now().Add(-time.Second))
		return len(open) > 0
	})
	appliance.must(err)
	appliance.must(appliance.host.AppendFile(evePath, alert(t, open[0].Remote, c2)))
	appliance.until("the threat is resolved", func() error {
		var list wirev1.ListThreatsResponse
		if err := appliance.admin(&list, "threats", "--all"); err != nil {
			return err
		}
		if a := list.GetThreats(); len(a) != 1 || a[0].GetState() != "resolved" {
			return fmt.Errorf("%w: threats %v%s", errNot, a, alice.log())
		}
		return nil
	})
	if alice.host.Exists(dropped) || alice.host.Exists(dropIns+reviver) {
		t.Error("the threat's files are there still")
	}
	if state := strings.TrimSpace(alice.run("systemctl", "show", "--value", "-p", "ActiveState", reviver)); state != "inactive" {
		t.Errorf("the unit that starts it is %s", state)
	}
	lines, err := alice.host.ReadFile(crontab)
	alice.must(err)
	for line := range strings.Lines(string(lines)) {
		if !strings.HasPrefix(line, "#") && line != ownLine {
			t.Errorf("cron would run %q", line)
		}
	}
	s.restore(alice)
}

// restore brings the file back by a unit that is the agent's but for what it
// runs, so that what the sandbox forbids shows.
func (s *site) restore(alice machine) {
	alice.Helper()
	var items []struct {
		ID   string `json:"id"`
		Path []byte `json:"path"`
	}
	alice.must(json.Unmarshal([]byte(alice.run("cordon-agent", "vault", "list", "--json")), &items))
	id := ""
	for _, i := range items {
		if string(i.Path) == dropped {
			id = i.ID
		}
	}
	var lines []string
	for line := range strings.Lines(read(alice.T, "systemd/cordon-agent.service")) {
		switch key, _, _ := strings.Cut(line, "="); key {
		case "Type":
			line = "Type=oneshot\n"
		case "ExecStart":
			line = "ExecStart=/usr/bin/cordon-agent restore " + id + "\n"
		case "Restart", "WatchdogSec", "NotifyAccess":
			line = ""
		}
		lines = append(lines, line)
	}
	alice.write("/run/systemd/system/cordon-restore.service", strings.Join(lines, ""))
	alice.run("systemctl", "daemon-reload")
	alice.systemctl("start", "restore")
	var st unix.Stat_t
	value, mark := make([]byte, 64), make([]byte, 8)
	n := 0
	alice.must(alice.host.Do(func() (err error) {
		if err = unix.Stat(dropped, &st); err != nil {
			return err
		}
		if n, err = unix.Getxattr(dropped, "security.capability", value); err != nil {
			return fmt.Errorf("its capability: %w", err)
		}
		if _, err = unix.Getxattr(dropped, "trusted.mark", mark); err != nil {
			return fmt.Errorf("its trusted attribute: %w", err)
		}
		return nil
	}))
	if st.Uid != 1234 || st.Gid != 1234 || st.Mode&0o7777 != 0o4755 || string(value[:n]) != fileCapability {
		alice.Errorf("restored as %d:%d %o with %q", st.Uid, st.Gid, st.Mode, value[:n])
	}
	alice.must(alice.host.Remove(dropped))
}

// alert is a record as Suricata writes it, of a flow that is under way.
func alert(t *testing.T, src, dst netip.AddrPort) []byte {
	t.Helper()
	const eveTime = "2006-01-02T15:04:05.000000-0700"
	now := time.Now()
	line, err := json.Marshal(map[string]any{
		"timestamp": now.Format(eveTime), "event_type": "alert", "proto": "TCP", "app_proto": "http",
		"src_ip": src.Addr(), "src_port": src.Port(), "dest_ip": dst.Addr(), "dest_port": dst.Port(),
		"alert": map[string]any{
			"action": "allowed", "gid": 1, "signature_id": 2017259, "rev": 12, "severity": 1,
			"signature": "ET TROJAN Generic - POST To .php w/Extended ASCII Characters", "category": "A Network Trojan was detected",
		},
		"flow": map[string]any{
			"pkts_toserver": 7, "pkts_toclient": 6, "bytes_toserver": 1562, "bytes_toclient": 446, "start": now.Add(-time.Second).Format(eveTime),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return append(line, '\n')
}
