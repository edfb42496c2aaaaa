package service

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestKeepStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := &recorder{}
		ctx, cancel := context.WithCancel(t.Context())
		lines := []string{"one", "one", "two\nlines", "two\nlines"}
		asked := 0
		go newUnit(rec).KeepStatus(ctx, func() string { asked++; return lines[min(asked, len(lines))-1] })
		time.Sleep(time.Minute)
		cancel()
		synctest.Wait()
		if got := rec.all(); !slices.Equal(got, []string{"STATUS=one", "STATUS=two; lines"}) || asked < len(lines) {
			t.Errorf("asked %d times, told %q", asked, got)
		}
		time.Sleep(time.Minute)
		if rec.count("STATUS=one") != 1 {
			t.Error("told after its end")
		}
	})
	(*Unit)(nil).KeepStatus(t.Context(), func() string { t.Error("asked without a unit"); return "" })
}
