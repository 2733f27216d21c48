package fsm

import (
	"slices"
	"testing"
	"time"
)

// What the histograms and sums hold comes from the times of the facts, not from
// when they were told.
func TestCounters(t *testing.T) {
	e := pairEntry
	m := New()
	late := func(at Instant, ev Event) { m.Step(at+5*time.Millisecond, ev) }
	id := ID{Entry: "web", Incarnation: 1}
	m.Step(0, Configure{Entries: []Entry{e}})
	late(0, Spawned{ID: id, PID: 1, At: 0})
	st := Status{Reason: ReasonExited, UsageSet: true, User: 3 * time.Second, Sys: time.Second}
	late(10*time.Second, Exited{ID: id, At: 10 * time.Second, Status: st, TreeEmpty: true})
	at, _ := m.NextDeadline()
	if want := 11 * time.Second; at != want {
		t.Fatalf("the next start is due at %v, not %v", at, want)
	}

	// From due to started is the latency; a bound is part of its bucket.
	m.Step(at+time.Millisecond, Tick{})
	id.Incarnation++
	late(at, Spawned{ID: id, PID: 2, At: at + 2500*time.Microsecond})
	late(at, Exited{ID: id, At: at + time.Second, Status: Status{Reason: ReasonSignaled, Signal: 9}, TreeEmpty: true})

	// A start that was asked for, or that follows one that failed, has no latency.
	m.Step(at+time.Second, Start{Entry: "web", Slot: AllSlots})
	id.Incarnation++
	late(at, SpawnFailed{ID: id, At: at + time.Second, Errno: "ENOENT"})
	at, _ = m.NextDeadline()
	m.Step(at, Tick{})
	id.Incarnation++
	late(at, Spawned{ID: id, PID: 3, At: at + time.Second})

	// One that was due and failed does not lend its due time to the next.
	late(at, Exited{ID: id, At: at + 2*time.Second, Status: Status{Reason: ReasonUnknown}, TreeEmpty: true})
	at, _ = m.NextDeadline()
	m.Step(at, Tick{})
	id.Incarnation++
	late(at, SpawnFailed{ID: id, At: at, Errno: "EAGAIN"})
	at, _ = m.NextDeadline()
	m.Step(at, Tick{})
	id.Incarnation++
	late(at, Spawned{ID: id, PID: 4, At: at})

	c := m.Snapshot().Entries[0].Counters
	if c.Starts != 4 || c.Exits != 3 {
		t.Errorf("%d starts, %d exits", c.Starts, c.Exits)
	}
	if want := []ExitCount{{ReasonExited, 0, 1}, {ReasonSignaled, 9, 1}, {ReasonUnknown, 0, 1}}; !slices.Equal(c.ByStatus, want) {
		t.Errorf("exits %v, want %v", c.ByStatus, want)
	}
	if want := []FailureCount{{"EAGAIN", 1}, {"ENOENT", 1}}; !slices.Equal(c.StartFailures, want) {
		t.Errorf("failed starts %v, want %v", c.StartFailures, want)
	}
	checkHistogram(t, "uptime", c.Uptime, UptimeBounds, 10*time.Second, 997500*time.Microsecond, time.Second)
	checkHistogram(t, "restart latency", c.RestartLatency, LatencyBounds, 2500*time.Microsecond)
	if c.User != st.User || c.Sys != st.Sys {
		t.Errorf("CPU %v and %v", c.User, c.Sys)
	}
}

// checkHistogram compares with the durations that were to be observed. A bound
// belongs to the bucket below it, as in Prometheus.
func checkHistogram(t *testing.T, name string, h Histogram, bounds []time.Duration, observed ...time.Duration) {
	t.Helper()
	want := make([]uint64, len(bounds)+1)
	var sum time.Duration
	for _, d := range observed {
		at, _ := slices.BinarySearch(bounds, d)
		want[at]++
		sum += d
	}
	if !slices.Equal(h.Counts, want) || h.Sum != sum {
		t.Errorf("%s: %v, sum %v; want %v, sum %v", name, h.Counts, h.Sum, want, sum)
	}
}
