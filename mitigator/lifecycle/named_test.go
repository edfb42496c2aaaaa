package lifecycle

import (
	"testing"

	"github.com/cordon-security/cordon/mitigator/endpoint"
	"github.com/cordon-security/cordon/mitigator/store/storetest"
	"github.com/cordon-security/cordon/mitigator/threat"
)

// TestUnseenMachineIsCutOffOnAFullDisk holds that a person may cut a machine off
// that was never seen also while the disk is full, and what room there was is
// used up.
func TestUnseenMachineIsCutOffOnAFullDisk(t *testing.T) {
	storetest.OnSmallDisk(t, "size=12m", func(d *storetest.Disk) {
		w := worldOn(t, d)
		var ep endpoint.Endpoint
		for n := range 20 {
			var err error
			if ep, err = w.EndpointByPerson(t.Context(), endpoint.MAC{2, 0, 0, 0, 0x55, byte(n)}); err != nil {
				t.Fatalf("after %d: %v", n, err)
			}
		}
		if q, err := w.QuarantineByPerson(t.Context(), ep.ID, threat.AccessNone, "seen scanning", "eve", 0); err != nil || q.State != threat.QuarantineOrdered {
			t.Errorf("%+v, %v", q, err)
		}
	})
}
