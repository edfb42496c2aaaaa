package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// write makes a token file of that mode.
func write(t *testing.T, content string, mode os.FileMode) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, mode); err != nil {
		t.Fatal(err)
	}
	return file
}

// at is an invocation that knows the address alone.
func (a *appliance) at(t *testing.T) invocation {
	t.Helper()
	return invocation{env: map[string]string{"CORDON_SERVER": a.address, "XDG_CONFIG_HOME": t.TempDir()}}
}

func TestTokenFilesOpenToOthersAreRefused(t *testing.T) {
	a := newAppliance(t)
	for mode, code := range map[os.FileMode]int{
		0o600: exitOK, 0o400: exitOK, 0o700: exitOK,
		0o640: exitRefused, 0o604: exitRefused, 0o660: exitRefused, 0o620: exitRefused, 0o602: exitRefused, 0o644: exitRefused, 0o777: exitRefused,
	} {
		file := write(t, a.token.Reveal()+"\n", mode)
		got := a.at(t).run("status", "--token-file", file)
		if got.code != code {
			t.Errorf("mode %o: exit code %d, want %d: %s", mode, got.code, code, got.err)
		}
		if code != exitOK {
			got.wants(t, code, "open to others", "chmod 600 "+file)
		}
	}
}

func TestTokenFileOfAnotherUserIsRefused(t *testing.T) {
	a := newAppliance(t)
	file := write(t, a.token.Reveal(), 0o600)
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("this needs root")
		}
		t.Skip("this needs root")
	}
	if err := os.Chown(file, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	a.at(t).run("status", "--token-file", file).wants(t, exitRefused, "user 12345")
}

// Each place is looked at before the next.
func TestTokenPlaces(t *testing.T) {
	a := newAppliance(t)
	i := a.at(t)
	i.run("status").wants(t, exitRefused, "no administrator's token", "cordon login")

	kept := filepath.Join(i.env["XDG_CONFIG_HOME"], "cordon", "token")
	if err := os.MkdirAll(filepath.Dir(kept), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(kept, []byte(a.token.Reveal()), 0o600); err != nil {
		t.Fatal(err)
	}
	ok := func(where string, args ...string) {
		t.Helper()
		if got := i.run(append([]string{"status"}, args...)...); got.code != exitOK {
			t.Errorf("%s: %s", where, got.err)
		}
	}
	ok("kept")
	i.env["CORDON_TOKEN"] = "broken"
	i.run("status").wants(t, exitRefused, "from CORDON_TOKEN")
	i.env["CORDON_TOKEN_FILE"] = write(t, a.token.Reveal(), 0o600)
	ok("CORDON_TOKEN_FILE")
	i.env["CORDON_TOKEN_FILE"] = filepath.Join(t.TempDir(), "none")
	i.run("status").wants(t, exitRefused, "no such file")
	ok("--token-file", "--token-file", kept)
	i.stdin = strings.NewReader("  " + a.token.Reveal() + "\n")
	ok("standard input", "--token-file", "-")
	delete(i.env, "XDG_CONFIG_HOME")
	delete(i.env, "CORDON_TOKEN_FILE")
	delete(i.env, "CORDON_TOKEN")
	i.env["HOME"] = t.TempDir()
	i.run("status").wants(t, exitRefused, "no administrator's token")
}

// The server is the flag's, else the variable's, else the token's.
func TestServerPlaces(t *testing.T) {
	a := newAppliance(t)
	token := a.token
	token.Server = a.address
	nobody := closedPort(t)
	for _, c := range []struct {
		flag, env string
		code      int
	}{
		{"", "", exitOK}, {"", nobody, exitUnreachable}, {a.address, nobody, exitOK}, {nobody, a.address, exitUnreachable},
	} {
		i := invocation{env: map[string]string{"CORDON_TOKEN": token.Reveal(), "CORDON_SERVER": c.env}}
		args := []string{"status"}
		if c.flag != "" {
			args = append(args, "--server", c.flag)
		}
		if got := i.run(args...); got.code != c.code {
			t.Errorf("--server %q, CORDON_SERVER %q: exit code %d, %s", c.flag, c.env, got.code, got.err)
		}
	}
	if s := (&session{process: process{env: func(string) string { return "" }}}).server(a.token); s != "localhost:8443" {
		t.Errorf("default server %s", s)
	}
}

func TestBrokenTokens(t *testing.T) {
	a := newAppliance(t)
	agents := a.token
	agents.Admin = false
	for content, words := range map[string]string{
		"":                                   "is not an administrator's",
		a.token.Reveal()[:40]:                "copy the whole line",
		agents.Reveal():                      "agent's enrolment token",
		strings.Repeat("x", maxToken+1000):   "is not an administrator's",
		strings.ToUpper(a.token.Reveal()):    "copy the whole line",
		a.token.Reveal() + "\nsecond line":   "copy the whole line",
		a.token.Reveal() + "@not an address": "copy the whole line",
	} {
		got := a.at(t).run("status", "--token-file", write(t, content, 0o600))
		got.wants(t, exitRefused, words)
		if strings.Contains(got.err, a.token.Secret.Reveal()) {
			t.Error("the secret was shown")
		}
	}
}

func TestLoginAndLogout(t *testing.T) {
	a := newAppliance(t)
	a.tell()
	i := a.at(t)
	kept := filepath.Join(i.env["XDG_CONFIG_HOME"], "cordon", "token")

	i.run("login").wants(t, exitUsage, "--token-file -")
	i.stdin = strings.NewReader(a.token.Reveal() + "\n")
	if got := i.run("login", "--token-file", "-"); got.code != exitOK || strings.Contains(got.out+got.err, a.token.Secret.Reveal()) {
		t.Fatalf("%+v", got)
	}
	info, err := os.Stat(kept)
	if err != nil || info.Mode() != 0o600 {
		t.Fatalf("%v, %v", info.Mode(), err)
	}
	if dir, err := os.Stat(filepath.Dir(kept)); err != nil || dir.Mode().Perm() != 0o700 {
		t.Errorf("folder: %v, %v", dir.Mode(), err)
	}
	// The address is kept with it.
	delete(i.env, "CORDON_SERVER")
	if got := i.run("status"); got.code != exitOK {
		t.Fatalf("after login: %+v", got)
	}
	for range 2 {
		if got := i.run("logout"); got.code != exitOK {
			t.Fatalf("logout: %+v", got)
		}
	}
	if _, err := os.Stat(kept); !os.IsNotExist(err) {
		t.Errorf("after logout: %v", err)
	}
}

// A token that the appliance does not take replaces none that it took.
func TestRefusedLoginKeepsWhatWas(t *testing.T) {
	a := newAppliance(t)
	i := a.at(t)
	i.stdin = strings.NewReader(a.token.Reveal())
	if got := i.run("login", "--token-file", "-"); got.code != exitOK {
		t.Fatalf("%+v", got)
	}
	other := a.token
	ca, _ := newCA(t)
	other.Secret = newToken(t, ca).Secret
	i.stdin = strings.NewReader(other.Reveal())
	i.run("login", "--token-file", "-").wants(t, exitRefused, "not an administrator's token")
	if got := i.run("status"); got.code != exitOK {
		t.Errorf("the token before is gone: %+v", got)
	}
}

func TestLoginSaysWhatStandsBeforeIt(t *testing.T) {
	a := newAppliance(t)
	i := a.at(t)
	i.env["CORDON_TOKEN"] = "other"
	i.stdin = strings.NewReader(a.token.Reveal())
	if got := i.run("login", "--token-file", "-"); got.code != exitOK || !strings.Contains(got.err, "CORDON_TOKEN is set") {
		t.Errorf("%+v", got)
	}
}

func TestNowhereToKeepTheToken(t *testing.T) {
	a := newAppliance(t)
	i := invocation{env: map[string]string{"CORDON_SERVER": a.address}, stdin: strings.NewReader(a.token.Reveal())}
	i.run("login", "--token-file", "-").wants(t, exitFailed, "XDG_CONFIG_HOME")
	if a.calls() != 0 {
		t.Error("the token was sent, though it cannot be kept")
	}
}
