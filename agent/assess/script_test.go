package assess

import (
	"strings"
	"testing"

	"github.com/cordon-security/cordon/agent/procfs"
)

func TestWhatAnInterpreterRuns(t *testing.T) {
	none := input{}
	at := func(path string) input { return input{path: path} }
	inline := func(text string) input { return input{inline: text} }
	for _, c := range []struct {
		exe, args string // Words are separated by "|".
		want      input
	}{
		{"/usr/bin/python3.13", "python3|/opt/x.py|config.yaml", at("/opt/x.py")},
		{"/usr/bin/python3.13", "python3|x.py", at("/work dir/x.py")},
		{"/usr/bin/python3.13", "python3|-u|-W|ignore|x.py", at("/work dir/x.py")},
		{"/usr/bin/python3.13", "python3|-Wignore|-Xdev|x.py", at("/work dir/x.py")},
		{"/usr/bin/python3.13", "python3|-m|fetcher|config.yaml", none},
		{"/usr/bin/python3.13", "python3|-Im|http.server|8000", none},
		{"/usr/bin/python3.13", "python3|-mpip|install|x", none},
		{"/usr/bin/python3.13", "python3|-c|print(1)|x.py", inline("print(1)\n")},
		{"/usr/bin/python3.13", "python3|-uc|print(1)", inline("print(1)\n")},
		{"/usr/bin/python3.13", "python3|-cprint(1)", inline("print(1)\n")},
		{"/usr/bin/bash", "bash|-c|id|x", inline("id")},
		{"/usr/bin/bash", "bash|-lc|id", inline("id")},
		{"/usr/bin/bash", "bash|-c|-x|id", inline("id")},
		{"/usr/bin/bash", "bash|-eo|pipefail|run", at("/work dir/run")},
		{"/usr/bin/bash", "bash|+x|-m|run", at("/work dir/run")},
		{"/usr/bin/bash", "bash|--rcfile|rc|run", at("/work dir/run")},
		{"/usr/bin/bash", "bash|--|run", at("/work dir/run")},
		{"/usr/bin/bash", "-bash", none},
		{"/usr/bin/bash", "bash|-i", none},
		{"/usr/bin/dash", "sh|/tmp/x", at("/tmp/x")},
		{"/usr/bin/mawk", "awk|/x/ { print }|data.txt", inline("/x/ { print }")},
		{"/usr/bin/gawk", "awk|-F:|-v|a=b|{ print }|data.txt", inline("{ print }")},
		{"/usr/bin/gawk", "gawk|-f|prog.awk|data.txt", at("/work dir/prog.awk")},
		{"/usr/bin/perl", "perl|-MIO::Socket|-e|sleep 1|data", inline("sleep 1\n")},
		{"/usr/bin/perl", "perl|-lane|print|data", inline("print\n")},
		{"/usr/bin/perl", "perl|-pi.bak|-e|s/a/b/|data", inline("s/a/b/\n")},
		{"/usr/bin/perl", "perl|-w|-I|lib|run.pl", at("/work dir/run.pl")},
		{"/usr/bin/ruby3.3", "ruby|-rjson|run.rb", at("/work dir/run.rb")},
		{"/usr/bin/node", "node|--eval|1|x.js", inline("1\n")},
		{"/usr/bin/node", "node|-r|hook.js|--max-old-space-size=9|x.js", at("/work dir/x.js")},
		{"/usr/bin/php8.4", "php|-S|127.0.0.1:80|-t|web", none},
		{"/usr/bin/php8.4", "php|-f|x.php|data", at("/work dir/x.php")},
		{"/usr/bin/lua5.4", "lua|-l|socket|x.lua", at("/work dir/x.lua")},
		{"/usr/bin/busybox", "busybox|httpd|-f", none},
		{"/usr/bin/busybox", "busybox|sh|x", at("/work dir/x")},
		{"/usr/bin/busybox", "ash|-c|id", inline("id")},
		{"/usr/bin/busybox", "wget|x", none},
		{"/usr/bin/curl", "curl|x", none},
	} {
		p := procfs.Process{Exe: c.exe, Args: strings.Split(c.args, "|"), Cwd: "/work dir", Stdin: "/dev/null"}
		if got, _ := inputOf(p); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.args, got, c.want)
		}
	}
}

func TestScriptHeldByDescriptor(t *testing.T) {
	for name, c := range map[string]struct {
		p    procfs.Process
		want input
	}{
		"open script":    {procfs.Process{Args: []string{"bash", "run"}, Cwd: "/elsewhere", ScriptFD: "/tmp/run"}, input{path: "/tmp/run"}},
		"removed script": {procfs.Process{Args: []string{"bash", "/tmp/run"}, ScriptFD: "/tmp/run (deleted)"}, input{path: "/tmp/run", gone: true}},
		"hidden words":   {procfs.Process{Args: []string{"[kworker]"}, ScriptFD: "/tmp/run"}, input{path: "/tmp/run"}},
		"standard input": {procfs.Process{Args: []string{"bash"}, Stdin: "/tmp/run"}, input{path: "/tmp/run"}},
		"terminal":       {procfs.Process{Args: []string{"bash"}, Stdin: "/dev/pts/1", ScriptFD: "/dev/pts/1"}, input{}},
	} {
		c.p.Exe = "/usr/bin/bash"
		if got, ok := inputOf(c.p); got != c.want || !ok {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}
