package persistence

import (
	"slices"
	"testing"
)

func commands(text, home, cwd string) []string {
	s := newShell(home, cwd)
	s.run(text, 0)
	return s.out
}

func cronCommands(line, file, home string, vars map[string][]string) []string {
	return cronLine(line, file, home, vars).out
}

func TestWhatAScriptStarts(t *testing.T) {
	const x = "/tmp/.upd"
	for text, want := range map[string]bool{
		"/tmp/.upd": true, "/tmp/.upd -q >/dev/null 2>&1 &": true, "true; /tmp/.upd": true, "true && /tmp/.upd": true, "a | /tmp/.upd": true,
		"(/tmp/.upd)": true, "{ /tmp/.upd; }": true, "$(/tmp/.upd)": true, "`/tmp/.upd`": true, `echo "$(/tmp/.upd)"`: true,
		"[ -x /tmp/.upd ] && /tmp/.upd": true, "if /tmp/.upd; then :; fi": true, "while ! /tmp/.upd; do :; done": true,
		"sh /tmp/.upd": true, "bash -x /tmp/.upd": true, "sh -c '/tmp/.upd -q'": true, "/bin/bash -lc \"cd / && /tmp/.upd\"": true, "sh < /tmp/.upd": true,
		"python3 -u /tmp/.upd": true, "perl -I lib /tmp/.upd": true, "perl -e 'system(\"/tmp/.upd\")'": true, ". /tmp/.upd": true, "source /tmp/.upd": true,
		"env -i A=b /tmp/.upd": true, "nice -n 19 nohup setsid /tmp/.upd": true, "timeout -k 5 10 /tmp/.upd": true, "flock -n /run/l /tmp/.upd": true,
		"flock /run/l -c /tmp/.upd": true, "sudo -u www /tmp/.upd": true, "su - www -c '/tmp/.upd'": true, "xargs /tmp/.upd": true, "chroot / /tmp/.upd": true,
		"nice nice nice nice nice nice /tmp/.upd": true, "/lib64/ld-linux-x86-64.so.2 /tmp/.upd": true, "screen -dmS s /tmp/.upd": true,
		"start-stop-daemon --start --exec /tmp/.upd -- -q": true, "A=1 B=2 /tmp/.upd": true, "X=/tmp/.upd; $X &": true, "D=/tmp\n${D}/.upd": true,
		"for f in /tmp/a /tmp/.upd; do $f & done": true, "cd /tmp && ./.upd": true, "cd /tmp; sh .upd": true, "eval '/tmp/.upd'": true, "/tmp/../tmp/.upd": true,
		"\"/tmp/.upd\"": true, "exec /tmp/.upd": true, "a \\\n && /tmp/.upd": true,

		"rm -f /tmp/.upd": false, "chmod 600 /tmp/.upd": false, "clamscan /tmp/.upd": false, "find /tmp -path /tmp/.upd -delete": false, "tar cf x /tmp/.upd": false,
		"# /tmp/.upd": false, "true # /tmp/.upd": false, "echo /tmp/.upd": false, "cat < /tmp/.upd": false, "a > /tmp/.upd": false, "a >> /tmp/.upd 2>&1": false,
		"[ -e /tmp/.upd ] && logger bad": false, "X=/tmp/.upd; rm $X": false, "sh -c 'rm /tmp/.upd'": false, "python3 -m scan /tmp/.upd": false,
		"flock /tmp/.upd true": false, "sh /opt/scan /tmp/.upd": false, "nice rm /tmp/.upd": false, "cd /opt && ./.upd": false,
	} {
		if got := slices.Contains(commands(text, "", ""), x); got != want {
			t.Errorf("%s: started %v, want %v (%v)", text, got, want, commands(text, "", ""))
		}
	}
}

func TestWhatACrontabStarts(t *testing.T) {
	for _, c := range []struct {
		file, home, text string
		want             bool
	}{
		{"/etc/cron.d/x", "", "* * * * * root /tmp/.upd", true},
		{"/etc/cron.d/x", "", "* * * * * root rm -f /tmp/.upd", false},
		{"/etc/crontab", "", "@reboot root /tmp/.upd", true},
		{"/etc/crontab", "", "SHELL=/tmp/.upd", true},
		{"/etc/crontab", "", "MAILTO=/tmp/.upd", false},
		{"/etc/anacrontab", "", "1 5 name nice /tmp/.upd", true},
		{"/var/spool/cron/crontabs/u", "/tmp", "*/5 * * * * ~/.upd", true},
		{"/var/spool/cron/crontabs/u", "/tmp", "@daily ./.upd", true},
		{"/var/spool/cron/crontabs/u", "/tmp", "0 0 * * * $HOME/.upd", true},
		{"/var/spool/cron/crontabs/u", "", "0 0 * * * mail x%/tmp/.upd", false},
		{"/var/spool/cron/crontabs/u", "", "0 0 * *", false},
	} {
		if got := slices.Contains(cronCommands(c.text, c.file, c.home, map[string][]string{}), "/tmp/.upd"); got != c.want {
			t.Errorf("%s in %s: started %v, want %v", c.text, c.file, got, c.want)
		}
	}
}

func FuzzCommands(f *testing.F) {
	for _, s := range []string{"a | b", "for x in y; do $x", `"$(a "b`, "su - x -c '", "cd", "cd $X", "env -u", "X=;cd $X", "for a in ; do", "<", ">", "\\"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if got := commands(text, "/home/u", "/w"); len(got) > maxWords {
			t.Errorf("%d words", len(got))
		}
		cronCommands(text, "/etc/crontab", "", map[string][]string{})
	})
}
