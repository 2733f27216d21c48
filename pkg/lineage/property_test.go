package lineage

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/sentryd/sentryd/pkg/procevents"
)

// world is a simulated kernel and a tracker that is told of it as the edge would
// tell it: late, in batches, and not of everything.
type world struct {
	*kernel
	t       *Tracker[string]
	lossy   bool
	cgroups bool // listings have the members of cgroups
	losses  int
	untold  int // crashes that were not told, and never will be

	roots   []*simRoot
	made    int
	crashes []Crash[string]
	looks   []Look
	dropped bool // something was lost and not said yet
	listing *Listing[string]
	next    int32 // the next pid of the listing
	last    map[string]Counts
}

type simRoot struct {
	key   string
	main  *simProc
	at    time.Duration
	added bool
}

func newWorld(c chooser, lossy, cgroups, roomy bool) *world {
	pidMax := int32(70) // reused at once
	if lossy || roomy {
		pidMax = 4000 // not reused within the resolution of start times
	}
	w := &world{kernel: newKernel(c, pidMax, pidMax > 1000), t: New[string](2000), lossy: lossy, cgroups: cgroups, last: map[string]Counts{}}
	w.now += time.Millisecond
	w.t.self = w.daemon.pid
	w.t.Lost(w.now)
	return w
}

// start has the daemon start a main process.
func (w *world) start() {
	if len(w.roots) >= 4 || w.daemon.tasks[0].busy || w.dropped {
		return
	}
	// No daemon is so late, nor any pid space so small, that an earlier process of
	// the same pid is still to be heard of: see settlePending.
	w.hear(1 << 20)
	p := w.fork(w.daemon, w.daemon.tasks[0])
	if p == nil {
		return
	}
	w.made++
	p.main, p.key = true, fmt.Sprintf("web:0/%d", w.made)
	w.truth(p.key)
	started := w.flight[len(w.flight)-1]
	run := started.then
	started.then = func() {
		run()
		p.sid = p.pid
		w.simple(p, p.tasks[0], procevents.SID, nil)
	}
	w.roots = append(w.roots, &simRoot{key: p.key, main: p})
}

// step lets one thing happen.
func (w *world) step() {
	if w.lossy {
		w.now += time.Duration(w.choose.intN(200)) * time.Microsecond
	}
	switch what := w.choose.intN(100); {
	case what < 45:
		w.act()
	case what < 80:
		if len(w.flight) > 0 {
			w.land(w.choose.intN(len(w.flight)))
		}
	case what < 84:
		w.start()
	case what < 88:
		w.hear(1 + w.choose.intN(40))
	case what < 92:
		w.own()
	case what < 94:
		w.remove()
	case what < 99:
		w.list()
	case w.lossy && !w.deaf && w.choose.intN(4) == 0:
		if !w.cgroups && slices.ContainsFunc(w.roots, func(r *simRoot) bool { return !r.added }) {
			return // what it makes in a session of its own, and was not replayed, is lost
		}
		if !w.cgroups {
			// Without a cgroup a session that was made unheard of is one that
			// nobody can trace.
			w.settle()
			w.noSessions = true
		}
		w.deaf, w.dropped = true, true
	}
	if w.deaf && w.choose.intN(60) == 0 {
		w.overrun()
	}
}

// hear applies up to n events of the queue.
func (w *world) hear(n int) {
	n = min(n, len(w.queue))
	w.t.Apply(w.queue[:n])
	w.queue = slices.Delete(w.queue, 0, n)
}

// overrun is what a reader does after one: take what was queued before it, and
// say that some is missing.
func (w *world) overrun() {
	if !w.deaf {
		return
	}
	w.hear(len(w.queue))
	w.deaf = false
	w.tick()
	w.t.Lost(w.now)
	w.tick()
	w.dropped = false
	w.losses++
}

// own is the owner's part: it adds what was started, and takes the news.
func (w *world) own() {
	for _, r := range w.roots {
		// The clone returns when its Fork is queued.
		if r.at == 0 && !w.daemon.tasks[0].busy {
			w.tick()
			r.at = w.now
		} else if r.at != 0 && !r.added {
			r.added = w.t.Add(r.key, r.main.pid, r.at)
		}
	}
	for _, l := range w.looks { // asked for at an earlier turn
		at, found := w.stat(l.PID)
		w.t.Answer(l, found, at)
	}
	news := w.t.Take()
	w.looks = append(w.looks[:0], news.Looks...)
	w.crashes = append(w.crashes, news.Crashes...)
	if news.Listing && w.listing == nil && !w.deaf {
		w.listing = &Listing[string]{Begin: w.now, All: w.choose.intN(4) != 0}
		w.next = 1
		w.tick()
		if w.cgroups {
			w.listing.Members = map[string][]int32{}
			for _, r := range w.roots {
				for _, p := range w.members(r.key) {
					w.listing.Members[r.key] = append(w.listing.Members[r.key], p.pid)
				}
			}
		}
	}
	for _, p := range slices.Clone(w.procs) { // the daemon reaps
		if p.main && p.dead && slices.ContainsFunc(w.roots, func(r *simRoot) bool { return r.main == p && r.added }) {
			w.reap(p)
		}
	}
}

// list reads some more of /proc.
func (w *world) list() {
	if w.listing == nil {
		return
	}
	w.tick()
	for end := w.next + 1000; w.next <= w.pidMax; w.next++ {
		if w.next == end {
			return
		}
		if at, found := w.stat(w.next); found {
			w.listing.Procs = append(w.listing.Procs, at)
		}
	}
	if w.t.Rebuild(*w.listing) && !w.deaf && !w.dropped {
		w.noSessions = false
	}
	w.listing = nil
}

// remove forgets a root that has ended. Its counts are compared.
func (w *world) remove() {
	for i, r := range w.roots {
		if r.added && r.main.dead && r.main.released && len(w.members(r.key)) == 0 && w.choose.intN(2) == 0 && len(w.flight) == 0 && len(w.queue) == 0 && len(w.t.Tree(r.key)) == 0 {
			w.t.Remove(r.key)
			w.roots = slices.Delete(w.roots, i, i+1)
			return
		}
	}
}

// quiet waits until nothing is outstanding, and then compares.
func (w *world) quiet() error {
	if w.deaf {
		w.overrun()
	}
	w.settle()
	w.hear(len(w.queue))
	for range 20 {
		w.own()
		w.settle()
		w.hear(len(w.queue))
		for w.listing != nil {
			w.list()
		}
	}
	// An event of later, so that no root waits for an earlier one.
	w.tick()
	w.queue = append(w.queue, procevents.Event{Kind: procevents.Exec, PID: w.daemon.pid, TGID: w.daemon.pid, Timestamp: w.now})
	w.hear(1)
	w.own()
	for w.listing != nil {
		w.list()
	}
	w.own()
	w.own()
	for _, r := range w.roots {
		if err := w.compare(r); err != nil {
			return fmt.Errorf("%s (main %d): %w", r.key, r.main.pid, err)
		}
	}
	if n := w.t.Take(); n.Listing || len(n.Looks) > 0 {
		return fmt.Errorf("it still asks: %+v", n)
	}
	if !w.lossy {
		return w.compareCrashes()
	}
	return nil
}

// compare holds the tracker against the truth.
func (w *world) compare(r *simRoot) error {
	live := map[int32]*simProc{}
	want := map[int32]bool{}
	for _, p := range w.members(r.key) {
		want[p.pid], live[p.pid] = true, p
	}
	tree := w.t.Tree(r.key)
	for _, p := range tree {
		truth := live[p.PID]
		switch {
		case truth == nil:
			return fmt.Errorf("%d is said to live: %+v", p.PID, p)
		case p.Main != truth.main:
			return fmt.Errorf("%d: main process %v", p.PID, p.Main)
		}
		delete(want, p.PID)
		off := p.Started - truth.forked
		if !w.lossy && off != 0 || off.Abs() > startSpread {
			return fmt.Errorf("%d: started %v, in truth %v", p.PID, p.Started, truth.forked)
		}
		if w.lossy {
			continue
		}
		parent := int32(0)
		if truth.creator != nil && truth.creator.key == r.key {
			parent = truth.creator.pid
		}
		if p.Parent != parent || p.Execed != truth.execed || p.Threads != len(truth.tasks) || p.LeaderGone != truth.leaderGone {
			return fmt.Errorf("%+v; in truth parent %d, execed %v, %d tasks, leader gone %v", p, parent, truth.execed, len(truth.tasks), truth.leaderGone)
		}
	}
	for pid := range want {
		return fmt.Errorf("%d is not known", pid)
	}
	c, _ := w.t.Counts(r.key)
	told := c
	for _, p := range w.t.owed { // its Exit was taken for another's, and not yet given up
		if p.root.key == r.key && !p.wasMain {
			c.Exits[Unknown]++
		}
	}
	if got := c.Forks + c.Found; got != uint64(c.Descendants)+c.Exited() {
		return fmt.Errorf("%+v do not add up", c)
	}
	truth := w.truth(r.key).counts
	truth.Descendants = len(live)
	if !r.main.dead {
		truth.Descendants--
	}
	if c.Descendants != truth.Descendants {
		return fmt.Errorf("%d descendants, in truth %d", c.Descendants, truth.Descendants)
	}
	if !w.lossy {
		same := c
		if w.pidMax < 1000 { // see compareCrashes
			for i, n := range truth.Exits {
				if Reason(i) != Unknown && c.Exits[i] > n {
					return fmt.Errorf("counts %+v\n in truth %+v", c, truth)
				}
			}
			same.Exits = truth.Exits
		}
		if same != truth || c.Exited() != truth.Exited() {
			return fmt.Errorf("counts %+v\n in truth %+v", c, truth)
		}
	}
	if c.Forks > truth.Forks || c.Execs > truth.Execs || c.Coredumps > truth.Coredumps || c.Forks+c.Found > truth.Forks {
		return fmt.Errorf("counts %+v\n above the truth %+v", c, truth)
	}
	was := w.last[r.key]
	fell := told.Forks < was.Forks || told.Found < was.Found || told.Execs < was.Execs || told.Coredumps < was.Coredumps
	for i, n := range told.Exits {
		fell = fell || n < was.Exits[i]
	}
	if fell {
		return fmt.Errorf("counts fell: %+v, before %+v", told, was)
	}
	w.last[r.key] = told
	return nil
}

// compareCrashes holds the crashes that were told against the truth. Where pids are
// reused at once some are not told, those of which nobody can know: but what is
// told is true.
func (w *world) compareCrashes() error {
	left := map[string][]Crash[string]{}
	for _, tr := range w.ended {
		for _, c := range tr.crashes {
			left[crashID(c)] = append(left[crashID(c)], c)
		}
	}
	for _, c := range w.crashes {
		want := left[crashID(c)]
		c.At = 0
		if len(want) == 0 || want[0] != c {
			return fmt.Errorf("crash %+v, in truth %+v", c, want)
		}
		left[crashID(c)] = want[1:]
	}
	w.untold = 0
	for _, want := range left {
		w.untold += len(want)
	}
	if w.untold > 0 && w.pidMax > 1000 {
		return fmt.Errorf("%d crashes are not told: %+v", w.untold, left)
	}
	return nil
}

func crashID(c Crash[string]) string { return fmt.Sprint(c.Key, c.PID, c.Started) }

// run makes some steps with quiet points in between.
func (w *world) run(rounds, steps int) error {
	for round := range rounds {
		for range steps {
			w.step()
		}
		if err := w.quiet(); err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
	}
	return nil
}

type seeded struct{ *rand.Rand }

func (s seeded) intN(n int) int { return s.IntN(n) }

// seeds is how many runs of each kind there are, and with SENTRYD_SOAK=1 a hundred
// times as many.
func seeds() uint64 {
	if os.Getenv("SENTRYD_SOAK") == "1" {
		return 1600
	}
	return 16
}

// TestSimulated: at every quiet point the tracker is what the simulated kernel
// is. The seeds are fixed; a failure names its own.
func TestSimulated(t *testing.T) {
	for _, c := range []struct {
		name                  string
		lossy, cgroups, roomy bool
	}{
		{"nothing lost", false, false, true},
		{"nothing lost, pids reused at once", false, false, false},
		{"losses, cgroups", true, true, true},
		{"losses, parents and sessions", true, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			losses, crashes, made, untold := 0, 0, 0, 0
			for seed := range seeds() {
				w := newWorld(seeded{rand.New(rand.NewPCG(seed, 1))}, c.lossy, c.cgroups, c.roomy)
				if err := w.run(10, 1500); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				losses, crashes, made, untold = losses+w.losses, crashes+len(w.crashes), made+w.made, untold+w.untold
			}
			t.Logf("%d roots, %d losses, %d crashes and %d of which nobody can know", made, losses, crashes, untold)
			if untold > crashes/8 {
				t.Error("too many of which nobody can know")
			}
			if made == 0 || crashes == 0 || c.lossy != (losses > 0) {
				t.Error("the simulation does not do what it is for")
			}
		})
	}
}

// choices are those of the fuzzer.
type choices struct{ data []byte }

func (c *choices) intN(n int) int {
	v := 0
	for m := n; m > 1; m >>= 8 {
		if len(c.data) == 0 {
			return v % n
		}
		v = v<<8 | int(c.data[0])
		c.data = c.data[1:]
	}
	return v % n
}

// FuzzSimulated lets the fuzzer choose what the simulated kernel does.
func FuzzSimulated(f *testing.F) {
	for seed := range byte(4) {
		data := make([]byte, 1200)
		r := rand.New(rand.NewPCG(uint64(seed), 2))
		for i := range data {
			data[i] = byte(r.IntN(256))
		}
		f.Add(data, seed&1 != 0, seed&2 != 0)
	}
	f.Fuzz(func(t *testing.T, data []byte, lossy, cgroups bool) {
		w := newWorld(&choices{data[:min(len(data), 1<<16)]}, lossy, cgroups, true)
		for range len(data) / 4 {
			w.step()
		}
		if err := w.quiet(); err != nil {
			t.Fatal(err)
		}
	})
}
