package fsm

import "maps"

// Touched is what the machine's state differs by from what it was when Take
// was last called: what a journal has to say to be as good as a Snapshot. It is
// apart from Changes, which are for people and may wait.
type Touched struct {
	// Whole says that more than slots and entries changed: Stopping or Killing.
	Whole bool
	// Removed are entries that are no more. They come before Entries, where an
	// entry of the same name may stand that is new.
	Removed []string
	// Entries are without their slots, and without what outlives slots unless all
	// of that changed.
	Entries []EntrySnapshot
	// Tallies are of entries of which nothing but their counters changed. An exit that a
	// start follows on at once has none: the Last of its slot tells of it, by an Nth that
	// is above the Exits of the last Tally, and is to be counted ([Counters.Count]).
	Tallies []Tally
	// Slots are in the order in which they were first touched: one that has gone
	// stands before one that took its place.
	Slots []TouchedSlot
}

// Tally is an entry's counters.
type Tally struct {
	Entry string
	Counters
}

// TouchedSlot is a slot that was touched.
type TouchedSlot struct {
	Entry string
	Gone  bool
	Left  Retired // of one that has gone: what outlives it
	SlotSnapshot
}

// Empty reports that nothing was touched.
func (t *Touched) Empty() bool {
	return !t.Whole && len(t.Removed)+len(t.Entries)+len(t.Tallies)+len(t.Slots) == 0
}

// TakeTouched puts what was touched since the last call into t, in place of what
// is there. Its cost depends on that, not on how many slots there are. What it
// returns shares Exit records and counters with the machine: it is good until the
// next Step.
func (m *Machine) TakeTouched(t *Touched) {
	clear(t.Entries)
	clear(t.Tallies)
	clear(t.Slots)
	t.Whole, t.Entries, t.Tallies, t.Slots = m.noted.whole, t.Entries[:0], t.Tallies[:0], t.Slots[:0]
	t.Removed = append(t.Removed[:0], m.noted.removed...)
	for _, e := range m.noted.entries {
		e.tallied = false // the counters are in the snapshot
		if m.entries[e.Name] != e {
			continue
		}
		es := e.snapshot()
		es.Counters = e.counters
		if e.notedRetired {
			es.Retired = maps.Clone(e.retired)
		}
		t.Entries = append(t.Entries, es)
	}
	for _, e := range m.noted.tallies {
		if e.tallied && m.entries[e.Name] == e {
			t.Tallies = append(t.Tallies, Tally{Entry: e.Name, Counters: e.counters})
		}
		e.tallied = false // it may stand there again, see exited
	}
	for _, s := range m.noted.slots {
		if m.entries[s.e.Name] != s.e {
			continue
		}
		ts := TouchedSlot{Entry: s.e.Name, Gone: s.gone, SlotSnapshot: s.snapshot()}
		if s.gone {
			ts.Left = s.e.retired[s.n] // as it is by now
		}
		t.Slots = append(t.Slots, ts)
	}
	m.noted.reset()
}

// ForgetTouched is for who writes the whole state down instead.
func (m *Machine) ForgetTouched() { m.noted.reset() }

// noted is what was touched since it was last taken.
type noted struct {
	whole   bool
	removed []string
	entries []*entry
	tallies []*entry
	slots   []*slot
}

func (n *noted) tally(e *entry) {
	if !e.tallied {
		e.tallied = true
		n.tallies = append(n.tallies, e)
	}
}

func (n *noted) entry(e *entry) {
	if !e.noted {
		e.noted = true
		n.entries = append(n.entries, e)
	}
}

func (n *noted) slot(s *slot) {
	if !s.noted {
		s.noted = true
		n.slots = append(n.slots, s)
	}
}

func (n *noted) reset() {
	n.whole = false
	n.removed = n.removed[:0]
	for _, e := range n.entries {
		e.noted, e.notedRetired = false, false
	}
	clear(n.entries)
	n.entries = n.entries[:0]
	for _, e := range n.tallies {
		e.tallied = false
	}
	clear(n.tallies)
	n.tallies = n.tallies[:0]
	for _, s := range n.slots {
		s.noted = false
	}
	clear(n.slots)
	n.slots = n.slots[:0]
}
