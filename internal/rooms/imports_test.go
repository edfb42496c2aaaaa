package rooms

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

// listed is what `go list -json` says about a package.
type listed struct {
	Dir, ImportPath, Name              string
	GoFiles                            []string
	Imports, TestImports, XTestImports []string
}

func goList(t *testing.T, args ...string) []listed {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-e", "-json=Dir,ImportPath,Name,GoFiles,Imports,TestImports,XTestImports"}, args...)...)
	cmd.Dir = "../.."
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, errs.String())
	}
	var all []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) == 0 {
		t.Fatal("go list named no package")
	}
	return all
}

func TestImports(t *testing.T) {
	for _, p := range goList(t, "./...") {
		for _, to := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			if why := Refused(p.ImportPath, to); why != "" {
				t.Errorf("%s imports %s: %s", p.ImportPath, to, why)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		from, to string
		refused  bool
	}{
		{"mitigator/intake", "mitigator/event", false},
		{"mitigator/intake", "internal/config", false},
		{"mitigator/device", "enforcer", true},
		{"agent", "mitigator/fleet", true},
		{"internal/demo", "agent", true},
		{"internal/demo", "internal/testlan", false},
		{"cmd/cordon-agent", "agent", false},
		{"agent", "cmd/cordon-agent", true},
		{"packaging", "enforcer", false},
	} {
		if got := Refused(module+"/"+c.from, module+"/"+c.to) != ""; got != c.refused {
			t.Errorf("Refused(%s, %s) = %v, want %v", c.from, c.to, got, c.refused)
		}
	}
	if Refused(module+"/agent", "net/netip") != "" {
		t.Error("the standard library is refused")
	}
}

// Each endpoint program links its own room alone, so that a flaw in the
// mitigator's code is not on every machine of the LAN.
func TestProgramsLinkTheirOwnRoom(t *testing.T) {
	checked := 0
	for _, program := range goList(t, "./cmd/...") {
		room, found := strings.CutPrefix(program.ImportPath, module+"/cmd/cordon-")
		if !found {
			continue
		}
		checked++
		for _, p := range goList(t, "-deps", program.ImportPath) {
			if in := Of(p.ImportPath); IsRoom(in) && in != room {
				t.Errorf("cordon-%s links %s", room, p.ImportPath)
			}
		}
	}
	if checked == 0 {
		t.Error("no program was found")
	}
}

// A folder is named for the noun it owns.
func TestNoPackageWithoutANoun(t *testing.T) {
	for _, p := range goList(t, "./...") {
		for _, word := range strings.Split(strings.TrimPrefix(p.ImportPath, module+"/"), "/") {
			if slices.Contains([]string{"util", "utils", "common", "helper", "helpers", "types", "manager", "misc", "base", "shared"}, word) {
				t.Errorf("%s: the folder %q owns no noun", p.ImportPath, path.Base(word))
			}
		}
	}
}
