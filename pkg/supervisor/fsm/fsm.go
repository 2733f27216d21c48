// Package fsm decides what sentryd does next. It is a pure state machine:
// events in, actions out.
//
// It knows entries, slots and incarnations, what each slot ought to be and what
// it is, and when the next decision is due. It must not know how anything is
// done: it reads no clock, file, random source or pid table, starts no
// goroutine and holds no lock. `now` comes in with every event, so a year of
// supervision can be tested in a millisecond and the same events always give
// the same actions.
//
// A Machine belongs to one goroutine.
package fsm

import (
	"slices"
	"sort"
	"strings"
)

// MaxCount is the largest number of slots of one entry.
const MaxCount = 10000

// Machine is the state of every entry and slot. Use New or Restore to make one.
type Machine struct {
	entries   map[string]*entry
	order     []*entry // sorted by name, so that every pass is deterministic
	deadlines deadlineHeap
	stopping  bool
	killing   bool // nothing gets the time to end by itself any more
	done      bool // Done was emitted
	busy      int  // slots that hold a process, a tree or a pending start
	ignored   uint64

	// Of the step under way.
	now     Instant
	actions []Action

	// Since the last TakeChanges.
	dirty   []*entry
	removed []string

	noted noted // since the last TakeTouched
}

type entry struct {
	Entry
	count   int       // slots wanted: as configured, or as scaled since
	countBy Initiator // who set it
	held    bool      // new slots start out held
	removed bool      // no longer configured; goes when its last slot goes

	slots   []*slot         // by number; nil where a slot has gone
	present int             // slots that are not nil
	retired map[int]Retired // what outlives slots that have gone
	roll    roll

	counters Counters
	states   [numStates]int
	desired  int

	dirty        bool
	dirtySlots   []*slot
	noted        bool
	notedRetired bool // all of retired changed
	tallied      bool // noted, for its counters
}

type slot struct {
	e       *entry
	n       int
	inc     uint64
	state   State
	held    bool
	pending bool // a start was asked for and has not been answered
	live    bool // the main process runs
	tree    bool // something of the tree may be left
	pid     int

	restart   bool      // start again at once when the tree is empty
	restartBy Initiator // who asked for that
	stopBy    Initiator // who asked for the stop under way
	outcome   State     // where the slot goes once its tree is empty, when the main process ended by itself
	kills     int       // SIGKILLs sent in this stop
	told      bool      // the stop signal was sent, see Told

	deadline Instant
	heapAt   int // 1 + index in the heap; 0: no deadline
	due      Instant
	dueSet   bool // the start under way was due at that instant

	startedAt   Instant
	startedWall int64
	exitedAt    Instant
	startFails  int // in a row
	err         string
	last        *Exit
	members     []int     // left of the tree, as last reported
	crashes     []Instant // of descendants, within the entry's limit, oldest first

	rolling bool // counted in e.roll.inflight
	gen     uint64
	wanted  bool // as counted in e.desired
	counted bool // as counted in m.busy
	dirty   bool
	noted   bool
	gone    bool
}

// New returns a machine without entries. Configure it next.
func New() *Machine {
	return &Machine{entries: make(map[string]*entry)}
}

// Step applies one event and returns what is to be done about it. The slice is
// valid until the next Step. Its cost depends on the slots that the event
// concerns, not on how many there are.
func (m *Machine) Step(now Instant, ev Event) []Action {
	m.now = now
	clear(m.actions)
	m.actions = m.actions[:0]
	switch ev := ev.(type) {
	case Tick:
		m.tick()
	case Spawned:
		m.spawned(ev)
	case SpawnFailed:
		m.spawnFailed(ev)
	case SpawnLost:
		m.spawnLost(ev)
	case Withdrawn:
		m.withdrawn(ev)
	case Exited:
		m.exited(ev)
	case TreeEmpty:
		m.treeEmpty(ev)
	case Stragglers:
		m.stragglers(ev)
	case DescendantCrashed:
		m.descendantCrashed(ev)
	case Configure:
		m.configure(ev)
	case Start:
		m.start(ev)
	case Stop:
		m.stop(ev)
	case Restart:
		m.restart(ev)
	case Scale:
		m.scale(ev)
	case Signal:
		m.signal(ev)
	case Shutdown:
		m.shutdown()
	case KillAll:
		m.killAll()
	case Reissue:
		m.reissue()
	case Told:
		m.told(ev)
	case Retell:
		m.retell()
	}
	if m.stopping && m.busy == 0 && !m.done {
		m.done = true
		m.act(Done{})
	}
	return m.actions
}

// NextDeadline returns the instant at which a Tick is due, and whether there is
// one.
func (m *Machine) NextDeadline() (Instant, bool) {
	if len(m.deadlines) == 0 {
		return 0, false
	}
	return m.deadlines[0].deadline, true
}

// Stopping reports whether a Shutdown was asked for.
func (m *Machine) Stopping() bool { return m.stopping }

// Wants reports whether the start of an incarnation, which was asked for, is still wanted.
func (m *Machine) Wants(id ID) bool {
	s := m.find(id)
	return s != nil && s.pending && m.up(s)
}

// Ignored counts the events about an incarnation that is no more.
func (m *Machine) Ignored() uint64 { return m.ignored }

func (m *Machine) act(a Action) { m.actions = append(m.actions, a) }

func (m *Machine) refuse(kind RefusalKind, text string) {
	m.act(Refused{Kind: kind, Message: text})
}

// find returns the slot in which that incarnation is the present one.
func (m *Machine) find(id ID) *slot {
	e := m.entries[id.Entry]
	if e == nil {
		return nil
	}
	s := e.at(id.Slot)
	if s == nil || s.inc != id.Incarnation {
		return nil
	}
	return s
}

func (e *entry) at(n int) *slot {
	if n < 0 || n >= len(e.slots) {
		return nil
	}
	return e.slots[n]
}

func (s *slot) id() ID { return ID{Entry: s.e.Name, Slot: s.n, Incarnation: s.inc} }

// targets returns the slots that a command names, or refuses it.
func (m *Machine) targets(name string, n int) (*entry, []*slot, bool) {
	e := m.entries[name]
	if e == nil || e.removed {
		m.refuse(NotFound, "no such entry: "+name)
		return nil, nil, false
	}
	if n == AllSlots {
		return e, e.slots, true
	}
	s := e.at(n)
	if s == nil || n >= e.count {
		m.refuse(NotFound, "no such slot: "+slotName(name, n))
		return nil, nil, false
	}
	return e, []*slot{s}, true
}

func (m *Machine) addEntry(spec Entry) *entry {
	e := &entry{Entry: spec, held: !spec.Autostart, retired: make(map[int]Retired)}
	m.entries[spec.Name] = e
	at := sort.Search(len(m.order), func(i int) bool { return strings.Compare(m.order[i].Name, spec.Name) >= 0 })
	m.order = slices.Insert(m.order, at, e)
	m.touchEntry(e)
	return e
}

func (m *Machine) dropEntry(e *entry) {
	delete(m.entries, e.Name)
	if at := slices.Index(m.order, e); at >= 0 {
		m.order = slices.Delete(m.order, at, at+1)
	}
	m.removed = append(m.removed, e.Name)
	m.noted.removed = append(m.noted.removed, e.Name)
	m.act(EntryGone{Entry: e.Name})
}

// setCount changes the number of slots wanted. It visits only those for which
// that makes a difference, superfluous ones from the highest down.
func (m *Machine) setCount(e *entry, count int, by Initiator) {
	first := min(e.count, count)
	if e.count != count {
		e.countBy = by
		m.act(Scaled{Entry: e.Name, Count: count, By: by})
	}
	e.count = count
	m.touchEntry(e)
	for n := len(e.slots) - 1; n >= count; n-- {
		if s := e.at(n); s != nil {
			m.settle(s)
		}
	}
	for n := first; n < count; n++ {
		if e.at(n) == nil {
			m.addSlot(e, n)
		}
		m.settle(e.slots[n])
	}
}

func (m *Machine) addSlot(e *entry, n int) {
	for len(e.slots) <= n {
		e.slots = append(e.slots, nil)
	}
	old := e.retired[n]
	s := &slot{e: e, n: n, inc: old.Incarnation, held: e.held || old.Held, gen: e.roll.gen}
	delete(e.retired, n)
	e.slots[n] = s
	e.present++
	e.states[s.state]++
	m.touch(s)
}

// dropSlot forgets a slot that holds nothing.
func (m *Machine) dropSlot(s *slot) {
	e := s.e
	m.leaveRoll(s)
	m.disarm(s)
	s.gone = true
	m.touch(s)
	e.states[s.state]--
	e.retired[s.n] = Retired{Incarnation: s.inc, Held: s.held}
	e.slots[s.n] = nil
	e.present--
	for len(e.slots) > 0 && e.slots[len(e.slots)-1] == nil {
		e.slots = e.slots[:len(e.slots)-1]
	}
	m.act(SlotGone{Entry: e.Name, Slot: s.n})
	if e.removed && e.present == 0 {
		m.dropEntry(e)
	}
}
