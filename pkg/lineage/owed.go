package lineage

import (
	"time"

	"github.com/sentryd/sentryd/pkg/procevents"
)

// A process's Exit may arrive after the Fork of the next one that has its pid:
// the kernel tells the parent first, and sends the event then (do_exit in
// kernel/exit.c: exit_notify, proc_exit_connector). Meanwhile the parent may reap,
// the pid be given out, and the task that exits wait for a processor. So of a leader's
// Exit only this is certain:
//
//   - With a parent, the pid was still its own when the timestamp was taken:
//     it is that of the last process of the pid that was forked by then.
//   - Without one it had been reaped before the event was made. The process may
//     be any that was forked before the timestamp and whose Exit has not come.
//
// Nothing else in the event helps. CPU and number tell where the task ran in
// the end, not who it was, and the numbers of two processors are not compared.
// So where two processes of one pid have both ended and neither Exit has a
// parent, nobody can tell which had which status, and the tracker says Unknown of
// both rather than guess. Whether the later one lives is not left open: a look tells.

// lateExit is how long after its pid was given on the Exit of a process may be
// sent. One that has not come by then was taken for another's.
const lateExit = 100 * time.Millisecond

// whose says of a leader's Exit whose it may be.
type whose int

const (
	itsOwn      whose = iota
	perhapsAnon       // or that of a process that nothing is known of
	anyones           // or that of an earlier process that was heard of
)

// whose judges an Exit that came while p, whose it may be, has the pid.
func (t *Tracker[K]) whose(p *process[K], r *record) whose {
	exact := p.from == p.until
	switch {
	case r.at >= p.until && r.parent != 0, exact && r.at >= p.from+lateExit:
		return itsOwn
	case p.mixed:
		return anyones
	case !exact:
		return perhapsAnon
	}
	switch t.history.owes(r.pid, p.from, r.at-lateExit) {
	case owesNone:
		return itsOwn
	case owesOne:
		return anyones
	}
	return perhapsAnon
}

// displace ends a member whose pid was given to another task at that moment.
// Its own Exits, unless they all arrived, come late.
func (t *Tracker[K]) displace(p *process[K], at time.Duration) {
	t.unlink(p)
	switch {
	case p.doubted && p.leaderGone || p.looking != 0 && !p.mixed:
		t.count(p, Unknown) // the Exit that was heard may be another's
	case p.leaderGone && len(p.threads) == 0:
		t.close(p, p.status(), p.lastAt)
	default:
		t.owe(p, at)
	}
}

// past takes in a process that had ended by then, when its number was given on.
// What it forked is still to be found in the history.
func (t *Tracker[K]) past(p *process[K], until time.Duration) {
	p.ended = true
	t.ghosts = append(t.ghosts, ghost[K]{p, until})
	t.owe(p, until)
}

// owe waits for the Exits of a process that had ended by then.
func (t *Tracker[K]) owe(p *process[K], until time.Duration) {
	p.free = until
	t.owed = append(t.owed, p)
}

// giveUp stops to wait for Exits that were taken for another's.
func (t *Tracker[K]) giveUp() {
	keep := t.owed[:0]
	for _, p := range t.owed {
		if p.free+lateExit < t.seen {
			t.count(p, Unknown)
			continue
		}
		keep = append(keep, p)
	}
	clear(t.owed[len(keep):])
	t.owed = keep
}

// exitOwed takes an Exit that is, or may be, that of a process whose pid was
// given on.
func (t *Tracker[K]) exitOwed(r *record) bool {
	var p *process[K]
	n, at := 0, 0   // how many it may be of
	former := false // it is that of a leader that an execve of another thread ended
	for i, q := range t.owed {
		switch {
		case q.pid != r.tgid || r.at < q.from:
		case r.pid != r.tgid:
			if _, ok := q.threads[r.pid]; ok {
				delete(q.threads, r.pid)
				q.lastCode = r.code
				t.paid(i, r)
				return true
			}
		case q.leaderGone, r.parent != 0 && r.at >= q.free:
		case r.at < q.leaderFrom:
			former = true
		case r.parent != 0: // q had the pid at that moment
			p, at, n = q, i, 1
		default:
			if n++; p == nil || q.from < p.from {
				p, at = q, i
			}
		}
	}
	if p == nil {
		return former
	}
	p.leaderGone, p.leaderCode, p.lastCode = true, r.code, r.code
	if r.parent == 0 {
		t.mix(p, r, n)
	}
	t.paid(at, r)
	return true
}

// mix notes of whom else an Exit without a parent may be that was taken for p's,
// who is one of n that are owed one.
func (t *Tracker[K]) mix(p *process[K], r *record, n int) {
	p.unsure = p.unsure || t.history.owes(p.pid, p.from, r.at-lateExit) == owesOne
	if n > 1 {
		for _, q := range t.owed {
			if q.pid == p.pid && r.at >= q.from {
				q.unsure = true
			}
		}
	}
	if r.at < p.free {
		return
	}
	// The pid's present owner may have been reaped as early, unless its own was heard.
	next := t.member(r)
	if next != nil && next.counted && next.leaderGone && !next.doubted {
		return
	}
	p.unsure = true
	if next != nil {
		next.mixed, next.unsure = true, true
		t.lookAt(next)
	}
}

// paid closes a process that is owed if all its Exits have come.
func (t *Tracker[K]) paid(i int, r *record) {
	p := t.owed[i]
	if !p.leaderGone || len(p.threads) > 0 {
		return
	}
	t.owed = append(t.owed[:i], t.owed[i+1:]...)
	t.close(p, p.status(), r.at)
}

// dropOwed forgets those of a root.
func (t *Tracker[K]) dropOwed(root *root[K]) {
	keep := t.owed[:0]
	for _, p := range t.owed {
		if p.root != root {
			keep = append(keep, p)
		}
	}
	clear(t.owed[len(keep):])
	t.owed = keep
}

// debt is what the history says of the Exits of a pid.
type debt int

const (
	owesNone debt = iota
	owesUnknown
	owesOne
)

// owes says whether the Exit of a process that had the pid before until may be
// still to come, if it has not been given on before since.
func (h *history) owes(pid int32, until, since time.Duration) debt {
	var exits [8]time.Duration // more of one pid within such a time are not reckoned with
	n, known := 0, false
	next := until // when the number was given on
	executed := time.Duration(0)
	for i := h.tasks[uint32(pid)%buckets]; i >= h.first; i = h.at(i).prev {
		r := h.at(i)
		if h.replaying != 0 && i >= h.replaying || r.pid != pid || r.kind == procevents.Unknown || r.kind != procevents.Exit && r.at >= until {
			continue
		}
		known = true
		switch r.kind {
		case procevents.Exit:
			if r.at < executed {
				continue // that of a former leader
			}
			if n == len(exits) {
				return owesOne
			}
			exits[n] = r.at
			n++
		case procevents.Exec:
			executed = max(executed, r.at)
			keep := exits[:0]
			for _, at := range exits[:n] {
				if at > r.at {
					keep = append(keep, at)
				}
			}
			n = len(keep)
			if n == 0 && next >= since {
				return owesOne
			}
		case procevents.Fork:
			if next < since {
				return owesNone
			}
			next, executed = r.at, 0
			if r.tgid != pid {
				continue // a thread had the number
			}
			if n == 0 {
				return owesOne
			}
			n--
		default:
			if n == 0 && next >= since {
				return owesOne
			}
		}
	}
	if known {
		return owesNone
	}
	return owesUnknown
}
