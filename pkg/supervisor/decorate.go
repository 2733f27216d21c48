package supervisor

import (
	"maps"
	"sync"
	"time"

	"github.com/sentryd/sentryd/pkg/lineage"
	"github.com/sentryd/sentryd/pkg/state"
	"github.com/sentryd/sentryd/pkg/supervisor/fsm"
	"github.com/sentryd/sentryd/pkg/view"
)

// The numbers of descendants change without a new version of the picture, so
// they are put into it when somebody asks for it.

// How long the numbers are good for: those from events, and those that are read
// from a cgroup for each slot.
const (
	heardAge = 50 * time.Millisecond
	readAge  = time.Second
)

// decorated is a picture with the numbers of descendants in it.
type decorated struct {
	mu     sync.Mutex // held while they are read: those who ask meanwhile get the same
	base   *view.State
	state  *view.State
	counts map[string]int
	until  fsm.Instant // counts are good until then
}

// decorate returns a picture with the numbers of descendants in it, the same one
// as the last time when nothing has changed.
func (d *descent) decorate(base *view.State) *view.State {
	p := &d.picture
	p.mu.Lock()
	defer p.mu.Unlock()
	now := d.clock()
	fresh := now < p.until
	if !fresh {
		before := p.counts
		p.counts, p.until = d.count(now)
		fresh = maps.Equal(before, p.counts)
	}
	if fresh && p.base == base {
		return p.state
	}
	p.base, p.state = base, base
	if len(p.counts) == 0 {
		return base
	}
	st := *base
	st.Entries = make([]*view.Entry, len(base.Entries))
	for i, e := range base.Entries {
		if n := p.counts[e.Name]; n != 0 {
			c := *e
			c.Descendants = n
			e = &c
		}
		st.Entries[i] = e
	}
	p.state = &st
	return p.state
}

// count returns how many descendants live, by entry, without entries that have
// none, and until when that is good.
func (d *descent) count(now fsm.Instant) (counts map[string]int, until fsm.Instant) {
	if d.isHeard() {
		return living(d.totals()), now + heardAge
	}
	counts = make(map[string]int)
	for id, a := range d.all() {
		if a.cgroup == "" {
			continue
		}
		pids, err := lineage.Cgroup(a.cgroup)
		if err != nil {
			continue // what is not known is not counted
		}
		for _, pid := range pids {
			if int(pid) != a.pid {
				counts[id.Entry]++
			}
		}
	}
	return counts, now + readAge
}

// living leaves out the entries that have none.
func living(totals map[string]descendants) map[string]int {
	counts := make(map[string]int)
	for name, total := range totals {
		if total.living > 0 {
			counts[name] = total.living
		}
	}
	return counts
}

// show has the numbers that a former image knew shown until this one can know them, nil if
// it knew none. Without, whoever reads the first picture would wait until the cgroup of
// every slot is read, a tenth of a second with a thousand.
func (d *descent) show(counts map[string]int) {
	if counts == nil {
		return
	}
	d.picture.mu.Lock()
	d.picture.counts, d.picture.until = counts, d.clock()+readAge
	d.picture.mu.Unlock()
}

func (d *descent) isHeard() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.heard
}

// isWhole reports whether the events tell of all that there is: not so between a
// loss, or a re-exec, and the listing that follows.
func (d *descent) isWhole() bool { return d.isHeard() && d.tracker.Listed() }

// all returns a copy of the ancestors.
func (d *descent) all() map[fsm.ID]ancestor {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make(map[fsm.ID]ancestor, len(d.ancestors))
	for id, a := range d.ancestors {
		out[id] = *a
	}
	return out
}

// tell puts the counters of an entry's descendants into a copy of its picture.
func (t *descendants) tell(e *view.Entry) {
	e.Forks, e.Execs, e.Coredumps = t.forks, t.execs, t.coredumps
	e.DescendantExits = make([]view.LabelCount, 0, len(t.exits))
	for r, n := range t.exits {
		e.DescendantExits = append(e.DescendantExits, view.LabelCount{Label: lineage.Reason(r).String(), N: n})
	}
}

// The counters, saved and loaded.

func (d *descent) save(out *state.Daemon) {
	totals := d.totals()
	if d.isHeard() {
		out.Descendants = living(totals)
	}
	for i := range out.Machine.Entries {
		e := &out.Machine.Entries[i]
		if t, ok := totals[e.Name]; ok {
			t.save(&e.Totals)
		}
	}
}

func (d *descendants) save(t *state.Totals) {
	t.Forks, t.Execs, t.Coredumps = d.forks, d.execs, d.coredumps
	t.DescendantExits = make(map[string]uint64)
	for r, n := range d.exits {
		t.DescendantExits[lineage.Reason(r).String()] = n
	}
}

func (d *descent) load(m *state.Machine) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range m.Entries {
		t := &m.Entries[i].Totals
		sum := descendants{forks: t.Forks, execs: t.Execs, coredumps: t.Coredumps}
		for r := range sum.exits {
			sum.exits[r] = t.DescendantExits[lineage.Reason(r).String()]
		}
		d.ended[m.Entries[i].Name] = sum
	}
}
