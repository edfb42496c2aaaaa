package rooms

import (
	"os"
	"strings"
	"testing"
)

// TestDependenciesAreNamed holds that each module that go.mod asks for by itself
// stands on the page that gives its reason, and that the page names no other.
func TestDependenciesAreNamed(t *testing.T) {
	const page = "../../docs/decisions/0006-dependencies.md"
	reasons, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	direct := 0
	for line := range strings.Lines(string(file)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || !strings.HasPrefix(fields[1], "v") || strings.Contains(line, "// indirect") {
			continue
		}
		direct++
		if !strings.Contains(string(reasons), "`"+fields[0]+"`") {
			t.Errorf("%s does not say why there is %s", page, fields[0])
		}
	}
	if direct < 10 {
		t.Fatalf("go.mod was read as %d modules", direct)
	}
	for i, part := range strings.Split(string(reasons), "`") {
		isModule := i%2 == 1 && strings.Contains(part, ".") && strings.Contains(part, "/") && !strings.Contains(part, " ")
		if isModule && !strings.Contains(string(file), part) {
			t.Errorf("%s names %s, which go.mod does not", page, part)
		}
	}
}
