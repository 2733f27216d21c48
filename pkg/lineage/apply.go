package lineage

import (
	"syscall"
	"time"

	"github.com/sentryd/sentryd/pkg/procevents"
)

// match applies a record to the member that it is about, and reports false if
// it is about none.
func (t *Tracker[K]) match(r *record) bool {
	switch r.kind {
	case procevents.Fork:
		if r.pid != r.tgid {
			return t.forkThread(r)
		}
		return t.forkProcess(r)
	case procevents.Exit:
		if len(t.owed) > 0 && t.exitOwed(r) {
			return true
		}
		p := t.member(r)
		if p == nil {
			return false
		}
		t.exit(p, r)
	case procevents.Exec:
		p := t.member(r)
		if p == nil {
			if p = t.ghost(r.tgid, r.at); p != nil {
				p.root.counts.Execs++
				p.execed = true
			}
			return p != nil
		}
		p.root.counts.Execs++
		p.execed = true
		if p.counted && len(p.threads) == 0 { // an Exit that was heard was another's
			p.doubted, p.mixed, p.unsure = false, false, false
		}
		// All other threads are gone, and this one has become the leader. Their
		// exits may arrive yet.
		p.leaderFrom, p.comm = max(p.leaderFrom, r.at), ""
		p.threads, p.counted = nil, true
		p.leaderGone, p.leaderCode, p.lastCode = false, 0, 0
		p.leaderAt, p.lastAt = 0, 0
		p.looking = 0
	case procevents.SID:
		p := t.member(r)
		if p == nil {
			return false
		}
		t.leads(p, r.at)
	case procevents.Coredump:
		p := t.member(r)
		if p == nil {
			p = t.ghost(r.tgid, r.at)
		}
		if p == nil {
			return false
		}
		p.coredump = true
		p.root.counts.Coredumps++
	default:
		return false
	}
	return true
}

// member returns the member that the record is about, unless it is about an
// earlier process of that pid.
func (t *Tracker[K]) member(r *record) *process[K] {
	if p := t.procs[r.tgid]; p != nil && r.at >= p.from {
		return p
	}
	return nil
}

// leads notes that p made a session. Of a process with threads this may be heard
// after forks that another of them made since.
func (t *Tracker[K]) leads(p *process[K], at time.Duration) {
	p.sid, p.sidAt = p.pid, at
	p.root.leads = p.root.leads || p == p.root.main
	if p.counted && len(p.threads) == 0 {
		return
	}
	for c := p.root.members; c != nil; c = c.next { // the newest first
		if c.parent == p && c.from >= at && c.sid != c.pid {
			c.sid = p.sid
		}
	}
}

func (t *Tracker[K]) forkThread(r *record) bool {
	t.reused(r)
	p := t.member(r)
	if p == nil {
		return false
	}
	if p.threads == nil {
		p.threads = make(map[int32]struct{})
	}
	p.threads[r.pid] = struct{}{}
	t.history.given(r.pid, r.at)
	return true
}

func (t *Tracker[K]) forkProcess(r *record) bool {
	parent := t.procs[r.parent]
	if parent == nil || r.at < parent.from {
		parent = t.ghost(r.parent, r.at)
	}
	p := t.procs[r.pid]
	if p != nil && p.from <= r.at && r.at <= p.until {
		p.from, p.until = r.at, r.at // known already, but not this exactly
		if parent != nil && parent.root == p.root {
			p.parent = parent
		}
		return true
	}
	if parent != nil && t.late(r, parent.root) {
		return true
	}
	t.reused(r)
	if parent == nil {
		return false
	}
	parent.root.counts.Forks++
	child := &process[K]{
		pid: r.pid, from: r.at, until: r.at, counted: true,
		parent: parent, sid: parent.sid, comm: parent.comm,
	}
	if p != nil && r.at < p.from {
		// The history tells of it when its number has been given on.
		child.root = parent.root
		t.past(child, p.from)
		return true
	}
	t.history.given(r.pid, r.at)
	t.insert(parent.root, child)
	return true
}

// late says whether the Fork is that of a member which was found before it arrived,
// and has ended since.
func (t *Tracker[K]) late(r *record, root *root[K]) bool {
	for i := range t.ghosts {
		p := t.ghosts[i].p
		if p.pid == r.pid && p.root == root && p.from != p.until && p.from <= r.at && r.at <= min(p.until, t.ghosts[i].until) {
			p.from, p.until = r.at, r.at
			return true
		}
	}
	return false
}

// reused notes that a number was given to the task of that Fork: who had it
// before has ended.
func (t *Tracker[K]) reused(r *record) {
	for i := range t.ghosts {
		if g := &t.ghosts[i]; g.p.pid == r.pid && r.at > g.p.from {
			g.until = min(g.until, r.at)
		}
	}
	for _, p := range t.owed {
		if p.pid == r.pid && r.at > p.from {
			p.free = min(p.free, r.at)
		}
	}
	if p := t.procs[r.pid]; p != nil && p.until < r.at {
		t.displace(p, r.at)
	}
}

// exit takes an Exit of one of the member's tasks.
func (t *Tracker[K]) exit(p *process[K], r *record) {
	if r.pid == r.tgid && r.at < p.leaderFrom {
		return // of a leader that an execve of another thread ended
	}
	if r.pid == r.tgid && p.counted && p.leaderGone && !p.doubted {
		return // an earlier process's: its own was heard
	}
	if r.pid == r.tgid {
		p.leaderGone, p.leaderAt, p.leaderCode = true, r.at, r.code
		p.orphaned = r.parent == 0
		switch t.whose(p, r) {
		case itsOwn:
			p.doubted, p.mixed, p.unsure, p.looking = false, false, false, 0
		case perhapsAnon:
			p.doubted, p.unsure = true, false
		case anyones:
			p.doubted, p.unsure = true, true
		}
	} else if _, ok := p.threads[r.pid]; ok {
		delete(p.threads, r.pid)
	} else if p.counted {
		return // ended by an execve that was heard before
	}
	p.lastAt, p.lastCode = r.at, r.code
	switch {
	case !p.leaderGone:
	case p.doubted || !p.counted:
		t.lookAt(p)
	case len(p.threads) == 0:
		t.end(p, p.status(), r.at)
	}
}

// insert makes p a member. p.parent is nil for a main process, and for one that
// was found.
func (t *Tracker[K]) insert(r *root[K], p *process[K]) {
	p.root = r
	p.next = r.members
	if p.next != nil {
		p.next.prev = p
	}
	r.members = p
	t.procs[p.pid] = p
	if p.pid == r.pid && !r.begun {
		r.main, r.begun = p, true
	} else {
		r.counts.Descendants++
	}
}

// unlink takes p from the living.
func (t *Tracker[K]) unlink(p *process[K]) {
	r := p.root
	if t.listing {
		t.leave(r, p)
	}
	if p.prev != nil {
		p.prev.next = p.next
	} else {
		r.members = p.next
	}
	if p.next != nil {
		p.next.prev = p.prev
	}
	// Its children hold on to it; what it held on to is to go.
	p.prev, p.next, p.parent = nil, nil, nil
	p.ended = true
	delete(t.procs, p.pid)
	if p == r.main {
		r.main, p.wasMain = nil, true
	} else {
		r.counts.Descendants--
	}
}

// end is the end of a living member with that wait status.
func (t *Tracker[K]) end(p *process[K], status uint32, at time.Duration) {
	t.unlink(p)
	t.close(p, status, at)
}

// close counts and tells the end of a member that was unlinked.
func (t *Tracker[K]) close(p *process[K], status uint32, at time.Duration) {
	if p.unsure {
		t.count(p, Unknown)
		return
	}
	ws := syscall.WaitStatus(status)
	reason := reasonOf(ws)
	t.count(p, reason)
	if p.wasMain || reason == Success {
		return
	}
	if len(t.crashes) == maxCrashes {
		t.missed++
		return
	}
	t.crashes = append(t.crashes, Crash[K]{
		Key: p.root.key, PID: p.pid, Started: p.started(), At: at, Status: ws,
		Execed: p.execed, Comm: p.comm, Coredump: p.coredump || ws.CoreDump(),
	})
}

// count counts the end of a descendant.
func (t *Tracker[K]) count(p *process[K], reason Reason) {
	if !p.wasMain {
		p.root.counts.Exits[reason]++
	}
}
