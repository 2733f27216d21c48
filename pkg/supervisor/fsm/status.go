package fsm

import "slices"

// EntryStatus is an entry as it is now.
type EntryStatus struct {
	Name     string
	Count    int // slots wanted
	Desired  int // slots that ought to have a process now
	States   [numStates]int
	Counters Counters
}

// In returns the number of slots in that state.
func (e *EntryStatus) In(s State) int { return e.States[s] }

// SlotStatus is a slot as it is now.
type SlotStatus struct {
	Slot        int
	Gone        bool // it no longer exists; the rest is of no meaning
	Incarnation uint64
	State       State
	PID         int
	StartedWall int64 // of the live process, nanoseconds since the epoch
	Next        Instant
	NextSet     bool // in backoff, and Next is when the next start is due
	Error       string
	Members     []int // what is left of a tree whose main process has ended
	Last        *Exit // never written to after it was handed out
}

// Changes is what differs from the last time that TakeChanges was called.
type Changes struct {
	Removed []string // entries that are no more; before Entries are applied
	Entries []EntryChange
}

// EntryChange is an entry and those of its slots that changed.
type EntryChange struct {
	EntryStatus
	Slots []SlotStatus
}

// TakeChanges returns what changed since the last call. Its cost depends on the
// slots that changed, not on how many there are. The result shares nothing with
// the machine but Exit records.
func (m *Machine) TakeChanges() Changes {
	c := Changes{Removed: slices.Clone(m.removed)}
	m.removed = m.removed[:0]
	for i, e := range m.dirty {
		m.dirty[i] = nil
		e.dirty = false
		if m.entries[e.Name] != e {
			continue
		}
		change := EntryChange{
			EntryStatus: EntryStatus{
				Name: e.Name, Count: e.count, Desired: e.desired,
				States: e.states, Counters: e.counters.clone(),
			},
			Slots: make([]SlotStatus, 0, len(e.dirtySlots)),
		}
		for j, s := range e.dirtySlots {
			e.dirtySlots[j] = nil
			s.dirty = false
			change.Slots = append(change.Slots, s.status())
		}
		e.dirtySlots = e.dirtySlots[:0]
		c.Entries = append(c.Entries, change)
	}
	m.dirty = m.dirty[:0]
	return c
}

func (s *slot) status() SlotStatus {
	st := SlotStatus{
		Slot: s.n, Gone: s.gone, Incarnation: s.inc, State: s.state,
		Error: s.err, Last: s.last,
	}
	if s.live {
		st.PID, st.StartedWall = s.pid, s.startedWall
	}
	if s.state == Backoff {
		st.Next, st.NextSet = s.deadline, true
	}
	if s.state == Stopping {
		st.Members = slices.Clone(s.members)
	}
	return st
}
