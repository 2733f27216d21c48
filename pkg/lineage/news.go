package lineage

import (
	"slices"
	"time"
)

// News is what the tracker has to tell and to ask.
type News[K comparable] struct {
	// Crashes are the descendants that ended badly since the last Take, in the
	// order in which that was heard. Missed are those left out, because more
	// than 4096 waited.
	Crashes []Crash[K]
	Missed  uint64

	// Looks are processes of which only a look tells whether they live; see
	// [Tracker.Answer]. Each is handed out once.
	Looks []Look

	// Listing: events were lost, or a root is older than them, and a listing of
	// the processes is wanted; see [Tracker.Rebuild]. It stays so until then.
	Listing bool
}

// Look names a process that is to be looked at.
type Look struct {
	PID        int32
	generation uint64
}

// Take returns what came up since the last call.
func (t *Tracker[K]) Take() News[K] {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := News[K]{Crashes: t.crashes, Missed: t.missed, Listing: t.listing}
	t.crashes, t.missed = nil, 0
	for _, p := range t.looks {
		p.waiting = false
		if !p.ended && p.looking != 0 {
			n.Looks = append(n.Looks, Look{p.pid, p.looking})
		}
	}
	t.looks = nil
	return n
}

// Listed reports whether what the tracker knows is whole: no listing is wanted.
func (t *Tracker[K]) Listed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.listing
}

func (t *Tracker[K]) hasNews() bool {
	return t.listing || len(t.crashes) > 0 || t.missed > 0 || len(t.looks) > 0
}

// lookAt asks for a look at p, one that is taken after now.
func (t *Tracker[K]) lookAt(p *process[K]) {
	if !p.waiting {
		p.waiting = true
		t.looks = append(t.looks, p)
	}
	t.looked++
	p.looking = t.looked
}

// Answer takes what was found at a process after its Look was handed out:
// found is false if there is no such pid; at.Read is needed even so. Should it be impossible to find out, ask
// for a listing by [Tracker.Lost].
func (t *Tracker[K]) Answer(l Look, found bool, at Proc) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.procs[l.PID]
	if p == nil || p.looking != l.generation {
		return // it ended, or there is a newer Look
	}
	p.looking = 0
	switch {
	case !found || !p.is(&at):
		t.gone(p, at.Read)
	case at.Dead() && !p.orphaned && !p.mixed:
		t.endAt(p, &at)
	case at.Dead(), !at.LeaderGone():
		// An execve followed, or the Exit was an earlier process's. That of a zombie
		// has a parent, and is to come if the one that was heard had none.
		if !at.Dead() {
			p.leaderFrom = max(p.leaderFrom, at.Read)
		}
		// It may even be a later process whose Fork has not arrived, so whose that
		// Exit was is not known.
		p.mixed = p.mixed || p.doubted
		p.doubted, p.orphaned = false, false
		p.leaderGone, p.leaderAt, p.leaderCode = false, 0, 0
		p.lastAt, p.lastCode = 0, 0
	case len(p.threads) == 0:
		p.counted = false // it has threads that were not heard of
	}
}

// ghost is a member whose end a look or listing told of. Forks of its own may
// be queued that did not arrive yet.
type ghost[K comparable] struct {
	p     *process[K]
	until time.Duration // none of those has a later timestamp
}

// ghost returns the ghost that had that pid at that moment, or nil.
func (t *Tracker[K]) ghost(pid int32, at time.Duration) *process[K] {
	for i := range t.ghosts {
		g := &t.ghosts[i]
		if g.p.pid == pid && at >= g.p.from && at <= g.until && t.roots[g.p.root.key] == g.p.root {
			return g.p
		}
	}
	return nil
}

// layGhosts forgets those of which nothing more can arrive: an event of later
// was heard.
func (t *Tracker[K]) layGhosts() {
	n := 0
	for n < len(t.ghosts) && t.ghosts[n].until < t.seen {
		n++
	}
	if n > 0 {
		t.ghosts = slices.Delete(t.ghosts, 0, n)
	}
}

// gone ends a member that a look or listing did not find at that moment.
func (t *Tracker[K]) gone(p *process[K], at time.Duration) {
	t.ghosts = append(t.ghosts, ghost[K]{p, at})
	switch {
	case p.leaderGone && p.lastAt >= t.since && p.lastAt != 0:
		t.end(p, p.status(), p.lastAt) // the exits of its last tasks were heard
	case p.mixed:
		t.unlink(p)
		t.owe(p, at)
	default:
		t.unlink(p)
		t.count(p, Unknown)
	}
}

// endAt ends a member that was found as a zombie.
func (t *Tracker[K]) endAt(p *process[K], at *Proc) {
	if at.StatusKnown {
		t.ghosts = append(t.ghosts, ghost[K]{p, at.Read})
		p.unsure = false
		t.end(p, uint32(at.Status), t.seen)
		return
	}
	t.gone(p, at.Read)
}

// is says whether a process that was found is that member and not a later one
// of its pid.
func (p *process[K]) is(at *Proc) bool {
	if p.ticks != 0 {
		return at.Ticks == p.ticks
	}
	return at.Started-startJitter <= p.until
}

const (
	// startJitter is by how much a start time may be off because two clocks are
	// not read at once.
	startJitter = time.Millisecond
	// startSpread is how much later than the start time in /proc, which is cut
	// to 10 ms, a Fork may be.
	startSpread = 50 * time.Millisecond
)
