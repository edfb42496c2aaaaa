package intake

import (
	"os"
	"strings"
	"testing"

	"github.com/cordon-security/cordon/internal/config"
)

const page = "../../docs/data-sources.md"

// TestDocsExample holds that the page's example is accepted as it stands.
func TestDocsExample(t *testing.T) {
	raw, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(raw), "<!-- tested: intake -->\n```yaml\n")
	if !ok {
		t.Fatalf("%s has no example", page)
	}
	example, _, _ := strings.Cut(rest, "```")
	var c Config
	if err := config.Parse(page, []byte(example), &c); err != nil {
		t.Fatal(err)
	}
	if len(c.Sources) != 2 || len(c.Exceptions) != 1 || c.Exceptions[0].Expires.IsZero() || len(c.HomeNetworks.Exclude) != 1 {
		t.Errorf("read as %+v", c)
	}
}

// TestDocsNameEveryKey holds that the page explains every key.
func TestDocsNameEveryKey(t *testing.T) {
	raw, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, missing := range config.MissingInDocs(string(raw), Config{}) {
		t.Errorf("%s: %s", page, missing)
	}
}
