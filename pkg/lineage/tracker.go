package lineage

import (
	"os"
	"sync"
	"time"

	"github.com/sentryd/sentryd/pkg/procevents"
)

// DefaultHistory is how many events about strangers are kept by a Tracker made
// with a history of 0. They take 40 bytes each.
const DefaultHistory = 16384

// maxCrashes bounds the crashes that wait to be taken.
const maxCrashes = 4096

// Tracker keeps the members of the roots. K names a root: one incarnation of
// what the caller runs. Make it with [New].
//
// It is safe for concurrent use; the package comment says who is meant to call
// what. All times are CLOCK_MONOTONIC.
type Tracker[K comparable] struct {
	self int32 // the pid of this process

	mu    sync.Mutex
	roots map[K]*root[K]
	procs map[int32]*process[K] // members that live, by pid
	// owed has members that had ended, or whose pid was given on, before all of
	// their Exits arrived.
	owed    []*process[K]
	pending []*root[K] // added, and the Fork has not arrived
	ghosts  []ghost[K]
	history *history

	since time.Duration // all that happens from then on is heard
	seen  time.Duration // the latest timestamp applied

	listing bool // a listing is wanted
	// While it is, members that end are kept in mind: a listing that is being made
	// may show them as living, and there may be children of theirs, or processes left
	// in their sessions, that nobody heard of.
	left     map[int32]departed[K] // by pid
	sessions map[int32]*root[K]
	looks    []*process[K]
	looked   uint64 // generation of the latest look
	crashes  []Crash[K]
	missed   uint64
}

// New returns a Tracker without roots that keeps the last history events about
// processes that are no members, or DefaultHistory of them if that is 0. An
// event has to be among them when the root that it concerns is added; if it is
// not, a listing is wanted.
func New[K comparable](history int) *Tracker[K] {
	if history <= 0 {
		history = DefaultHistory
	}
	return &Tracker[K]{
		self: int32(os.Getpid()), roots: make(map[K]*root[K]), procs: make(map[int32]*process[K]),
		left: make(map[int32]departed[K]), sessions: make(map[int32]*root[K]), history: newHistory(history),
	}
}

// Lost says that from since on every event is applied, and that of those before
// it some may be missing. It is called when a subscription begins and after each
// overrun, with a clock reading taken after the socket took events again (that
// is, after an error that matches procevents.ErrLost was returned). If there are roots a listing is wanted from
// then on; see [Tracker.Rebuild].
func (t *Tracker[K]) Lost(since time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.since = max(t.since, since)
	t.seen = max(t.seen, since)
	t.history.clear(since)
	for _, p := range t.owed {
		t.count(p, Unknown)
	}
	t.owed = nil
	for _, p := range t.procs {
		p.counted, p.threads = false, nil
	}
	t.settlePending(t.seen)
	if len(t.roots) == 0 {
		return
	}
	t.listing = true
	for _, g := range t.ghosts { // a look told of their end, perhaps after the last event before the gap
		if r := g.p.root; t.roots[r.key] == r {
			t.leave(r, g.p)
		}
	}
}

// leave keeps in mind a member that ended while a listing is wanted.
func (t *Tracker[K]) leave(r *root[K], p *process[K]) {
	t.left[p.pid] = departed[K]{r, p.until}
	if p.sid != 0 {
		t.sessions[p.sid] = r
	}
}

// Apply takes in events in the order of their arrival. The slice is not kept.
// It reports whether there is something to [Tracker.Take].
func (t *Tracker[K]) Apply(events []procevents.Event) (news bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range events {
		e := &events[i]
		switch e.Kind {
		case procevents.Fork, procevents.Exec, procevents.Exit, procevents.SID, procevents.Coredump:
			if e.Timestamp > t.seen {
				t.seen = e.Timestamp
				if len(t.pending) > 0 {
					t.settlePending(t.seen)
				}
			}
			if len(t.ghosts) > 0 {
				t.layGhosts()
			}
			if r := recordOf(e); !t.match(&r) {
				t.history.push(r)
				if len(t.pending) > 0 && r.kind == procevents.Fork {
					t.settlePending(t.seen)
				}
			}
		case procevents.Comm:
			if p := t.procs[e.TGID]; p != nil && !e.IsThread() && e.Timestamp >= p.from {
				p.comm = commOf(e.Comm[:])
			}
		}
	}
	if len(t.owed) > 0 {
		t.giveUp()
	}
	return t.hasNews()
}

// Add makes the process a root's main process. At the moment at it must have
// been running or not yet reaped; any such moment will do, for example when the
// clone returned. It does not matter whether its events have arrived. Add
// reports false, and does nothing, if there is a root of that key.
//
// Where the events do not reach back to its fork, as for a process that was
// adopted, a listing is wanted.
func (t *Tracker[K]) Add(key K, pid int32, at time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.roots[key] != nil {
		return false
	}
	r := &root[K]{key: key, pid: pid, at: at}
	t.roots[key] = r
	t.pending = append(t.pending, r)
	t.settlePending(t.seen)
	return true
}

// Remove forgets a root and its members, whether they live or not, and returns
// its last counts.
func (t *Tracker[K]) Remove(key K) (Counts, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.roots[key]
	if r == nil {
		return Counts{}, false
	}
	delete(t.roots, key)
	counts := r.counts
	for i, q := range t.pending {
		if q == r {
			t.pending = append(t.pending[:i], t.pending[i+1:]...)
			break
		}
	}
	t.dropOwed(r)
	for p := r.members; p != nil; {
		next := p.next
		delete(t.procs, p.pid)
		p.ended, p.parent, p.prev, p.next = true, nil, nil, nil
		p = next
	}
	return counts, true
}

// Promote makes a descendant the main process of its root, for a program that
// hands over to its successor. A main process that lives on becomes a
// descendant. It reports whether the root has such a descendant.
func (t *Tracker[K]) Promote(key K, pid int32) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	r, p := t.roots[key], t.procs[pid]
	if r == nil || p == nil || p.root != r || p == r.main {
		return false
	}
	r.counts.Descendants--
	if r.main != nil {
		r.counts.Descendants++
	}
	r.main, r.pid, r.at = p, pid, p.until
	return true
}

// settlePending looks for the Forks of roots that were added. seen is the
// latest timestamp applied.
func (t *Tracker[K]) settlePending(seen time.Duration) {
	keep := t.pending[:0]
	for _, r := range t.pending {
		// After an event from later than r.at no earlier one is outstanding. Before
		// that, one that we forked ourselves and that did not end must be the root's,
		// since its pid is not reused before we reap it.
		n := t.history.fork(r.pid, r.at)
		switch {
		case n != 0 && (seen > r.at || t.history.at(n).parent == t.self && !t.history.ended(r.pid, n)):
			t.replayRoot(r, n)
		case seen > r.at:
			t.assume(r)
		default:
			keep = append(keep, r)
		}
	}
	clear(t.pending[len(keep):])
	t.pending = keep
}

// replayRoot begins a root at its Fork, number n of the history.
func (t *Tracker[K]) replayRoot(r *root[K], n uint64) {
	fork := t.history.at(n)
	p := &process[K]{pid: r.pid, from: fork.at, until: fork.at, counted: true}
	later := t.procs[r.pid]
	if later != nil && later.from <= fork.at {
		t.displace(later, fork.at)
		later = nil
	}
	fork.kind = procevents.Unknown
	if later == nil {
		t.insert(r, p)
	} else { // it was reaped, and its number given on
		r.begun, p.root, p.wasMain = true, r, true
		t.past(p, later.from)
	}
	t.replay(n+1, 0, r)
}

// assume begins a root whose Fork was not heard.
func (t *Tracker[K]) assume(r *root[K]) {
	if p := t.procs[r.pid]; p != nil {
		t.displace(p, r.at)
	}
	t.insert(r, &process[K]{pid: r.pid, until: r.at})
	t.listing = true
}

// replay applies what the history has, from record n on and from that time on,
// now that there are members to which it may belong. With only set it does so for
// that root: for the members of others it is old news.
func (t *Tracker[K]) replay(n uint64, from time.Duration, only *root[K]) {
	for n = max(n, t.history.first); n <= t.history.last; n++ {
		r := t.history.at(n)
		if r.kind == procevents.Unknown || r.at < from || only != nil && !t.concerns(only, r) {
			continue
		}
		t.history.replaying = n
		if t.match(r) {
			r.kind = procevents.Unknown
		}
	}
	t.history.replaying = 0
}

// concerns says whether the record is about a member of the root, or its child.
func (t *Tracker[K]) concerns(root *root[K], r *record) bool {
	if t.of(root, r.tgid, r.at) {
		return true
	}
	return r.kind == procevents.Fork && r.pid == r.tgid && t.of(root, r.parent, r.at)
}

// of says whether a process of that pid and moment is, or was, the root's.
func (t *Tracker[K]) of(root *root[K], pid int32, at time.Duration) bool {
	if p := t.procs[pid]; p != nil && at >= p.from {
		return p.root == root
	}
	if p := t.ghost(pid, at); p != nil {
		return p.root == root
	}
	for _, p := range t.owed {
		if p.pid == pid && p.root == root && at >= p.from {
			return true
		}
	}
	return false
}
