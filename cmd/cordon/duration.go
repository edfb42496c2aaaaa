package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// rough shows a duration in its one or two largest units.
func rough(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < time.Second:
		return "0 s"
	case d < time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%d m", d/time.Minute)
	case d < day:
		return two(int64(d/time.Hour), "h", int64(d%time.Hour/time.Minute), "m")
	}
	return two(int64(d/day), "d", int64(d%day/time.Hour), "h")
}

func two(n int64, unit string, m int64, smaller string) string {
	if m == 0 {
		return fmt.Sprintf("%d %s", n, unit)
	}
	return fmt.Sprintf("%d %s %d %s", n, unit, m, smaller)
}

// delta shows the time from one step to the next, as exact as is of use.
func delta(d time.Duration) string {
	sign := "+"
	if d < 0 {
		sign, d = "-", -d
	}
	switch {
	case d < 10*time.Millisecond:
		return sign + strconv.FormatFloat(float64(d)/float64(time.Millisecond), 'f', 1, 64) + " ms"
	case d < time.Second:
		return fmt.Sprintf("%s%d ms", sign, d/time.Millisecond)
	case d < time.Minute:
		return sign + strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
	}
	return sign + rough(d)
}

// span is a duration as people type it: "90s", "8h", "2d", "1d12h".
type span time.Duration

// UnmarshalText implements encoding.TextUnmarshaler. A span is more than nothing.
func (s *span) UnmarshalText(data []byte) error {
	typed, text := string(data), string(data)
	var d time.Duration
	if days, rest, found := strings.Cut(text, "d"); found {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil {
			return fmt.Errorf("%q is no duration: such as 30m, 8h, 2d", typed)
		}
		d, text = time.Duration(n)*24*time.Hour, rest
	}
	if text != "" {
		rest, err := time.ParseDuration(text)
		if err != nil || rest < 0 {
			return fmt.Errorf("%q is no duration: such as 30m, 8h, 2d", typed)
		}
		d += rest
	}
	if d <= 0 {
		return fmt.Errorf("%q is no time at all: such as 30m, 8h, 2d", typed)
	}
	*s = span(d)
	return nil
}
