package lineage

import (
	"cmp"
	"slices"
	"time"
)

// Process is one member as [Tracker.Tree] shows it.
type Process struct {
	PID int32
	// Parent is the member that forked it or that it was listed with, while
	// that lives; else 0, for a main process too.
	Parent  int32
	Depth   int           // how many such parents it has above it
	Started time.Duration // its fork, on CLOCK_MONOTONIC
	// SID is its session, if a member made that since it was heard of; else 0.
	SID int32
	// Threads is the number of its tasks that were heard of, the leader included.
	Threads    int
	Main       bool   // the root's main process
	Execed     bool   // it was heard to execute a program
	LeaderGone bool   // its first thread ended; others live
	Comm       string // its name as far as known; see [Crash]
}

// Counts returns a root's counts.
func (t *Tracker[K]) Counts(key K) (Counts, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.roots[key]
	if r == nil {
		return Counts{}, false
	}
	return r.counts, true
}

// Owner returns the root that a process is a member of.
func (t *Tracker[K]) Owner(pid int32) (key K, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.procs[pid]; p != nil {
		return p.root.key, true
	}
	return key, false
}

// Tree returns the living members of a root: each one's children follow it, and
// those without a living parent are at the top, the main process first, all
// in the order of their start.
func (t *Tracker[K]) Tree(key K) []Process {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.roots[key]
	if r == nil {
		return nil
	}
	children := make(map[*process[K]][]*process[K])
	n := 0
	for p := r.members; p != nil; p = p.next {
		parent := p.parent
		if parent != nil && parent.ended {
			parent = nil
		}
		children[parent] = append(children[parent], p)
		n++
	}
	for _, list := range children {
		slices.SortFunc(list, func(a, b *process[K]) int {
			switch r.main {
			case a:
				return -1
			case b:
				return 1
			}
			return cmp.Or(cmp.Compare(a.started(), b.started()), cmp.Compare(a.pid, b.pid))
		})
	}
	out := make([]Process, 0, n)
	var walk func(parent *process[K], depth int)
	walk = func(parent *process[K], depth int) {
		for _, p := range children[parent] {
			out = append(out, p.show(depth))
			walk(p, depth+1)
		}
	}
	walk(nil, 0)
	return out
}

func (p *process[K]) show(depth int) Process {
	s := Process{
		PID: p.pid, Depth: depth, Started: p.started(), SID: p.sid, Threads: len(p.threads) + 1,
		Main: p == p.root.main, Execed: p.execed, LeaderGone: p.leaderGone, Comm: p.comm,
	}
	if p.parent != nil && !p.parent.ended {
		s.Parent = p.parent.pid
	}
	if p.leaderGone {
		s.Threads--
	}
	return s
}
