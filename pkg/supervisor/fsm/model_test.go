package fsm

import (
	"maps"
	"slices"
	"time"
)

// model is what ought to be, worked out in the plainest way: what the commands
// so far ask for, what became of processes, and what is to be counted.
type model struct {
	entries  map[string]*entryModel
	stopping bool
	killing  bool
	ignored  uint64
}

type entryModel struct {
	spec    Entry
	count   int
	held    bool
	removed bool
	slots   map[int]*slotModel
	used    map[int]uint64 // last incarnation of each slot, of those that are gone too
	stopped map[int]bool   // slots that were held when they went

	starts, exits uint64
	byStatus      map[ExitCount]uint64
	failures      map[string]uint64
}

type slotModel struct {
	held bool
	old  uint64 // incarnations up to this one were asked to be replaced

	rest  rest
	since Instant       // of the exit by itself, or of the start that failed
	wait  time.Duration // after a start that failed
	fails int           // in a row

	crashes []Instant // of descendants of the present incarnation
}

// rest is why a slot that is wanted may be without a process.
type rest uint8

const (
	noRest        rest = iota
	afterExit          // ended by itself, starts again after the delay
	afterFailure       // could not be started, is tried again
	afterFinished      // ended by itself, for good
)

func newModel() *model { return &model{entries: make(map[string]*entryModel)} }

func (mo *model) slot(id ID) (*entryModel, *slotModel) {
	e := mo.entries[id.Entry]
	return e, e.slots[id.Slot]
}

// wanted reports whether a slot ought to have a process, policy aside.
func (mo *model) wanted(e *entryModel, n int) bool {
	s := e.slots[n]
	return s != nil && !mo.stopping && !e.removed && n < e.count && !s.held
}

// command takes in one that was not refused.
func (mo *model) command(ev Event) {
	switch ev := ev.(type) {
	case Configure:
		if !mo.stopping {
			mo.configure(ev)
		}
	case Start:
		e := mo.each(ev.Entry, ev.Slot, func(s *slotModel, _ uint64) {
			if s.rest == afterFailure {
				s.fails = 0
			}
			s.held, s.rest = false, noRest
		})
		e.unhold(ev.Slot)
	case Restart:
		e := mo.each(ev.Entry, ev.Slot, func(s *slotModel, inc uint64) { s.held, s.old = false, inc })
		e.unhold(ev.Slot)
	case Stop:
		e := mo.each(ev.Entry, ev.Slot, func(s *slotModel, _ uint64) { s.held = true })
		e.held = e.held || ev.Slot == AllSlots
	case Scale:
		mo.entries[ev.Entry].setCount(ev.Count)
	case Shutdown:
		mo.stopping = true
	case KillAll:
		mo.killing = mo.stopping
	}
}

// unhold takes in a start or restart.
func (e *entryModel) unhold(slot int) {
	if slot == AllSlots {
		e.held = false
		clear(e.stopped)
	}
}

func (mo *model) each(entry string, n int, f func(s *slotModel, inc uint64)) *entryModel {
	e := mo.entries[entry]
	for i, s := range e.slots {
		if n == AllSlots || n == i {
			f(s, e.used[i])
		}
	}
	return e
}

func (mo *model) configure(ev Configure) {
	listed := make(map[string]bool)
	for _, spec := range ev.Entries {
		listed[spec.Name] = true
		e := mo.entries[spec.Name]
		if e != nil && ev.Restart[spec.Name] {
			mo.each(spec.Name, AllSlots, func(s *slotModel, inc uint64) { s.old = inc })
		}
		if e != nil && e.spec.Crashes != spec.Crashes {
			mo.each(spec.Name, AllSlots, func(s *slotModel, _ uint64) { s.crashes = nil })
		}
		switch {
		case e == nil:
			e = &entryModel{
				held: !spec.Autostart, slots: make(map[int]*slotModel), used: make(map[int]uint64), stopped: make(map[int]bool),
				byStatus: make(map[ExitCount]uint64), failures: make(map[string]uint64),
			}
			mo.entries[spec.Name] = e
			e.setCount(spec.Count)
		case e.removed: // and its last process has not gone yet
			e.removed, e.held = false, !spec.Autostart
			for _, s := range e.slots {
				s.held = e.held
			}
			clear(e.stopped)
			e.setCount(spec.Count)
		case spec.Count != e.spec.Count:
			e.setCount(spec.Count)
		}
		e.spec = spec
	}
	for name, e := range mo.entries {
		e.removed = e.removed || !listed[name]
	}
}

func (e *entryModel) setCount(n int) {
	e.count = n
	for i := range n {
		if e.slots[i] == nil {
			e.slots[i] = &slotModel{held: e.held || e.stopped[i], old: e.used[i]}
		}
	}
}

func (mo *model) spawned(id ID) {
	e, s := mo.slot(id)
	e.starts++
	s.fails, s.crashes = 0, nil
}

func (mo *model) spawnFailed(ev SpawnFailed) {
	e, s := mo.slot(ev.ID)
	e.failures[ev.Errno]++
	s.fails++
	s.rest, s.since, s.wait = afterFailure, ev.At, max(e.spec.Delay, time.Second)
	for range s.fails - 1 {
		s.wait = min(2*s.wait, max(time.Minute, e.spec.Delay))
	}
}

func (mo *model) spawnLost(ev SpawnLost) {
	e, s := mo.slot(ev.ID)
	e.starts++
	s.fails = 0
	mo.exited(Exited{ID: ev.ID, At: ev.At, Status: Status{Reason: ReasonUnknown}}, ev.At, false)
}

// crash takes in that of a descendant, and returns how many are too many, if
// they are.
func (mo *model) crash(id ID, at Instant, p *proc) int {
	e, s := mo.slot(id)
	limit := e.spec.Crashes
	if limit.Within == 0 || !p.live || p.told {
		return 0
	}
	s.crashes = append(slices.DeleteFunc(s.crashes, func(c Instant) bool { return at-c >= limit.Within }), at)
	n := len(s.crashes)
	if n <= limit.Failures {
		return 0
	}
	s.crashes = nil
	if limit.Restart {
		s.old = id.Incarnation
	}
	return n
}

// exited takes in the end of a main process that ran from then on.
func (mo *model) exited(ev Exited, from Instant, asked bool) {
	e, s := mo.slot(ev.ID)
	e.exits++
	e.byStatus[ExitCount{Reason: ev.Status.Reason, Number: ev.Status.Code + ev.Status.Signal}]++
	if asked {
		return
	}
	success := ev.Status.Reason == ReasonExited && ev.Status.Code == 0 && ev.At-from >= e.spec.MinUptime
	s.rest, s.since = afterExit, ev.At
	if e.spec.Restart == RestartNever || e.spec.Restart == RestartOnFailure && success {
		s.rest = afterFinished
	}
}

// settle forgets what does not outlive a slot's not being wanted.
func (mo *model) settle(asked map[ID]bool) {
	for name, e := range mo.entries {
		for n, s := range e.slots {
			if mo.wanted(e, n) {
				continue
			}
			s.rest = noRest
			if !asked[ID{name, n, e.used[n]}] {
				s.fails = 0
			}
		}
	}
}

// maySpawn takes in a start and looks whether it may be.
func (mo *model) maySpawn(w *world, ev Event, id ID) {
	w.t.Helper()
	e, s := mo.slot(id)
	if !mo.wanted(e, id.Slot) {
		w.fatalf("%v started and is not wanted", id)
	}
	if _, again := ev.(Reissue); again && w.lost[id] {
		s.old = min(s.old, id.Incarnation-1)
		return
	}
	before := e.used[id.Slot]
	if before <= s.old {
		s.fails = 0
	}
	if id.Incarnation != before+1 {
		w.fatalf("%v follows incarnation %d", id, before)
	}
	e.used[id.Slot] = id.Incarnation
	if before > s.old {
		switch {
		case s.rest == afterExit && w.now < s.since+e.spec.Delay:
			w.fatalf("%v started %v after an exit", id, w.now-s.since)
		case s.rest == afterFailure && w.now < s.since+s.wait:
			w.fatalf("%v started %v after a start that failed, the wait is %v", id, w.now-s.since, s.wait)
		case s.rest == afterFinished:
			w.fatalf("%v started after it had finished", id)
		}
	}
	s.rest = noRest
}

// mayStop looks whether a process, or what is left of its tree, may be stopped.
func (mo *model) mayStop(w *world, id ID, p *proc) {
	w.t.Helper()
	e, s := mo.slot(id)
	switch {
	case p.live && mo.wanted(e, id.Slot) && id.Incarnation > s.old:
		w.fatalf("%v is stopped and is wanted", id)
	case !p.live && e.spec.StopMode == StopProcess:
		w.fatalf("what %v left by itself is stopped", id)
	}
}

// slotGone takes in that the machine has forgotten a slot.
func (mo *model) slotGone(w *world, a SlotGone) {
	w.t.Helper()
	e := mo.entries[a.Entry]
	if e == nil || e.slots[a.Slot] == nil {
		w.fatalf("%s:%d goes and was not there", a.Entry, a.Slot)
	}
	if !e.removed && a.Slot < e.count {
		w.fatalf("%s:%d goes and is wanted", a.Entry, a.Slot)
	}
	e.stopped[a.Slot] = e.slots[a.Slot].held
	delete(e.slots, a.Slot)
}

// dropEmpty forgets entries that are gone and reports whether there was one.
func (mo *model) dropEmpty() bool {
	before := len(mo.entries)
	maps.DeleteFunc(mo.entries, func(_ string, e *entryModel) bool { return e.removed && len(e.slots) == 0 })
	return len(mo.entries) < before
}
