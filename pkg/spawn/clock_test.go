package spawn

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestCalibrate: a thread that lost its processor while it compared the clocks, before or
// after it read either, makes no slow clock, nor one that is fast by as much.
func TestCalibrate(t *testing.T) {
	const lost = 5 * time.Millisecond
	for at := range 2*calibrations + 1 {
		started := time.Now()
		var passed time.Duration
		step := 0
		tick := func() time.Duration {
			passed += 100 * time.Nanosecond
			if step == at {
				passed += lost
			}
			step++
			return passed
		}
		c := calibrate(tick, func() time.Time { return started.Add(tick()) })
		if off := c.mono - c.base.Sub(started); off < 0 || off > time.Microsecond {
			t.Errorf("lost before reading %d: off by %v", at, off)
		}
	}
}

// TestClockIsNeverSlow: of two readings the later one is not less, whichever clock
// was read first.
func TestClockIsNeverSlow(t *testing.T) {
	exact := func() time.Duration {
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
			t.Fatal(err)
		}
		return time.Duration(ts.Nano())
	}
	for range 100 {
		c := NewClock()
		before := exact()
		if now, _ := c.Now(); now < before {
			t.Fatalf("slow by %v", before-now)
		}
	}
}
