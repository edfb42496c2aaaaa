package main

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cordon-security/cordon/enforcer/device"
	"github.com/cordon-security/cordon/enforcer/nft"
)

type disturbances []device.Disturbance

func (d *disturbances) Disturbed(x device.Disturbance) { *d = append(*d, x) }

// TestWatchBacksOff: an error that stays is not a hot loop, and everything is
// compared meanwhile.
func TestWatchBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		calls := 0
		var told disturbances
		begin := time.Now()
		watch(ctx, func() (nft.Change, error) {
			if calls++; calls == 8 {
				return nft.Change{Tables: true, By: "nft"}, nil
			}
			return nft.Change{}, errors.New("no")
		}, &told, slog.New(slog.DiscardHandler))
		if time.Since(begin) != 10*time.Minute || calls < 20 || calls > 60 || len(told) != calls {
			t.Errorf("%d calls and %d comparisons in %s", calls, len(told), time.Since(begin))
		}
		for i, x := range told {
			if x.Everything != (i != 7) || x.Tables != (i == 7) {
				t.Errorf("%d: %+v", i, x)
			}
		}
	})
}

func TestWatchEndsWithTheMethod(t *testing.T) {
	var told disturbances
	watch(t.Context(), func() (nft.Change, error) { return nft.Change{}, nft.ErrClosed }, &told, slog.New(slog.DiscardHandler))
	if len(told) != 0 {
		t.Errorf("told %v", told)
	}
}
