package fsm

import (
	"reflect"
	"slices"
	"strings"
)

// check holds what must be true after any step.
func (w *world) check() {
	w.t.Helper()
	m := w.m
	busy, armed := 0, 0
	for _, e := range m.order {
		mo := w.model.entries[e.Name]
		if mo == nil {
			w.fatalf("%s is still there", e.Name)
		}
		if count, ok := w.counts[e.Name]; !ok || count != e.count && !e.removed {
			w.fatalf("%s has %d slots wanted, reported were %d (%v)", e.Name, e.count, count, ok)
		}
		var states [numStates]int
		live, desired, present := uint64(0), 0, 0
		for n, s := range e.slots {
			if (s != nil) != (mo.slots[n] != nil) {
				w.fatalf("%s:%d exists: %v", e.Name, n, s != nil)
			}
			if s == nil {
				continue
			}
			w.checkSlot(s, mo)
			present++
			states[s.state]++
			busy += toInt(s.pending || s.live || s.tree)
			armed += toInt(s.heapAt > 0)
			live += uint64(toInt(s.live))
			over := mo.slots[n].rest == afterFinished && !s.restart
			desired += toInt(w.model.wanted(mo, n) && !over)
		}
		switch {
		case states != e.states:
			w.fatalf("%s: states counted %v, are %v", e.Name, e.states, states)
		case e.count != mo.count || e.held != mo.held || e.removed != mo.removed:
			w.fatalf("%s: count %d, held %v, removed %v; ought to be %d, %v, %v", e.Name, e.count, e.held, e.removed, mo.count, mo.held, mo.removed)
		case e.desired != desired:
			w.fatalf("%s: desired %d, ought to be %d", e.Name, e.desired, desired)
		case present != len(mo.slots):
			w.fatalf("%s: %d slots, ought to be %d", e.Name, present, len(mo.slots))
		}
		w.checkCounters(e, mo, live)
		w.checkRoll(e, mo)
	}
	switch {
	case len(m.order) != len(w.model.entries) || len(m.entries) != len(w.model.entries):
		w.fatalf("%d entries, ought to be %d", len(m.order), len(w.model.entries))
	case !slices.IsSortedFunc(m.order, func(a, b *entry) int { return strings.Compare(a.Name, b.Name) }):
		w.fatalf("the entries are in disorder")
	case busy != m.busy:
		w.fatalf("busy counted %d, is %d", m.busy, busy)
	case armed != len(m.deadlines):
		w.fatalf("%d deadlines in the heap, %d slots have one", len(m.deadlines), armed)
	case m.ignored != w.model.ignored:
		w.fatalf("%d events ignored, ought to be %d", m.ignored, w.model.ignored)
	case m.done != (m.stopping && busy == 0):
		w.fatalf("done: %v, with %d busy", m.done, busy)
	}
	if w.steps%3 == 0 {
		w.look()
	}
}

// checkSlot holds what must be true of a slot by itself: among others that
// what is unsettled has something to wait for.
func (w *world) checkSlot(s *slot, mo *entryModel) {
	w.t.Helper()
	ss := s.snapshot()
	if err := ss.check(); err != nil {
		w.fatalf("%v: %v", s.id(), err)
	}
	if p := w.procs[s.id()]; s.told && (p == nil || !p.heard) {
		w.fatalf("%v counts as told: %+v", s.id(), p)
	}
	shown := w.shown[slotName(s.e.Name, s.n)]
	if shown.State != s.state || s.state == Backoff && shown.Next != s.deadline {
		w.fatalf("%v is %v, and was reported as %+v", s.id(), s.state, shown)
	}
	want := mo.slots[s.n]
	wanted := w.model.wanted(mo, s.n)
	p := w.procs[s.id()]
	switch {
	case s.held != want.held:
		w.fatalf("%v: held is %v", s.id(), s.held)
	case s.inc != mo.used[s.n]:
		w.fatalf("%v: the last incarnation asked for is %d", s.id(), mo.used[s.n])
	case w.m.up(s) != wanted:
		w.fatalf("%v: ought to be up: %v", s.id(), wanted)
	case s.startFails != want.fails:
		w.fatalf("%v: %d failed starts counted, were %d", s.id(), s.startFails, want.fails)
	case s.pending != w.asked[s.id()]:
		w.fatalf("%v: pending is %v", s.id(), s.pending)
	case s.live != (p != nil && p.live) || s.live && s.pid != p.pid:
		w.fatalf("%v: live is %v, pid %d; the world has %+v", s.id(), s.live, s.pid, p)
	case s.tree != (p != nil):
		w.fatalf("%v: tree is %v", s.id(), s.tree)
	case len(s.members) > 0 && (s.state != Stopping || s.live):
		w.fatalf("%v: is %v and has left %v", s.id(), s.state, s.members)
	case s.heapAt > 0 && w.m.deadlines[s.heapAt-1] != s:
		w.fatalf("%v is lost in the heap", s.id())
	}
	switch s.state {
	case Stopped:
		if wanted || s.n >= mo.count || mo.removed {
			w.fatalf("%v is stopped, and ought to be up: %v", s.id(), wanted)
		}
	case Running:
		if !wanted {
			w.fatalf("%v runs and is not wanted", s.id())
		}
		if p.told {
			w.fatalf("%v was told to stop and counts as running", s.id())
		}
	case Stopping:
		if !p.told || s.deadline != p.deadline {
			w.fatalf("%v: told to stop %v, deadline %v, ought to be %v", s.id(), p.told, s.deadline, p.deadline)
		}
	case Backoff:
		at := want.since + mo.spec.Delay
		if want.rest == afterFailure {
			at = want.since + want.wait
		}
		if want.rest != afterExit && want.rest != afterFailure || s.deadline != at {
			w.fatalf("%v: in backoff until %v, ought to be %v (%+v)", s.id(), s.deadline, at, *want)
		}
	case Finished:
		if want.rest != afterFinished || !wanted {
			w.fatalf("%v rests and ought not to", s.id())
		}
	case Failed:
		w.fatalf("%v has failed, for which there is no rule yet", s.id())
	}
}

func (w *world) checkCounters(e *entry, mo *entryModel, live uint64) {
	w.t.Helper()
	c := &e.counters
	byStatus := make(map[ExitCount]uint64)
	for _, x := range c.ByStatus {
		byStatus[ExitCount{Reason: x.Reason, Number: x.Number}] = x.N
	}
	failures := make(map[string]uint64)
	for _, f := range c.StartFailures {
		failures[f.Errno] = f.N
	}
	var uptimes, latencies uint64
	for _, n := range c.Uptime.Counts {
		uptimes += n
	}
	for _, n := range c.RestartLatency.Counts {
		latencies += n
	}
	switch {
	case c.Starts != mo.starts || c.Exits != mo.exits || uptimes != mo.exits:
		w.fatalf("%s: %d starts, %d exits, %d uptimes; were %d and %d", e.Name, c.Starts, c.Exits, uptimes, mo.starts, mo.exits)
	case c.Starts != c.Exits+live:
		w.fatalf("%s: %d starts, %d exits, %d live", e.Name, c.Starts, c.Exits, live)
	case !reflect.DeepEqual(byStatus, mo.byStatus):
		w.fatalf("%s: exits counted %v, were %v", e.Name, byStatus, mo.byStatus)
	case !reflect.DeepEqual(failures, mo.failures):
		w.fatalf("%s: failed starts counted %v, were %v", e.Name, failures, mo.failures)
	case latencies > mo.starts:
		w.fatalf("%s: %d restart latencies of %d starts", e.Name, latencies, mo.starts)
	case !slices.IsSortedFunc(c.ByStatus, compareExits):
		w.fatalf("%s: exits in disorder: %v", e.Name, c.ByStatus)
	}
}

// checkRoll holds that a rolling restart keeps to its batch, waits for
// something as long as it is under way, and leaves no process out.
func (w *world) checkRoll(e *entry, mo *entryModel) {
	w.t.Helper()
	rolling := 0
	for n, s := range e.slots {
		if s == nil {
			continue
		}
		if s.rolling {
			rolling++
			if s.state != Starting && s.state != Stopping && s.state != Backoff {
				w.fatalf("%v holds up a rolling restart, and is %v", s.id(), s.state)
			}
		}
		if !e.roll.active && s.state == Running && s.inc <= mo.slots[n].old {
			w.fatalf("%v was to be replaced and runs on", s.id())
		}
	}
	switch r := &e.roll; {
	case rolling != r.inflight:
		w.fatalf("%s: %d slots in the batch, counted %d", e.Name, rolling, r.inflight)
	case r.active && (r.inflight == 0 || r.inflight > r.batch):
		w.fatalf("%s: a rolling restart by %d with %d under way", e.Name, r.batch, r.inflight)
	}
}

// picture is what a reader makes of TakeChanges.
type picture map[string]*pictureEntry

type pictureEntry struct {
	EntryStatus
	slots map[int]SlotStatus
}

// look takes the changes and holds that they lead to what is.
func (w *world) look() {
	w.t.Helper()
	c := w.m.TakeChanges()
	for _, name := range c.Removed {
		delete(w.seen, name)
	}
	for _, e := range c.Entries {
		p := w.seen[e.Name]
		if p == nil {
			p = &pictureEntry{slots: make(map[int]SlotStatus)}
			w.seen[e.Name] = p
		}
		p.EntryStatus = e.EntryStatus
		for _, s := range e.Slots {
			if s.Gone {
				delete(p.slots, s.Slot)
				continue
			}
			p.slots[s.Slot] = s
		}
	}
	is := make(picture)
	for _, e := range w.m.order {
		p := &pictureEntry{slots: make(map[int]SlotStatus)}
		p.Name, p.Count, p.Desired, p.States, p.Counters = e.Name, e.count, e.desired, e.states, e.counters.clone()
		for n, s := range e.slots {
			if s != nil {
				p.slots[n] = s.status()
			}
		}
		is[e.Name] = p
	}
	if !reflect.DeepEqual(w.seen, is) {
		for name, p := range is {
			if !reflect.DeepEqual(w.seen[name], p) {
				w.fatalf("%s: the changes taken lead to\n%+v, it is\n%+v", name, w.seen[name], p)
			}
		}
		w.fatalf("the changes taken leave an entry that is gone")
	}
}
