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

// source is where a world takes its decisions from.
type source interface {
	Intn(n int) int
}

// world is an edge and a kernel in one: it carries out what a machine asks for,
// decides what becomes of processes, and holds the machine to its promises
// after each step.
type world struct {
	t    testing.TB
	from source
	m    *Machine
	twin *Machine // restored from a snapshot of m; it must do the same
	copy *replica // what m said that it touched; it must be the same
	now  Instant
	pid  int

	procs   map[ID]*proc
	ended   *proc       // whose end is being told
	asks    []Send      // to end, in this step
	heir    int         // pid that a main process is to be handed over to
	crashes int         // that are to be said to be too many
	asked   map[ID]bool // starts not yet answered
	again   map[ID]bool // who was told to end again
	lost    map[ID]bool // of those, the ones that never will be
	model   *model
	seen    picture
	shown   map[string]Entered // the state of each slot that was reported last
	counts  map[string]int     // of each entry that was reported and not removed since, the count reported last
	told    map[string]Instant // when the last thing told of an entry happened
	past    []Event            // some events about processes, to be repeated when they are stale
	steps   int
	log     []step
	record  bool // keep the whole log
}

// step is an event and what the machine answered. It is only written out when
// a test fails.
type step struct {
	now     Instant
	event   Event
	actions []Action
}

// proc is a simulated process and the rest of its tree.
type proc struct {
	pid   int
	live  bool
	rest  int  // processes in its group besides it
	stuck bool // ignores what can be ignored

	startedAt Instant
	told      bool    // a stop signal was sent
	heard     bool    // and the machine was told so
	killed    bool    // SIGKILL was sent, and not for want of another stop signal
	retold    bool    // and again, to what the main process left
	deadline  Instant // when SIGKILL is due, once told
}

func newWorld(t testing.TB, from source) *world {
	return &world{
		t: t, from: from, m: New(), copy: newReplica(), pid: 100,
		procs: make(map[ID]*proc), asked: make(map[ID]bool), told: make(map[string]Instant),
		model: newModel(), seen: make(picture),
		shown: make(map[string]Entered), counts: make(map[string]int),
	}
}

const logTail = 60

func (w *world) fatalf(format string, args ...any) {
	w.t.Helper()
	log := w.log
	if len(log) > logTail {
		log = log[len(log)-logTail:]
	}
	for _, s := range log {
		w.t.Log(s.String())
	}
	w.t.Fatalf(format, args...)
}

func (s step) String() string {
	text := fmt.Sprintf("%v %T%+v", s.now, s.event, s.event)
	for _, a := range s.actions {
		if ended, ok := a.(Ended); ok {
			text += fmt.Sprintf("\n        Ended %v %+v", ended.ID, *ended.Exit)
			continue
		}
		text += fmt.Sprintf("\n        %T%+v", a, a)
	}
	return text
}

// step gives the machine an event and carries out what it answers.
func (w *world) step(ev Event) {
	w.t.Helper()
	if !w.record && len(w.log) >= 4*logTail {
		w.log = append(w.log[:0], w.log[len(w.log)-logTail:]...)
	}
	var before *Snapshot
	if w.steps%5 == 0 {
		snap := w.m.Snapshot()
		before = &snap
		w.restoreTwin(snap)
		if w.copy.take(w.m); !w.copy.equal(snap) {
			w.fatalf("what was touched does not add up:\n%+v\n%+v", w.copy.entries, snap)
		}
	}
	w.steps++
	actions := slices.Clone(w.m.Step(w.now, ev))
	w.log = append(w.log, step{w.now, ev, actions})
	if other := w.twin.Step(w.now, ev); !slices.EqualFunc(actions, other, func(a, b Action) bool { return reflect.DeepEqual(a, b) }) {
		w.fatalf("a restored machine goes on differently: %+v", other)
	}
	refused := slices.ContainsFunc(actions, func(a Action) bool { _, is := a.(Refused); return is })
	if !refused {
		w.model.command(ev)
	} else if before != nil && !reflect.DeepEqual(*before, w.m.Snapshot()) {
		w.fatalf("a refused command changed something")
	}
	w.model.settle(w.asked)
	for _, a := range actions {
		w.do(ev, a)
	}
	if w.model.dropEmpty() {
		w.past = nil // an entry of that name would begin at incarnation 1 again
	}
	w.check()
	w.tell()
}

// restoreTwin makes the second machine anew, after having compared it with the
// first: restoring a snapshot at any point changes nothing that follows.
func (w *world) restoreTwin(snap Snapshot) {
	w.t.Helper()
	if w.twin != nil {
		if other := w.twin.Snapshot(); !reflect.DeepEqual(snap, other) {
			w.fatalf("a restored machine went on differently:\n%+v\n%+v", snap, other)
		}
	}
	twin, err := Restore(snap)
	if err != nil {
		w.fatalf("restore: %v", err)
	}
	if other := twin.Snapshot(); !reflect.DeepEqual(snap, other) {
		w.fatalf("a restored machine differs:\n%+v\n%+v", snap, other)
	}
	w.twin = twin
}

// do carries out an action, and looks whether it may be.
func (w *world) do(ev Event, a Action) {
	w.t.Helper()
	switch a := a.(type) {
	case Spawn:
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
		w.model.maySpawn(w, ev, a.ID)
		w.asked[a.ID] = true
	case Send:
		w.send(ev, a)
	case Ended:
		if p := w.ended; p != nil && p.told == (a.Exit.Initiator == ByProcess) {
			w.fatalf("%v ended, asked to: %v, and that is put down to %v", a.ID, p.told, a.Exit.Initiator)
		}
	case HandedOver:
		if w.heir != a.PID {
			w.fatalf("%v is handed over to %d", a.ID, a.PID)
		}
		w.heir = 0
	case CrashLoop:
		if n := w.crashes; n != a.Count {
			w.fatalf("%v: %d crashes are too many, were %d", a.ID, a.Count, n)
		}
		w.crashes = 0
	case Release:
		p := w.procs[a.ID]
		if p == nil || p != w.ended || p.told || w.model.entries[a.ID.Entry].spec.StopMode != StopProcess {
			w.fatalf("%v is released: %+v", a.ID, p)
		}
		delete(w.procs, a.ID)
	case Entered:
		w.shown[slotName(a.ID.Entry, a.ID.Slot)] = a
	case EntryAdded:
		w.counts[a.Entry] = 0
	case Scaled:
		w.counts[a.Entry] = a.Count
	case EntryGone:
		delete(w.counts, a.Entry)
	case SlotGone:
		delete(w.shown, slotName(a.Entry, a.Slot))
		w.model.slotGone(w, a)
	case Done:
		if len(w.procs)+len(w.asked) > 0 {
			w.fatalf("done while %d processes and %d starts are left", len(w.procs), len(w.asked))
		}
	}
}

func (w *world) send(ev Event, a Send) {
	w.t.Helper()
	p := w.procs[a.ID]
	if p == nil {
		w.fatalf("signal %d to %v, which holds nothing", a.Signal, a.ID)
	}
	if _, asked := ev.(Signal); asked {
		if !p.live || a.Scope != ScopeMain {
			w.fatalf("signal to %v, which has no main process", a.ID)
		}
		return
	}
	spec := w.model.entries[a.ID.Entry].spec
	if _, again := ev.(Retell); again {
		w.retold(a, p, &spec)
		return
	}
	if wake := a.Signal != sigKill; a.Wake != wake {
		w.fatalf("signal %d to %v, CONT after it: %v, want %v", a.Signal, a.ID, a.Wake, wake)
	}
	switch {
	case w.model.killing:
		if a.Signal != sigKill {
			w.fatalf("%v gets signal %d after a KillAll", a.ID, a.Signal)
		}
		p.told, p.killed, p.deadline = true, true, w.now+killRetry
	case !p.told:
		if a.Signal != spec.StopSignal {
			w.fatalf("%v is stopped with signal %d, not %d", a.ID, a.Signal, spec.StopSignal)
		}
		w.model.mayStop(w, a.ID, p)
		if want := w.scope(p, &spec); a.Scope != want {
			w.fatalf("the %v of %v is stopped, not the %v", a.Scope, a.ID, want)
		}
		p.told, p.deadline = true, w.now+spec.StopTimeout
		w.asks = append(w.asks, a)
	case a.Signal == spec.StopSignal && p == w.ended && !p.retold && spec.StopMode == StopTree:
		if a.Scope != ScopeTree {
			w.fatalf("stop signal to the %v of %v, which has ended", a.Scope, a.ID)
		}
		p.retold = true
		w.asks = append(w.asks, a)
	case a.Signal == sigKill:
		if w.now < p.deadline {
			w.fatalf("%v gets SIGKILL at %v, before %v", a.ID, w.now, p.deadline)
		}
		p.killed, p.deadline = true, w.now+killRetry
	default:
		w.fatalf("%v gets signal %d, having had its stop signal", a.ID, a.Signal)
	}
	if a.Signal == sigKill {
		if a.Scope != ScopeTree {
			w.fatalf("SIGKILL to the %v of %v, not to its tree", a.Scope, a.ID)
		}
		p.stuck = false
		p.rest = min(p.rest, 1)
	}
}

// retold looks at a signal that is sent once more, by somebody else than before.
func (w *world) retold(a Send, p *proc, spec *Entry) {
	w.t.Helper()
	want := Send{ID: a.ID, Signal: sigCont, Scope: w.scope(p, spec)}
	if !p.heard {
		want.Signal, want.Wake = spec.StopSignal, spec.StopSignal != sigKill
		p.deadline = w.now + spec.StopTimeout
		w.asks = append(w.asks, a)
	}
	if a != want || !p.told || p.killed {
		w.fatalf("%+v, want %+v: %+v", a, want, *p)
	}
	w.again[a.ID] = true
	if a.Signal == sigKill {
		p.stuck, p.rest = false, min(p.rest, 1)
	}
}

// succeed has somebody else go on: who may have been told to end, or not.
func (w *world) succeed() {
	w.t.Helper()
	w.again = make(map[ID]bool)
	w.step(Retell{})
	for id, p := range w.procs {
		if w.again[id] != (p.told && !p.killed) {
			w.fatalf("%v is told again: %v, %+v", id, w.again[id], *p)
		}
	}
}

// tell says which of those that asked to end were told, mostly all.
func (w *world) tell() {
	w.t.Helper()
	asks := w.asks
	w.asks = nil
	for _, a := range asks {
		p := w.procs[a.ID]
		p.heard = false
		if a.Wake && w.from.Intn(8) > 0 {
			p.heard = true
			w.step(Told{ID: a.ID})
		}
	}
}

// scope is whom a stop begins with.
func (w *world) scope(p *proc, spec *Entry) Scope {
	switch {
	case !p.live || spec.StopSignal == sigKill:
		return ScopeTree
	case spec.StopMode == StopGroup:
		return ScopeGroup
	}
	return ScopeMain
}

// happen lets one thing happen to a process or a pending start.
func (w *world) happen() bool {
	w.t.Helper()
	ids := make([]ID, 0, len(w.asked)+len(w.procs))
	for id := range w.asked {
		ids = append(ids, id)
	}
	for id := range w.procs {
		ids = append(ids, id)
	}
	if len(ids) == 0 {
		return false
	}
	slices.SortFunc(ids, compareIDs)
	id := ids[w.from.Intn(len(ids))]
	// News comes late, but in order.
	at := max(w.told[id.Entry], w.now-time.Duration(w.from.Intn(3))*10*time.Millisecond)
	w.told[id.Entry] = at
	wall := int64(at)
	if w.asked[id] {
		delete(w.asked, id)
		if w.m.Wants(id) != w.model.wanted(w.model.entries[id.Entry], id.Slot) {
			w.fatalf("%v is wanted: %v", id, w.m.Wants(id))
		}
		if !w.m.Wants(id) && w.from.Intn(2) == 0 {
			w.step(Withdrawn{ID: id})
			return true
		}
		switch w.from.Intn(10) {
		case 0:
			ev := SpawnLost{ID: id, At: at, Wall: wall}
			w.model.spawnLost(ev)
			w.fact(ev)
			return true
		case 1, 2:
			ev := SpawnFailed{ID: id, At: at, Wall: wall, Errno: []string{"EAGAIN", "ENOENT"}[w.from.Intn(2)], Message: "exec nope: failed"}
			w.model.spawnFailed(ev)
			w.fact(ev)
			return true
		}
		w.pid++
		w.procs[id] = &proc{pid: w.pid, startedAt: at, live: true, rest: w.from.Intn(4) - 1, stuck: w.from.Intn(4) == 0}
		w.model.spawned(id)
		w.fact(Spawned{ID: id, PID: w.pid, At: at, Wall: wall})
		return true
	}
	p := w.procs[id]
	if w.from.Intn(8) == 0 {
		w.step(Stragglers{ID: id, Members: []int{p.pid + 2}})
	}
	if w.from.Intn(4) == 0 {
		w.crash(id, p, at)
		return true
	}
	switch {
	case p.stuck:
		return false
	case p.live:
		ev := Exited{ID: id, At: at, Wall: wall, Status: Status{Reason: ReasonExited, Code: w.from.Intn(3)}}
		switch w.from.Intn(6) {
		case 0, 1:
			ev.Status = Status{Reason: ReasonSignaled, Signal: 15}
		case 2:
			ev.Status = Status{Reason: ReasonUnknown}
		}
		if ev.TreeEmpty = p.rest <= 0; ev.TreeEmpty {
			delete(w.procs, id)
		} else {
			ev.Members = []int{p.pid + 1}
		}
		if w.handOver(id, p, ev) {
			return true
		}
		p.live = false
		w.model.exited(ev, p.startedAt, p.told)
		w.ended = p
		w.fact(ev)
		w.ended = nil
	default:
		if p.rest--; p.rest <= 0 {
			delete(w.procs, id)
			w.fact(TreeEmpty{ID: id, At: at})
		}
	}
	return true
}

// fact is step for news of processes. Some are kept, to be told again.
func (w *world) fact(ev Event) {
	w.t.Helper()
	w.past = append(w.past, ev)
	if len(w.past) > 8 {
		w.past = slices.Delete(w.past, 0, 1)
	}
	w.step(ev)
}

// repeat tells the machine something again that it has been told. It counts
// that and does nothing.
func (w *world) repeat() {
	w.t.Helper()
	if len(w.past) == 0 {
		return
	}
	ev := w.past[w.from.Intn(len(w.past))]
	before := w.m.Snapshot()
	before.Ignored++
	w.model.ignored++
	w.step(ev)
	if len(w.log[len(w.log)-1].actions) > 0 || !reflect.DeepEqual(before, w.m.Snapshot()) {
		w.fatalf("a stale event was not ignored")
	}
}

// pass lets time pass to the next deadline.
func (w *world) pass() bool {
	w.t.Helper()
	at, ok := w.m.NextDeadline()
	if !ok {
		return false
	}
	w.now = max(w.now, at)
	w.step(Tick{})
	if at, ok := w.m.NextDeadline(); ok && at < w.now {
		w.fatalf("a tick at %v leaves a deadline of %v", w.now, at)
	}
	return true
}

// reexec stops starting, perhaps with a new configuration on the way, and asks
// for all starts again that did not come to pass.
func (w *world) reexec() {
	w.t.Helper()
	if w.from.Intn(2) == 0 {
		w.step(w.config())
	}
	w.lost, w.asked = w.asked, make(map[ID]bool)
	w.step(Reissue{})
	w.lost = nil
}

func compareIDs(a, b ID) int {
	return cmp.Or(cmp.Compare(a.Entry, b.Entry), cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.Incarnation, b.Incarnation))
}

// bytesSource takes decisions from a string of bytes, and when they are used up
// from a generator that is the same for all: what a history ends with hangs on
// no more than what came before.
type bytesSource struct {
	data []byte
	rest *rand.Rand
}

func newBytesSource(data []byte) *bytesSource {
	return &bytesSource{data: data, rest: rand.New(rand.NewSource(1))}
}

func (b *bytesSource) Intn(n int) int {
	if len(b.data) == 0 {
		return b.rest.Intn(n)
	}
	v := int(b.data[0]) % n
	b.data = b.data[1:]
	return v
}

// handOver may have the main process leave a successor, and reports whether that
// is to be taken for the main process from now on. News of that is never stale:
// the incarnation goes on.
func (w *world) handOver(id ID, p *proc, ev Exited) bool {
	w.t.Helper()
	if ev.TreeEmpty || w.from.Intn(2) == 0 {
		return false
	}
	w.pid++
	ev.Successor = w.pid
	if p.told || ev.Status != (Status{}) || !w.model.entries[id.Entry].spec.Handover {
		return false // the same as without
	}
	p.pid, w.heir = ev.Successor, ev.Successor
	p.rest--
	w.step(ev)
	if w.heir != 0 {
		w.fatalf("%v was not handed over", id)
	}
	return true
}

// crash has a descendant crash.
func (w *world) crash(id ID, p *proc, at Instant) {
	w.t.Helper()
	w.crashes = w.model.crash(id, at, p)
	w.step(DescendantCrashed{ID: id, At: at})
	if w.crashes != 0 {
		w.fatalf("%v: %d crashes were not too many", id, w.crashes)
	}
}
