package spawn

import (
	"time"

	"golang.org/x/sys/unix"
)

// A Clock reads CLOCK_MONOTONIC, which is the same for all processes of a boot and
// for the kernel's events, and the wall clock in one go, without a system call:
// time.Now reads both, but hides the monotonic reading's origin. It is a value, safe
// for concurrent use; make it with [NewClock].
type Clock struct {
	base time.Time
	mono time.Duration // CLOCK_MONOTONIC at base, or a little later
}

// NewClock returns a clock that is never slow, and fast by less than a microsecond
// as a rule: what is read after something happened is not before its moment as the
// kernel has it.
func NewClock() Clock {
	return calibrate(func() time.Duration {
		var ts unix.Timespec
		_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // which is always there
		return time.Duration(ts.Nano())
	}, time.Now)
}

// calibrations is how often the clocks are compared. A thread that loses its
// processor between two readings is off by milliseconds, so the closest counts.
const calibrations = 10

func calibrate(mono func() time.Duration, now func() time.Time) (c Clock) {
	best := time.Duration(1<<63 - 1)
	before := mono()
	for range calibrations {
		base := now()
		after := mono()
		if width := after - before; width < best {
			best, c = width, Clock{base: base, mono: after}
		}
		before = after
	}
	return c
}

// Now returns the time of CLOCK_MONOTONIC, and nanoseconds since 1970.
func (c Clock) Now() (mono time.Duration, wall int64) {
	t := time.Now()
	return c.mono + t.Sub(c.base), t.UnixNano()
}
