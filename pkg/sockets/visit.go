package sockets

import (
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// The file of a unix socket may be on a file system that hangs. So whatever looks
// at it runs in a goroutine of its own, a visit, one at a time for each socket: it
// gets a copy of what the Set knows, and what comes of it is taken in by the
// Set's goroutine.

// patience is how long a request waits for a file system, as long as pkg/spawn does.
const patience = 4 * time.Second

// maxVisits is how many visits there are at once. Each that hangs has a thread.
const maxVisits = 8

// A Want is a socket that a program is to be started with.
type Want struct {
	Spec  *Spec
	Index int // see Spec.ReusePort
}

func (w *Want) key() Key { return w.Spec.key(w.Index) }

// A request is one call of Open that waits for visits.
type request struct {
	list   []Want
	left   int  // visits that have not ended
	opened bool // a socket that was not open before
	over   bool // then was called
	then   func(fds []int, opened bool, err error)
	timer  *time.Timer
}

// A step is what a visit does: to open a socket, or to remove one with its file.
type step struct {
	spec *Spec    // nil: remove
	of   *request // nil: of nobody that waits
}

// news is what visits and timers have for the Set's goroutine.
type news struct {
	ready chan struct{}
	wake  func()
	mu    sync.Mutex
	list  []func()
}

func (n *news) post(f func()) {
	n.mu.Lock()
	n.list = append(n.list, f)
	n.mu.Unlock()
	select {
	case n.ready <- struct{}{}:
	default: // it is to be read already
	}
	if n.wake != nil {
		n.wake()
	}
}

// Notify has a function called, from any goroutine, when there is something for Take.
// It comes before the first Open.
func (s *Set) Notify(wake func()) { s.news.wake = wake }

// Ready is a channel from which one can receive when there is something for Take.
func (s *Set) Ready() <-chan struct{} { return s.news.ready }

// Take takes in what came of visits, and calls the functions of Open that have
// waited for it.
func (s *Set) Take() {
	s.news.mu.Lock()
	list := s.news.list
	s.news.list = nil
	s.news.mu.Unlock()
	for _, f := range list {
		f()
	}
}

// enqueue has a step done after those of the same socket.
func (s *Set) enqueue(key Key, st step) {
	s.steps[key] = append(s.steps[key], st)
	if len(s.steps[key]) == 1 {
		s.due = append(s.due, key)
	}
	s.visit()
}

// visit begins what is due, as far as there may be more visits.
func (s *Set) visit() {
	for s.visits < maxVisits && len(s.due) > 0 {
		key := s.due[0]
		s.due = s.due[1:]
		st := s.steps[key][0]
		if st.of != nil && st.of.over { // nobody waits for it any more
			s.next(key)
			continue
		}
		s.visits++
		was := s.open[key]
		if st.spec == nil {
			delete(s.open, key)
			delete(s.untold, key)
		}
		go func() {
			s.before(key.Address)
			it, err := st.do(key, was)
			s.news.post(func() { s.visited(key, st, it, err) })
		}()
	}
}

// do is the part of a step that may hang. was is not written to.
func (st *step) do(key Key, was *socket) (*socket, error) {
	if st.spec != nil {
		return open(st.spec, key, was)
	}
	if was != nil {
		was.close(key)
	}
	return nil, nil
}

// visited takes in the end of a visit.
func (s *Set) visited(key Key, st step, it *socket, err error) {
	s.visits--
	if it != nil {
		switch made := s.open[key] == nil || s.open[key].cookie != it.cookie; {
		case made && !st.of.over:
			st.of.opened = true
		case made:
			s.untold[key] = true
		}
		s.open[key] = it
	}
	s.next(key)
	s.visit()
	switch r := st.of; {
	case r == nil || r.over:
	case err != nil:
		s.finish(r, err)
	default:
		if r.left--; r.left == 0 {
			s.finish(r, nil)
		}
	}
}

// next takes a step that is done off its queue.
func (s *Set) next(key Key) {
	if s.steps[key] = s.steps[key][1:]; len(s.steps[key]) == 0 {
		delete(s.steps, key)
		return
	}
	s.due = append(s.due, key)
}

// expire ends a request that has waited for long enough. What it waited for goes
// on, and the next request may find it done.
func (s *Set) expire(r *request) {
	if r.over {
		return
	}
	for i := range r.list {
		w := &r.list[i]
		if slices.ContainsFunc(s.steps[w.key()], func(st step) bool { return st.of == r }) {
			s.finish(r, w.Spec.fail("bind", unix.ETIMEDOUT))
			return
		}
	}
}

// finish tells whoever asked.
func (s *Set) finish(r *request, err error) {
	r.over = true
	if r.timer != nil {
		r.timer.Stop()
	}
	fds := make([]int, 0, len(r.list))
	for i := range r.list {
		key := r.list[i].key()
		r.opened = r.opened || s.untold[key]
		delete(s.untold, key)
		switch it := s.open[key]; {
		case it != nil:
			fds = append(fds, it.fd)
		case err == nil:
			err = r.list[i].Spec.fail("open", unix.EBADF) // dropped meanwhile
		}
	}
	if err != nil {
		fds = nil
	}
	r.then(fds, r.opened, err)
}
