package lifecycle

import (
	"testing"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
	"github.com/cordon-security/cordon/mitigator/event"
	"github.com/cordon-security/cordon/mitigator/threat"
)

// TestReleasedWhenTheLastDeviceSaysSo holds that a machine which one of two devices
// still cuts off does not count as released.
func TestReleasedWhenTheLastDeviceSaysSo(t *testing.T) {
	w := newWorld(t, nil)
	w.lifted.devices = []string{"floor1", "floor2"}
	th := w.alert(printer, event.Attacker, true)
	if _, err := w.ReleaseByPerson(t.Context(), th.EndpointID, "eve", "gone"); err != nil {
		t.Fatal(err)
	}
	says := func(device string) threat.QuarantineState {
		w.must(w.DeviceStatus(t.Context(), device, []*wirev1.QuarantineStatus{
			{QuarantineId: th.QuarantineID, State: wirev1.EnforcementState_ENFORCEMENT_STATE_REMOVED},
		}))
		return w.quarantine(th.QuarantineID).State
	}
	for range 2 {
		if got := says("floor1"); got != threat.QuarantineReleasing {
			t.Errorf("floor2 still holds it, and it is %s", got)
		}
	}
	if got := says("floor2"); got != threat.QuarantineEnded {
		t.Errorf("both have lifted it, and it is %s", got)
	}
	if len(w.lifted.by) != 0 {
		t.Errorf("%v stays in memory", w.lifted.by)
	}
}
