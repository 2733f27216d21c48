package spawn

import (
	"time"

	"golang.org/x/sys/unix"
)

// clock reads CLOCK_MONOTONIC and the wall clock in one go: time.Now reads
// both without a system call, but hides the monotonic reading's origin.
type clock struct {
	base time.Time
	mono time.Duration // CLOCK_MONOTONIC at base
}

func newClock() clock {
	var ts unix.Timespec
	// CLOCK_MONOTONIC is always there.
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return clock{base: time.Now(), mono: time.Duration(ts.Nano())}
}

func (c clock) now() (mono time.Duration, wall int64) {
	t := time.Now()
	return c.mono + t.Sub(c.base), t.UnixNano()
}
