package fsm

import (
	"cmp"
	"fmt"
	"math/rand"
	"reflect"
	"slices"
	"testing"
	"time"
)

// world is an edge and a kernel in one: it carries out what a machine asks for,
// decides at random what becomes of processes, and holds the machine to its
// promises after each step.
type world struct {
	t     testing.TB
	r     *rand.Rand
	m     *Machine
	now   Instant
	pid   int
	procs map[ID]*proc
	asked map[ID]bool // starts not yet answered
	ever  map[ID]bool // every incarnation asked for
	seen  map[string]Counters
	log   []string
	clone bool // restore the machine from a snapshot before every step
}

// proc is a simulated process and the rest of its tree.
type proc struct {
	pid   int
	live  bool
	rest  int  // processes in its group besides it
	stuck bool // ignores what can be ignored
}

func newWorld(t testing.TB, seed int64) *world {
	return &world{
		t: t, r: rand.New(rand.NewSource(seed)), m: New(), pid: 100,
		procs: make(map[ID]*proc), asked: make(map[ID]bool), ever: make(map[ID]bool), seen: make(map[string]Counters),
	}
}

func (w *world) fatalf(format string, args ...any) {
	w.t.Helper()
	if n := len(w.log); n > 60 {
		w.log = w.log[n-60:]
	}
	for _, l := range w.log {
		w.t.Log(l)
	}
	w.t.Fatalf(format, args...)
}

func (w *world) step(ev Event) {
	w.t.Helper()
	if w.clone {
		m, err := Restore(w.m.Snapshot())
		if err != nil {
			w.fatalf("restore: %v", err)
		}
		if a, b := w.m.Snapshot(), m.Snapshot(); !reflect.DeepEqual(a, b) {
			w.fatalf("a restored machine differs:\n%+v\n%+v", a, b)
		}
		w.m = m
	}
	w.log = append(w.log, fmt.Sprintf("%v %T%+v", w.now, ev, ev))
	for _, a := range w.m.Step(w.now, ev) {
		w.log = append(w.log, fmt.Sprintf("    %T%+v", a, a))
		w.do(a)
	}
	w.check()
}

func (w *world) do(a Action) {
	switch a := a.(type) {
	case Spawn:
		if w.ever[a.ID] {
			w.fatalf("incarnation %v was started twice", a.ID)
		}
		for id, p := range w.procs {
			if id.Entry == a.ID.Entry && id.Slot == a.ID.Slot {
				w.fatalf("%v started while %v holds %+v", a.ID, id, *p)
			}
		}
		for id := range w.asked {
			if id.Entry == a.ID.Entry && id.Slot == a.ID.Slot {
				w.fatalf("%v started while %v is pending", a.ID, id)
			}
		}
		if w.m.stopping {
			w.fatalf("%v started in a shutdown", a.ID)
		}
		w.ever[a.ID], w.asked[a.ID] = true, true
	case Send:
		p := w.procs[a.ID]
		if p == nil {
			w.fatalf("signal %d to %v, which holds nothing", a.Signal, a.ID)
		}
		if a.Signal == sigKill {
			p.stuck = false
			if a.Scope != ScopeMain {
				p.rest = min(p.rest, 1)
			}
		}
	case Release:
		delete(w.procs, a.ID)
	}
}

// check holds what must be true after any step.
func (w *world) check() {
	w.t.Helper()
	m := w.m
	busy := 0
	for _, e := range m.order {
		var states [numStates]int
		live := uint64(0)
		for n, s := range e.slots {
			if s == nil {
				continue
			}
			states[s.state]++
			ss := s.snapshot()
			if err := ss.check(); err != nil {
				w.fatalf("%s:%d: %v", e.Name, n, err)
			}
			if s.pending || s.live || s.tree {
				busy++
			}
			if s.live {
				live++
				if p := w.procs[s.id()]; p == nil || !p.live || p.pid != s.pid {
					w.fatalf("%v: the machine believes in a process that is not there", s.id())
				}
			}
			if s.pending != w.asked[s.id()] {
				w.fatalf("%v: pending is %v", s.id(), s.pending)
			}
			if m.up(s) && s.state == Stopped {
				w.fatalf("%v is stopped and ought to be up", s.id())
			}
			if s.heapAt > 0 && m.deadlines[s.heapAt-1] != s {
				w.fatalf("%v is lost in the heap", s.id())
			}
		}
		if states != e.states {
			w.fatalf("%s: states counted %v, are %v", e.Name, e.states, states)
		}
		c := e.counters
		if c.Starts != c.Exits+live {
			w.fatalf("%s: %d starts, %d exits, %d live", e.Name, c.Starts, c.Exits, live)
		}
		old := w.seen[e.Name]
		if c.Starts < old.Starts || c.Exits < old.Exits {
			w.fatalf("%s: counters fell", e.Name)
		}
		w.seen[e.Name] = Counters{Starts: c.Starts, Exits: c.Exits}
	}
	for name := range w.seen {
		if m.entries[name] == nil {
			delete(w.seen, name)
			for id := range w.ever {
				if id.Entry == name {
					delete(w.ever, id)
				}
			}
		}
	}
	if busy != m.busy {
		w.fatalf("busy counted %d, is %d", m.busy, busy)
	}
	if m.ignored > 0 {
		w.fatalf("%d events ignored", m.ignored)
	}
}

// happen lets one random thing happen to a process or a pending start.
func (w *world) happen() bool {
	ids := sorted(w.asked)
	for id := range w.procs {
		ids = append(ids, id)
	}
	if len(ids) == 0 {
		return false
	}
	sortIDs(ids)
	id := ids[w.r.Intn(len(ids))]
	wall := int64(w.now)
	if w.asked[id] {
		delete(w.asked, id)
		if w.r.Intn(5) == 0 {
			w.step(SpawnFailed{ID: id, At: w.now, Wall: wall, Errno: "ENOENT", Message: "exec nope: no such file or directory"})
			return true
		}
		w.pid++
		w.procs[id] = &proc{pid: w.pid, live: true, rest: w.r.Intn(4) - 1, stuck: w.r.Intn(4) == 0}
		w.step(Spawned{ID: id, PID: w.pid, At: w.now, Wall: wall})
		return true
	}
	p := w.procs[id]
	switch {
	case p.stuck:
		return false
	case p.live:
		p.live = false
		empty := p.rest <= 0
		if empty {
			delete(w.procs, id)
		}
		st := Status{Reason: ReasonExited, Code: w.r.Intn(3)}
		if w.r.Intn(3) == 0 {
			st = Status{Reason: ReasonSignaled, Signal: 15}
		}
		w.step(Exited{ID: id, At: w.now, Wall: wall, Status: st, TreeEmpty: empty})
	default:
		if p.rest--; p.rest <= 0 {
			delete(w.procs, id)
			w.step(TreeEmpty{ID: id, At: w.now})
		}
	}
	return true
}

// pass lets time pass to the next deadline.
func (w *world) pass() bool {
	at, ok := w.m.NextDeadline()
	if !ok {
		return false
	}
	w.now = max(w.now, at)
	w.step(Tick{})
	return true
}

func (w *world) config() Configure {
	c := Configure{Restart: make(map[string]bool)}
	for _, name := range []string{"api", "db", "web"} {
		if w.r.Intn(4) == 0 {
			continue
		}
		c.Entries = append(c.Entries, Entry{
			Name: name, Count: w.r.Intn(4), Autostart: w.r.Intn(4) > 0,
			Delay: time.Duration(w.r.Intn(3)) * time.Second, MinUptime: time.Duration(w.r.Intn(2)) * time.Second,
			Restart: RestartPolicy(w.r.Intn(3)), SuccessExitCodes: []int{0},
			StopSignal: []int{15, 15, 9}[w.r.Intn(3)], StopTimeout: time.Duration(w.r.Intn(5)) * time.Second, StopMode: StopMode(w.r.Intn(2)),
		})
		c.Restart[name] = w.r.Intn(3) == 0
	}
	return c
}

// command gives a random one.
func (w *world) command() {
	name := []string{"api", "db", "web", "nope"}[w.r.Intn(4)]
	slot := w.r.Intn(5) - 1
	switch w.r.Intn(8) {
	case 0, 1:
		w.step(Scale{Entry: name, Count: w.r.Intn(6) - 1})
	case 2:
		w.step(Start{Entry: name, Slot: slot})
	case 3:
		w.step(Stop{Entry: name, Slot: slot})
	case 4, 5:
		w.step(Restart{Entry: name, Slot: slot, Batch: w.r.Intn(3)})
	case 6:
		w.step(Signal{Entry: name, Slot: slot, Signal: 1})
	case 7:
		w.step(w.config())
	}
}

func (w *world) play(steps int) {
	w.step(w.config())
	for range steps {
		switch w.r.Intn(6) {
		case 0:
			w.command()
		case 1, 2:
			w.pass()
		default:
			w.happen()
		}
	}
	// Left alone, everything settles: nothing waits for what does not come.
	for range 200 {
		w.happen()
	}
	w.step(Shutdown{})
	for i := 0; w.m.busy > 0; i++ {
		if i > 10000 {
			w.fatalf("a shutdown does not end")
		}
		if !w.happen() && !w.pass() && w.m.busy > 0 && len(w.procs) == 0 && len(w.asked) == 0 {
			w.fatalf("busy without cause")
		}
	}
	if _, ok := w.m.NextDeadline(); ok {
		w.fatalf("a deadline outlives the shutdown")
	}
	if !w.m.done {
		w.fatalf("no Done")
	}
}

func TestRandomHistories(t *testing.T) {
	n := 800
	if testing.Short() {
		n = 100
	}
	for seed := range n {
		w := newWorld(t, int64(seed))
		w.clone = seed%2 == 1
		w.play(200)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func sorted(set map[ID]bool) []ID {
	var ids []ID
	for id := range set {
		ids = append(ids, id)
	}
	return ids
}

func sortIDs(ids []ID) {
	slices.SortFunc(ids, func(a, b ID) int {
		return cmp.Or(cmp.Compare(a.Entry, b.Entry), cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.Incarnation, b.Incarnation))
	})
}
