package sqlite

import (
	"path/filepath"
	"testing"

	"github.com/cordon-security/cordon/mitigator/store"
	"github.com/cordon-security/cordon/mitigator/store/storetest"
)

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T, dir string) store.Store {
		s, err := Open(t.Context(), filepath.Join(dir, "cordon.db"))
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}
