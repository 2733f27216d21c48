package supervisor

import (
	"maps"
	"slices"

	"github.com/sentryd/sentryd/pkg/logs"
	"github.com/sentryd/sentryd/pkg/procevents"
	"github.com/sentryd/sentryd/pkg/state"
	"github.com/sentryd/sentryd/pkg/view"
)

// OutputCounts is what a scrape needs of pkg/logs.
type OutputCounts interface {
	Counts(entry string) logs.Counts
	Stats() logs.Stats
}

// Scrape returns the present picture with the counters that go on without a
// change of version: events, output, latencies. It never waits for the owner.
func (s *Supervisor) Scrape(out OutputCounts) *view.State {
	st := *s.State()
	d := &st.Daemon
	d.ReexecResults, d.UnhandledFailures = s.counts.view()
	for k := range procevents.Kinds {
		d.ProcEvents = append(d.ProcEvents, view.LabelCount{Label: procevents.Kind(k).String(), N: s.Witness.seen[k].Load()})
	}
	d.ProcEventsLost = s.Witness.lost.Load()
	d.AdoptedProcesses = s.counts.adopted.Load()
	d.ProcResyncs = s.Witness.resyncs.Load()
	d.ExitDetection = s.Witness.delays.view()
	d.IgnoredEvents = s.counts.ignored.Load()
	d.EventQueueLength = int(s.counts.queueLength.Load())
	d.OutputDropped = out.Stats().Dropped
	totals := s.descent.totals()
	entries := make([]*view.Entry, len(st.Entries))
	for i, e := range st.Entries {
		c := *e
		n := out.Counts(e.Name)
		c.LogLines, c.LogBytes = n.Lines, n.Bytes
		t := totals[e.Name]
		t.tell(&c)
		entries[i] = &c
	}
	st.Entries = entries
	return &st
}

func (c *counts) view() (reexecs, failures []view.LabelCount) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, result := range []string{resultFailed, resultOK} { // both, from the start
		reexecs = append(reexecs, view.LabelCount{Label: result, N: c.reexecs[result]})
	}
	for _, operation := range slices.Sorted(maps.Keys(c.failures)) {
		failures = append(failures, view.LabelCount{Label: operation, N: c.failures[operation]})
	}
	return reexecs, failures
}

// The counters outside the machine, saved and loaded.

func (s *Supervisor) saveCounters() state.Counters {
	c := state.Counters{
		ProcEvents: make(map[string]uint64), ProcLost: s.Witness.lost.Load(), ProcResyncs: s.Witness.resyncs.Load(),
		Adopted: s.counts.adopted.Load(),
	}
	for k := range procevents.Kinds {
		c.ProcEvents[procevents.Kind(k).String()] = s.Witness.seen[k].Load()
	}
	s.counts.mu.Lock()
	c.Reexecs, c.Failures = maps.Clone(s.counts.reexecs), maps.Clone(s.counts.failures)
	s.counts.mu.Unlock()
	h := s.Witness.delays.view()
	c.DetectionCounts, c.DetectionSum = h.Counts, h.Sum
	return c
}

func (s *Supervisor) loadCounters(c *state.Counters) {
	for k := range procevents.Kinds {
		s.Witness.seen[k].Store(c.ProcEvents[procevents.Kind(k).String()])
	}
	s.Witness.lost.Store(c.ProcLost)
	s.Witness.resyncs.Store(c.ProcResyncs)
	s.counts.adopted.Store(c.Adopted)
	s.counts.mu.Lock()
	s.counts.reexecs, s.counts.failures = c.Reexecs, c.Failures
	s.counts.mu.Unlock()
	s.Witness.delays.restore(c.DetectionCounts, c.DetectionSum)
}
