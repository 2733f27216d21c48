package fsm

import (
	"container/heap"
	"fmt"
	"maps"
	"slices"
)

// Snapshot is the whole state of a machine. Restoring it at any point changes
// nothing of what follows.
type Snapshot struct {
	Stopping bool
	Killing  bool
	Done     bool
	Ignored  uint64
	Entries  []EntrySnapshot // sorted by name
}

// EntrySnapshot is the state of an entry.
type EntrySnapshot struct {
	Entry
	WantedCount int
	CountBy     Initiator
	Held        bool
	Removed     bool
	Retired     map[int]Retired
	Roll        RollSnapshot
	Counters    Counters
	Slots       []SlotSnapshot // sorted by number
}

// Retired is what outlives a slot that has gone: its last incarnation, so that
// none repeats, and whether it was stopped, which holds until it is started.
type Retired struct {
	Incarnation uint64
	Held        bool
}

// RollSnapshot is a rolling restart under way.
type RollSnapshot struct {
	Gen    uint64
	Next   int
	Batch  int
	By     Initiator
	Active bool
}

// SlotSnapshot is the state of a slot.
type SlotSnapshot struct {
	Slot        int
	Incarnation uint64
	State       State
	Held        bool
	Pending     bool
	Live        bool
	Tree        bool
	PID         int
	Restart     bool
	RestartBy   Initiator
	StopBy      Initiator
	Outcome     State
	Kills       int
	Told        bool // that it is to end
	Deadline    Instant
	DeadlineSet bool
	Due         Instant
	DueSet      bool
	StartedAt   Instant
	StartedWall int64
	ExitedAt    Instant
	StartFails  int
	Error       string
	Last        *Exit
	Members     []int
	Crashes     []Instant
	Rolling     bool
	Gen         uint64
}

// Snapshot returns the whole state. It shares nothing with the machine but Exit
// records.
func (m *Machine) Snapshot() Snapshot {
	snap := Snapshot{Stopping: m.stopping, Killing: m.killing, Done: m.done, Ignored: m.ignored}
	for _, e := range m.order {
		es := e.snapshot()
		es.Retired, es.Counters = maps.Clone(e.retired), e.counters.clone()
		es.Slots = slices.Grow(es.Slots, e.present)
		for _, s := range e.slots {
			if s != nil {
				es.Slots = append(es.Slots, s.snapshot())
			}
		}
		snap.Entries = append(snap.Entries, es)
	}
	return snap
}

// snapshot is without slots, what outlives them, and counters.
func (e *entry) snapshot() EntrySnapshot {
	return EntrySnapshot{
		Entry: e.Entry, WantedCount: e.count, CountBy: e.countBy, Held: e.held, Removed: e.removed,
		Roll: RollSnapshot{Gen: e.roll.gen, Next: e.roll.next, Batch: e.roll.batch, By: e.roll.by, Active: e.roll.active},
	}
}

func (s *slot) snapshot() SlotSnapshot {
	ss := SlotSnapshot{
		Slot: s.n, Incarnation: s.inc, State: s.state, Held: s.held,
		Pending: s.pending, Live: s.live, Tree: s.tree, PID: s.pid,
		Restart: s.restart, RestartBy: s.restartBy, StopBy: s.stopBy, Outcome: s.outcome, Kills: s.kills, Told: s.told,
		DeadlineSet: s.heapAt > 0, DueSet: s.dueSet,
		StartedAt: s.startedAt, StartedWall: s.startedWall, ExitedAt: s.exitedAt,
		StartFails: s.startFails, Error: s.err, Last: s.last, Members: slices.Clone(s.members),
		Crashes: slices.Clone(s.crashes), Rolling: s.rolling, Gen: s.gen,
	}
	if ss.DeadlineSet {
		ss.Deadline = s.deadline
	}
	if ss.DueSet {
		ss.Due = s.due
	}
	return ss
}

// Restore returns the machine that a snapshot was taken of. It refuses a
// snapshot that no machine can have given. Everything counts as changed.
func Restore(snap Snapshot) (*Machine, error) {
	m := New()
	m.stopping, m.killing, m.done, m.ignored = snap.Stopping, snap.Killing, snap.Done, snap.Ignored
	for _, es := range snap.Entries {
		if err := m.restoreEntry(&es); err != nil {
			return nil, err
		}
	}
	heap.Init(&m.deadlines)
	for i, s := range m.deadlines {
		s.heapAt = i + 1
	}
	return m, nil
}

func (m *Machine) restoreEntry(es *EntrySnapshot) error {
	switch {
	case m.entries[es.Name] != nil:
		return fmt.Errorf("entry %s stands twice in the snapshot", es.Name)
	case es.WantedCount < 0 || es.WantedCount > MaxCount:
		return fmt.Errorf("entry %s: count %d is out of range", es.Name, es.WantedCount)
	case es.StopMode >= numStopModes:
		return fmt.Errorf("entry %s: stop mode %d is out of range", es.Name, es.StopMode)
	}
	e := m.addEntry(es.Entry)
	e.count, e.countBy, e.held, e.removed = es.WantedCount, es.CountBy, es.Held, es.Removed
	e.counters = es.Counters.clone()
	maps.Copy(e.retired, es.Retired)
	e.roll = roll{gen: es.Roll.Gen, next: es.Roll.Next, batch: es.Roll.Batch, by: es.Roll.By, active: es.Roll.Active}
	e.slots = slices.Grow(e.slots, len(es.Slots))
	for i := range es.Slots {
		if err := m.restoreSlot(e, &es.Slots[i]); err != nil {
			return fmt.Errorf("entry %s: slot %d: %w", es.Name, es.Slots[i].Slot, err)
		}
	}
	for n := range e.count {
		if !e.removed && e.at(n) == nil {
			return fmt.Errorf("entry %s: slot %d is missing", es.Name, n)
		}
	}
	return nil
}

func (m *Machine) restoreSlot(e *entry, ss *SlotSnapshot) error {
	switch {
	case ss.Slot < 0 || ss.Slot >= MaxCount:
		return fmt.Errorf("number out of range")
	case e.at(ss.Slot) != nil:
		return fmt.Errorf("stands twice in the snapshot")
	case ss.State >= numStates || ss.Outcome >= numStates:
		return fmt.Errorf("state out of range")
	}
	if err := ss.check(); err != nil {
		return err
	}
	for len(e.slots) <= ss.Slot {
		e.slots = append(e.slots, nil)
	}
	s := &slot{
		e: e, n: ss.Slot, inc: ss.Incarnation, state: ss.State, held: ss.Held,
		pending: ss.Pending, live: ss.Live, tree: ss.Tree, pid: ss.PID,
		restart: ss.Restart, restartBy: ss.RestartBy, stopBy: ss.StopBy, outcome: ss.Outcome, kills: ss.Kills, told: ss.Told,
		deadline: ss.Deadline, due: ss.Due, dueSet: ss.DueSet,
		startedAt: ss.StartedAt, startedWall: ss.StartedWall, exitedAt: ss.ExitedAt,
		startFails: ss.StartFails, err: ss.Error, last: ss.Last, members: slices.Clone(ss.Members),
		crashes: slices.Clone(ss.Crashes), rolling: ss.Rolling, gen: ss.Gen,
	}
	e.slots[ss.Slot] = s
	e.present++
	e.states[s.state]++
	if s.rolling {
		e.roll.inflight++
	}
	if ss.DeadlineSet {
		m.deadlines = append(m.deadlines, s)
	}
	m.touch(s)
	return nil
}

// check holds what each state holds and nothing else.
func (ss *SlotSnapshot) check() error {
	ok := true
	switch ss.State {
	case Stopped, Finished, Failed:
		ok = !ss.Pending && !ss.Live && !ss.Tree && !ss.DeadlineSet
	case Starting:
		ok = ss.Pending && !ss.Live && !ss.Tree && !ss.DeadlineSet
	case Running:
		ok = !ss.Pending && ss.Live && ss.Tree && !ss.DeadlineSet
	case Stopping:
		ok = !ss.Pending && ss.Tree && ss.DeadlineSet
	case Backoff:
		ok = !ss.Pending && !ss.Live && !ss.Tree && ss.DeadlineSet
	}
	if !ok || ss.Live && ss.PID <= 0 || !ss.Live && ss.PID != 0 {
		return fmt.Errorf("%s does not hold what a slot in that state holds", ss.State)
	}
	return nil
}
