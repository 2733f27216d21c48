package metrics

import "github.com/sentryd/sentryd/pkg/view"

// usage is what one process uses.
type usage struct {
	start uint64
	cpu   view.CPU
	rss   int64
	fds   int
}

// entryUsage is what an entry's processes use; cpu is that of its ended ones
// as well.
type entryUsage struct {
	cpu view.CPU
	rss int64
	fds int
}

// cpuBook makes the processor time of an entry a counter, from one scrape to
// the next. The state has the time of ended processes, /proc that of live
// ones, and three things would let their sum fall:
//
//   - A process of the state is gone from /proc already: its last reading
//     stands in until the state counts it as ended.
//   - A pid belongs to a stranger already: the start time differs from that of
//     the first reading of the same incarnation, and it counts as gone.
//   - A process ended whose time nobody could know, as one that was adopted:
//     what the sum falls by is carried on.
//
// The book is as old as the image: after a re-exec what had been carried is
// missing from the sum, once, which Prometheus takes for a restart.
type cpuBook map[string]*cpuAccount

type cpuAccount struct {
	starts uint64   // of the entry, to notice that another took its name
	sent   view.CPU // by the last scrape
	carry  view.CPU
	live   map[incarnation]usage // the last readings
}

type incarnation struct {
	slot   int
	number uint64
	pid    int // differs when an incarnation changes its main process
}

// take books what the processes of the entries use now and returns what to
// send for each. An entry that is gone is forgotten.
func (b cpuBook) take(entries []*view.Entry, now map[int]usage) []entryUsage {
	out := make([]entryUsage, len(entries))
	known := make(map[string]bool, len(entries))
	for i, e := range entries {
		known[e.Name] = true
		a := b[e.Name]
		if a == nil || e.Starts < a.starts {
			a = &cpuAccount{}
			b[e.Name] = a
		}
		out[i] = a.take(e, now)
	}
	for name := range b {
		if !known[name] {
			delete(b, name)
		}
	}
	return out
}

func (a *cpuAccount) take(e *view.Entry, now map[int]usage) entryUsage {
	var out entryUsage
	sum := e.EndedCPU
	live := make(map[incarnation]usage, len(a.live))
	for _, p := range e.Processes {
		if p.PID == 0 {
			continue
		}
		id := incarnation{p.Slot, p.Incarnation, p.PID}
		before, read := a.live[id]
		u, exists := now[p.PID]
		if read && (!exists || u.start != before.start) {
			u, exists = usage{start: before.start, cpu: before.cpu}, true
		}
		if !exists {
			continue
		}
		live[id] = u
		sum.User += u.cpu.User
		sum.System += u.cpu.System
		out.rss += u.rss
		out.fds += max(u.fds, 0)
	}
	a.carry.User = max(a.carry.User, a.sent.User-sum.User)
	a.carry.System = max(a.carry.System, a.sent.System-sum.System)
	// The second max is for rounding: one bit less would look like a restart.
	out.cpu.User = max(sum.User+a.carry.User, a.sent.User)
	out.cpu.System = max(sum.System+a.carry.System, a.sent.System)
	a.starts, a.sent, a.live = e.Starts, out.cpu, live
	return out
}
