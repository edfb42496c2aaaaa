package breakglass

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// What root wrote belongs to the device's user in both places: in the run
// directory, which is root's and sticky, it could not be removed otherwise.
func TestMarkerBelongsToTheDevice(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	const device = 4711
	m := Marker{StateDir: t.TempDir(), RunDir: t.TempDir()}
	if err := os.Chown(m.StateDir, device, device); err != nil {
		t.Fatal(err)
	}
	if err := m.Set(Order{Actor: "root", Reason: "test"}); err != nil {
		t.Fatal(err)
	}
	for _, dir := range m.dirs() {
		info, err := os.Stat(filepath.Join(dir, markerName))
		if err != nil {
			t.Fatal(err)
		}
		if st := info.Sys().(*syscall.Stat_t); st.Uid != device || st.Gid != device {
			t.Errorf("the marker in %s belongs to %d:%d", dir, st.Uid, st.Gid)
		}
	}
}
