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
			return false
		}
		p.root.counts.Execs++
		p.execed = true
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
		p.sid, p.sidAt = p.pid, r.at
	case procevents.Coredump:
		p := t.member(r)
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

func (t *Tracker[K]) forkThread(r *record) bool {
	p := t.member(r)
	if p == nil {
		return false
	}
	if p.threads == nil {
		p.threads = make(map[int32]struct{})
	}
	p.threads[r.pid] = struct{}{}
	return true
}

func (t *Tracker[K]) forkProcess(r *record) bool {
	p := t.procs[r.pid]
	parent := t.procs[r.parent]
	if parent == nil || r.at < parent.from {
		parent = t.ghost(r)
	}
	for i := range t.ghosts { // from now on the pid is another's
		if g := &t.ghosts[i]; g.p.pid == r.pid && r.at > g.p.from {
			g.until = min(g.until, r.at)
		}
	}
	switch {
	case p == nil:
	case r.at < p.from:
		return false // of an earlier process
	case r.at <= p.until:
		p.from, p.until = r.at, r.at // known already, but not this exactly
		if parent != nil && parent.root == p.root {
			p.parent = parent
		}
		return true
	default:
		t.displace(r.pid, r.at)
	}
	if parent == nil {
		return false
	}
	parent.root.counts.Forks++
	t.insert(parent.root, &process[K]{
		pid: r.pid, from: r.at, until: r.at, counted: true,
		parent: parent, sid: parent.sid, comm: parent.comm,
	})
	return true
}

// displace ends the member of that pid, which has been given to another
// process. Its own exits, unless they all arrived, come late.
func (t *Tracker[K]) displace(pid int32, at time.Duration) {
	p := t.procs[pid]
	if p == nil {
		return
	}
	if earlier := t.owed[pid]; earlier != nil {
		delete(t.owed, pid)
		t.count(earlier, Unknown)
	}
	for other, o := range t.owed {
		if o.until+lateExit < at { // its Exit was taken for another's
			delete(t.owed, other)
			t.count(o, Unknown)
		}
	}
	t.unlink(p)
	p.until = at // from then on the pid is another's
	switch {
	case p.doubted || p.looking != 0:
		t.count(p, Unknown) // the Exit that was heard may be another's
		return
	case p.leaderGone && len(p.threads) == 0:
		t.close(p, p.status(), p.lastAt)
		return
	}
	t.owed[pid] = p
}

// exitOwed takes an Exit that is that of a displaced process. Once the pid is
// another's, the kernel no longer knows the parent of the leader that had it.
func (t *Tracker[K]) exitOwed(r *record) bool {
	p := t.owed[r.tgid]
	if p == nil {
		return false
	}
	if r.pid == r.tgid {
		if p.leaderGone || r.parent != 0 && r.at >= p.until {
			return false
		}
		p.leaderGone, p.leaderCode = true, r.code
	} else {
		if _, ok := p.threads[r.pid]; !ok {
			return false
		}
		delete(p.threads, r.pid)
	}
	p.lastCode = r.code
	// It may as well be that of the pid's new owner, released as early.
	if next := t.member(r); next != nil && r.pid == r.tgid && r.at >= p.until {
		next.mixed, p.unsure = true, true
		t.lookAt(next)
	}
	if p.leaderGone && len(p.threads) == 0 {
		delete(t.owed, r.tgid)
		t.close(p, p.status(), r.at)
	}
	return true
}

// exit takes an Exit of one of the member's tasks.
func (t *Tracker[K]) exit(p *process[K], r *record) {
	if r.pid == r.tgid && r.at < p.leaderFrom {
		return // of a leader that an execve of another thread ended
	}
	doubt := p.looking != 0 || !p.counted
	if r.pid == r.tgid {
		p.leaderGone, p.leaderAt, p.leaderCode = true, r.at, r.code
		p.unsure = false
		if !p.owns(r) {
			doubt, p.doubted, p.unsure = true, true, p.mixed || p.doubted
		}
	} else if _, ok := p.threads[r.pid]; ok {
		delete(p.threads, r.pid)
	} else if p.counted {
		return // ended by an execve that was heard before
	}
	p.lastAt, p.lastCode = r.at, r.code
	switch {
	case !p.leaderGone:
	case doubt:
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
		t.left[p.pid] = departed[K]{r, p.until}
		if p.sid != 0 {
			t.sessions[p.sid] = r
		}
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
