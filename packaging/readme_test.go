package packaging

import (
	"strings"
	"testing"
)

// The configuration that README.md tells a newcomer to write is taken by the
// programs as it stands there.
func TestReadmeConfiguration(t *testing.T) {
	page := read(t, "../README.md")
	for _, service := range []string{"mitigator", "enforcer"} {
		_, rest, found := strings.Cut(page, "<!-- tested: "+service+".yaml -->\n```yaml\n")
		text, _, ended := strings.Cut(rest, "```\n")
		if !found || !ended {
			t.Fatalf("README.md shows no %s.yaml", service)
		}
		if said, code := check(t, service, text); code != 0 {
			t.Errorf("%s.yaml: exit code %d: %s", service, code, said)
		}
	}
}
