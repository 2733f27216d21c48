package lineage

import "time"

// Listing is what processes there are, read after some moment.
type Listing[K comparable] struct {
	// Begin is a reading of CLOCK_MONOTONIC from before the first of it was read.
	Begin time.Duration
	// Procs are the processes. All says that these are all of the host; without
	// it, members that are not among them are looked at one by one.
	Procs []Proc
	All   bool
	// Members are the pids in the cgroups of roots, for those that have one, read
	// after Begin and before Procs.
	Members map[K][]int32
}

// Rebuild brings the members in line with a listing. A member that is still
// there stays one; others become one by the cgroup that they are in, by their
// parent or by their session. What happened while the listing was read is taken
// from the events: so it is right at once, if they have arrived.
//
// It reports false, and changes nothing, when events were lost since the
// listing was begun, or more arrived than the history holds: make another.
// There may be something to [Tracker.Take] afterwards.
func (t *Tracker[K]) Rebuild(l Listing[K]) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l.Begin < t.since || l.Begin < t.history.gap {
		return false
	}
	b := rebuild[K]{t: t, l: &l, procs: make(map[int32]*Proc, len(l.Procs)), owners: make(map[int32]*root[K]), sessions: make(map[int32]*root[K])}
	for i := range l.Procs {
		b.procs[l.Procs[i].PID] = &l.Procs[i]
		b.end = max(b.end, l.Procs[i].Read)
	}
	// Roots that began before are in it, or gone.
	t.settlePending(max(t.seen, l.Begin))
	b.verify()
	b.listSessions()
	b.find()
	b.setParents()
	// The history has no gap from Begin on.
	t.replay(0, l.Begin, nil)
	t.listing = false
	clear(t.left)
	clear(t.sessions)
	return true
}

type rebuild[K comparable] struct {
	t        *Tracker[K]
	l        *Listing[K]
	procs    map[int32]*Proc
	owners   map[int32]*root[K] // by pid; nil for a stranger
	sessions map[int32]*root[K]
	found    []*process[K]
	end      time.Duration // when the last of it was read
}

// verify compares each member with what was listed at its pid.
func (b *rebuild[K]) verify() {
	for _, p := range b.t.procs {
		at := b.procs[p.pid]
		switch {
		case p.from >= b.l.Begin:
			// It began meanwhile, and what is listed may be an earlier process.
		case at == nil && !b.l.All:
			b.t.lookAt(p)
		case at == nil || !p.is(at):
			b.t.gone(p, b.end)
		case at.Dead():
			b.t.endAt(p, at)
		default:
			b.update(p, at)
		}
	}
}

// update takes over what was listed of a living member, where no event is
// newer.
func (b *rebuild[K]) update(p *process[K], at *Proc) {
	if p.from != p.until {
		p.from = max(p.from, at.Started-startJitter)
		p.until = max(p.from, min(p.until, at.Started+startSpread))
	}
	p.ticks = at.Ticks
	p.comm = at.Comm
	if at.SID == p.pid {
		p.sid = p.pid
	}
	if p.leaderAt < at.Read && p.leaderFrom <= at.Read {
		p.leaderGone = at.LeaderGone()
	}
	if !at.LeaderGone() {
		p.leaderFrom = max(p.leaderFrom, at.Read)
	}
	if p.leaderGone {
		// The Exits of its other tasks may have come since it was listed.
		b.t.lookAt(p)
	}
	// Threads that were heard of since and are not listed have ended, and their
	// exits are on the way.
	p.counted = p.counted || at.Threads == 1 && !at.LeaderGone()
}

// listSessions finds out whose the sessions are that members lead or led.
func (b *rebuild[K]) listSessions() {
	// The number of a session is not given to a process while the session has
	// members. So one whose leader is gone is the one that it was.
	left := func(sid int32, r *root[K]) {
		if at := b.procs[sid]; sid != 0 && b.t.roots[r.key] == r && (at == nil || at.Dead() || b.departed(at) == r) {
			b.sessions[sid] = r
		}
	}
	for sid, r := range b.t.sessions {
		left(sid, r)
	}
	for _, r := range b.t.roots {
		if at := b.procs[r.pid]; r.begun && r.main == nil && (at == nil || at.Started-startJitter <= r.at) {
			b.sessions[r.pid] = r
		}
	}
	for _, p := range b.t.procs {
		if at := b.procs[p.pid]; at != nil && p == p.root.main && p.from < b.l.Begin && at.SID == p.pid {
			p.root.leads = true
		}
	}
	for _, p := range b.t.procs {
		at := b.procs[p.pid]
		switch {
		case p.sid != 0 && (p.from >= b.l.Begin || p.sidAt >= b.l.Begin):
			b.sessions[p.sid] = p.root
		case at == nil:
			left(p.sid, p.root)
		case at.SID != 0 && (at.SID == p.pid || at.SID == p.sid || p.root.leads && p != p.root.main):
			// Where the main process leads one, no other member is in a session that
			// was not made by a member, heard of or not.
			b.sessions[at.SID] = p.root
			p.sid = at.SID
		}
	}
}

// find adds those that belong to a root and are not known.
func (b *rebuild[K]) find() {
	for key, pids := range b.l.Members {
		if r := b.t.roots[key]; r != nil && r.begun { // else its Fork is on the way
			for _, pid := range pids {
				b.claim(r, pid)
			}
		}
	}
	for i := range b.l.Procs {
		at := &b.l.Procs[i]
		if b.t.procs[at.PID] != nil || at.Dead() {
			continue
		}
		if b.departed(at) != nil {
			continue // it ended since it was listed
		}
		r := b.owner(at)
		if r == nil {
			continue
		}
		p := &process[K]{
			pid: at.PID, from: at.Started - startJitter, until: at.Started + startSpread, ticks: at.Ticks,
			comm: at.Comm, leaderGone: at.LeaderGone(), counted: at.Threads == 1 && !at.LeaderGone(),
		}
		if !p.leaderGone {
			p.leaderFrom = at.Read
		}
		b.found = append(b.found, p)
		b.owners[at.PID] = r
	}
	for _, p := range b.found {
		r, at := b.owners[p.pid], b.procs[p.pid]
		if at.SID == p.pid || b.sessions[at.SID] == r {
			p.sid = at.SID
		}
		r.counts.Found++
		b.t.insert(r, p)
	}
}

// claim makes a pid in a root's cgroup that root's.
func (b *rebuild[K]) claim(r *root[K], pid int32) {
	at := b.procs[pid]
	_, left := b.t.left[pid]
	switch {
	case b.t.procs[pid] != nil || left:
	case at == nil:
		// It ended before Procs were read, or Procs are not all. Until its Exit comes it is
		// a parent whose Forks are known.
		p := &process[K]{pid: pid, until: max(b.l.Begin, b.t.seen) + startSpread}
		r.counts.Found++
		b.t.insert(r, p)
		b.t.lookAt(p)
	case at.Started-startJitter <= b.l.Begin:
		b.owners[pid] = r // one that started later is known by its Fork
	}
}

// owner returns whose a listed process is, or nil.
func (b *rebuild[K]) owner(at *Proc) *root[K] {
	if p := b.t.procs[at.PID]; p != nil {
		return p.root
	}
	if r := b.departed(at); r != nil {
		return r
	}
	if r, ok := b.owners[at.PID]; ok {
		return r
	}
	r := b.sessions[at.SID]
	if r == nil {
		b.owners[at.PID] = nil // ends a circle of parents, which pids reused while reading could make
		// A parent that started later is another process than the one meant.
		if parent := b.procs[at.PPID]; parent != nil && parent.Ticks <= at.Ticks {
			r = b.owner(parent)
		}
	}
	b.owners[at.PID] = r
	return r
}

// departed is a member that ended while a listing was wanted.
type departed[K comparable] struct {
	root  *root[K]
	until time.Duration // its fork was not after that
}

// departed returns whose a listed process was, if it has ended since, or nil.
func (b *rebuild[K]) departed(at *Proc) *root[K] {
	d, ok := b.t.left[at.PID]
	if !ok || at.Started-startJitter > d.until || b.t.roots[d.root.key] != d.root {
		return nil
	}
	return d.root
}

// setParents connects members with the parents they were listed with.
func (b *rebuild[K]) setParents() {
	for _, p := range b.t.procs {
		at := b.procs[p.pid]
		if at == nil || p.parent != nil && !p.parent.ended || p.from >= b.l.Begin {
			continue
		}
		if parent := b.t.procs[at.PPID]; parent != nil && parent.root == p.root && parent.from < p.until {
			p.parent = parent
		}
	}
}
