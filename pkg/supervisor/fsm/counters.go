package fsm

import (
	"slices"
	"strings"
	"time"
)

// Bounds of the histograms, in ascending order; one more bucket holds the rest.
// They are read only.
var (
	UptimeBounds = []time.Duration{
		100 * time.Millisecond, time.Second, 10 * time.Second, time.Minute, 10 * time.Minute,
		time.Hour, 6 * time.Hour, 24 * time.Hour, 7 * 24 * time.Hour, 30 * 24 * time.Hour,
	}
	LatencyBounds = []time.Duration{
		100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond, time.Millisecond,
		2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond,
		100 * time.Millisecond, 500 * time.Millisecond, 2500 * time.Millisecond, 10 * time.Second,
	}
)

// Histogram counts durations by bucket. The zero value is empty.
type Histogram struct {
	Counts []uint64 // one for each bound and one for the rest; nil while empty
	Sum    time.Duration
}

func (h *Histogram) observe(bounds []time.Duration, d time.Duration) {
	if h.Counts == nil {
		h.Counts = make([]uint64, len(bounds)+1)
	}
	i := 0
	for i < len(bounds) && d > bounds[i] {
		i++
	}
	h.Counts[i]++
	h.Sum += d
}

func (h Histogram) clone() Histogram {
	h.Counts = slices.Clone(h.Counts)
	return h
}

// ExitCount counts the exits that ended in one way.
type ExitCount struct {
	Reason Reason
	Number int // exit code or signal
	N      uint64
}

// FailureCount counts the starts that failed with one errno.
type FailureCount struct {
	Errno string
	N     uint64
}

// Counters are an entry's totals. They are part of the state, so they go on
// over a re-exec, and never fall.
type Counters struct {
	Starts         uint64
	Exits          uint64
	ByStatus       []ExitCount    // sorted
	StartFailures  []FailureCount // sorted
	Uptime         Histogram
	RestartLatency Histogram
	User, Sys      time.Duration // of ended incarnations
	OOMKills       uint64        // processes of any of its trees, main or not
}

// Count counts an exit, and notes in it which one it is.
func (c *Counters) Count(x *Exit) {
	c.Exits++
	x.Nth = c.Exits
	key := ExitCount{Reason: x.Reason}
	switch x.Reason {
	case ReasonExited:
		key.Number = x.Code
	case ReasonSignaled:
		key.Number = x.Signal
	}
	at, found := slices.BinarySearchFunc(c.ByStatus, key, compareExits)
	if !found {
		c.ByStatus = slices.Insert(c.ByStatus, at, key)
	}
	c.ByStatus[at].N++
	c.Uptime.observe(UptimeBounds, x.Uptime)
	c.User += x.User
	c.Sys += x.Sys
}

func (c *Counters) failedStart(errno string) {
	at, found := slices.BinarySearchFunc(c.StartFailures, errno, func(a FailureCount, b string) int {
		return strings.Compare(a.Errno, b)
	})
	if !found {
		c.StartFailures = slices.Insert(c.StartFailures, at, FailureCount{Errno: errno})
	}
	c.StartFailures[at].N++
}

func (c Counters) clone() Counters {
	c.ByStatus = slices.Clone(c.ByStatus)
	c.StartFailures = slices.Clone(c.StartFailures)
	c.Uptime = c.Uptime.clone()
	c.RestartLatency = c.RestartLatency.clone()
	return c
}

// Sort puts counters that came from elsewhere in the order that they are kept in.
func (c *Counters) Sort() {
	slices.SortFunc(c.ByStatus, compareExits)
	slices.SortFunc(c.StartFailures, func(a, b FailureCount) int { return strings.Compare(a.Errno, b.Errno) })
}

func compareExits(a, b ExitCount) int {
	if a.Reason != b.Reason {
		return int(a.Reason) - int(b.Reason)
	}
	return a.Number - b.Number
}
