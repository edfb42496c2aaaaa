package store_test

import (
	"os"
	"testing"

	"github.com/cordon-security/cordon/internal/config"
	"github.com/cordon-security/cordon/mitigator/store"
)

// TestEveryKeyIsInTheDocs holds that no key of the retention block is left out of
// the page.
func TestEveryKeyIsInTheDocs(t *testing.T) {
	page, err := os.ReadFile("../../docs/store.md")
	if err != nil {
		t.Fatal(err)
	}
	block := struct {
		Retention store.Retention `yaml:"retention" doc:"how long what has ended is kept"`
	}{store.DefaultRetention()}
	for _, missing := range config.MissingInDocs(string(page), block) {
		t.Error(missing)
	}
}
