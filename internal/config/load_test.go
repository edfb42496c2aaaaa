package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// TestLoadUsual holds that only the usual file may be missing, and that one which
// is there is read like any other.
func TestLoadUsual(t *testing.T) {
	type file struct {
		Name string `yaml:"name" doc:"A name."`
	}
	usual := filepath.Join(t.TempDir(), "usual.yaml")
	c := file{Name: "default"}
	if err := LoadUsual(usual, usual, &c); err != nil || c.Name != "default" {
		t.Errorf("the usual file is missing: %+v, %v", c, err)
	}
	if err := LoadUsual(usual+".other", usual, &c); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a named file is missing: %v", err)
	}
	if err := os.WriteFile(usual, []byte("name: x\nunknown: y\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var faulty *Error
	if err := LoadUsual(usual, usual, &c); !errors.As(err, &faulty) {
		t.Errorf("the usual file is faulty: %v", err)
	}
}
