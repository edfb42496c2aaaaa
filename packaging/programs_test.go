package packaging

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/cordon-security/cordon/internal/testlan"
)

// programs are what a package installs into /usr/bin.
var programs = []string{"cordon", "cordon-mitigator", "cordon-enforcer", "cordon-agent"}

// built is where the programs of this run are, made when first asked for.
var built struct {
	once sync.Once
	dir  string
	err  error
}

func TestMain(m *testing.M) {
	testlan.RunActor()
	code := m.Run()
	if built.dir != "" {
		if err := os.RemoveAll(built.dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// program returns the path of one of the programs, built as `make build` does.
func program(t *testing.T, name string) string {
	t.Helper()
	need(t, "go")
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "cordon-programs-"); built.err != nil {
			return
		}
		args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", built.dir + "/"}
		for _, p := range programs {
			args = append(args, "../cmd/"+p)
		}
		cmd := exec.Command("go", args...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("go build: %w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return filepath.Join(built.dir, name)
}
