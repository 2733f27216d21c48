package supervisor

import (
	"maps"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sentryd/sentryd/pkg/lineage"
	"github.com/sentryd/sentryd/pkg/procevents"
	"github.com/sentryd/sentryd/pkg/supervisor/fsm"
)

// descent knows what descends from the main processes: by the proc connector's
// events where forks are heard, else by what is in a slot's cgroup when somebody
// asks. It is a Lineage.
//
// The owner adds and removes, the witness's goroutine hands on events, one
// goroutine of its own reads /proc and cgroups for what the events leave open,
// and anybody may ask. What it knows decides nothing but through fsm events
// that the owner makes of crashes.
type descent struct {
	clock func() fsm.Instant
	// tracker is nil where forks are not asked for.
	tracker *lineage.Tracker[fsm.ID]
	stir    chan struct{} // holds a token when the goroutine has something to do
	wake    func()        // the owner, to take crashes

	mu        sync.Mutex
	heard     bool
	seen      fsm.Instant // the latest event observed
	ancestors map[fsm.ID]*ancestor
	mains     map[int32]fsm.ID       // of those whose program is kept in mind, by pid
	leaving   map[fsm.ID]fsm.Instant // removed then; the last events about them may be on the way
	ended     map[string]descendants // totals of what was removed, by entry
	crashes   []lineage.Crash[fsm.ID]

	picture decorated
}

// ancestor is an incarnation as descent knows it.
type ancestor struct {
	pid    int
	at     fsm.Instant // it was pid then
	cgroup string      // "" without
	watch  bool        // crashes below it are for the owner
	exe    string      // the program that it runs, where handover asks for it
}

// descendants counts what became of an entry's.
type descendants struct {
	living                  int
	forks, execs, coredumps uint64
	exits                   [lineage.Reasons]uint64
}

func (d *descendants) add(c *lineage.Counts) {
	d.living += c.Descendants
	d.forks += c.Forks
	d.execs += c.Execs
	d.coredumps += c.Coredumps
	for i, n := range c.Exits {
		d.exits[i] += n
	}
}

// newDescent returns a descent without ancestors. With forks it is to be the
// witness's Lineage.
func newDescent(clock func() fsm.Instant, forks bool, wake func()) *descent {
	d := &descent{
		clock: clock, wake: wake, stir: make(chan struct{}, 1),
		ancestors: make(map[fsm.ID]*ancestor), mains: make(map[int32]fsm.ID),
		leaving: make(map[fsm.ID]fsm.Instant), ended: make(map[string]descendants),
	}
	if forks {
		d.tracker = lineage.New[fsm.ID](0)
	}
	return d
}

// expect makes room for n incarnations, before the first.
func (d *descent) expect(n int) {
	d.mu.Lock()
	d.ancestors = make(map[fsm.ID]*ancestor, n)
	d.mu.Unlock()
}

// add makes an incarnation's main process known. follow has the program that it
// runs kept in mind.
func (d *descent) add(id fsm.ID, a ancestor, follow bool) {
	if follow {
		a.exe = program(a.pid)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.leaving[id]; ok { // an entry of that name that was removed had it
		d.settle(id)
	}
	d.ancestors[id] = &a
	if follow {
		d.mains[int32(a.pid)] = id
	}
	if d.heard {
		d.tracker.Add(id, int32(a.pid), a.at)
	}
}

// handOver makes a descendant an incarnation's main process.
func (d *descent) handOver(id fsm.ID, pid int, at fsm.Instant) {
	d.mu.Lock()
	defer d.mu.Unlock()
	a := d.ancestors[id]
	if a == nil {
		return
	}
	delete(d.mains, int32(a.pid))
	a.pid, a.at = pid, at
	d.mains[int32(pid)] = id
	if d.heard {
		d.tracker.Promote(id, int32(pid))
	}
}

// remove forgets an incarnation of which nothing is left, or that is nobody's
// concern any more.
func (d *descent) remove(id fsm.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	a := d.ancestors[id]
	if a == nil {
		return
	}
	delete(d.ancestors, id)
	if d.mains[int32(a.pid)] == id {
		delete(d.mains, int32(a.pid))
	}
	if d.heard {
		d.leaving[id] = d.clock()
		return
	}
	d.settle(id)
}

// settle takes what is known of a removed incarnation into the totals of its
// entry. mu is held.
func (d *descent) settle(id fsm.ID) {
	delete(d.leaving, id)
	if d.tracker == nil {
		return
	}
	if c, ok := d.tracker.Remove(id); ok {
		c.Descendants = 0
		total := d.ended[id.Entry]
		total.add(&c)
		d.ended[id.Entry] = total
	}
}

// drop forgets an entry.
func (d *descent) drop(entry string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id := range d.leaving {
		if id.Entry == entry {
			d.settle(id)
		}
	}
	delete(d.ended, entry)
}

// lateEvents is how long after the end of a process was handled its Exit may be
// sent: the parent is told first.
const lateEvents = 5 * time.Millisecond

// Observe implements Lineage.
func (d *descent) Observe(events []procevents.Event) {
	news := d.tracker.Apply(events)
	d.mu.Lock()
	for i := range events {
		e := &events[i]
		d.seen = max(d.seen, e.Timestamp)
		if e.Kind == procevents.Exec && len(d.mains) > 0 {
			if id, ok := d.mains[e.TGID]; ok {
				d.reread(id)
			}
		}
	}
	for id, at := range d.leaving {
		if at+lateEvents < d.seen {
			d.settle(id)
		}
	}
	d.mu.Unlock()
	if news {
		d.poke()
	}
}

// Lost implements Lineage: events are heard from now on.
func (d *descent) Lost() {
	d.tracker.Lost(d.clock())
	d.mu.Lock()
	d.heard = true
	for id, a := range d.ancestors {
		d.tracker.Add(id, int32(a.pid), a.at)
	}
	d.mu.Unlock()
	d.poke()
}

// Silent implements Lineage: none are.
func (d *descent) Silent() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.heard = false
	for id := range d.leaving {
		d.settle(id)
	}
}

func (d *descent) poke() {
	select {
	case d.stir <- struct{}{}:
	default:
	}
}

// takeCrashes returns the crashes below main processes for which they are
// counted, since the last call.
func (d *descent) takeCrashes() []lineage.Crash[fsm.ID] {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.crashes
	d.crashes = nil
	return c
}

// totals returns what each entry's descendants are and were, as far as it was
// heard; living ones are those that the events tell.
func (d *descent) totals() map[string]descendants {
	d.mu.Lock()
	defer d.mu.Unlock()
	sums := maps.Clone(d.ended)
	if d.tracker == nil {
		return sums
	}
	sum := func(id fsm.ID) {
		if c, ok := d.tracker.Counts(id); ok {
			total := sums[id.Entry]
			total.add(&c)
			sums[id.Entry] = total
		}
	}
	for id := range d.ancestors {
		sum(id)
	}
	for id := range d.leaving {
		sum(id)
	}
	return sums
}

// reread keeps in mind what a main process runs now. mu is held.
func (d *descent) reread(id fsm.ID) {
	if a := d.ancestors[id]; a != nil {
		if exe := program(a.pid); exe != "" {
			a.exe = exe
		}
	}
}

// runs returns the program that an incarnation's main process was last known to
// run, "" if that is not known.
func (d *descent) runs(id fsm.ID) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if a := d.ancestors[id]; a != nil {
		return a.exe
	}
	return ""
}

// program returns the path of what a process runs, as it was when that was
// executed: a file that was replaced since is the same program.
func program(pid int) string {
	path, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe")
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(path, " (deleted)")
}
