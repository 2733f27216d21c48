package spawn

import (
	"syscall"
	"time"
)

// overdue is called by the timer of a spawner: it looks whether the present phase
// of the present job, if there is one, has taken too long.
func (s *spawner) overdue() {
	p := s.p
	p.mu.Lock()
	defer p.mu.Unlock()
	s.timed = false
	if s.waiting || s.stuck != "" || p.closed {
		return
	}
	mono, _ := p.clock.Now()
	if left := p.timeout - (mono - time.Duration(s.since.Load())); left > 0 {
		s.setTimer(left)
		return
	}
	switch {
	case s.phase.CompareAndSwap(touching, abandoned):
		path := *s.what.Load()
		p.emit(failed(s.job.token, timedOut("open", path)))
		s.getStuck(path)
	case s.phase.Load() == abandoned: // by Pause
		s.getStuck(*s.what.Load())
	case s.phase.Load() == cloning:
		// There is no way to reach the child. Its event comes when it comes.
		s.getStuck(s.target.path)
	default:
		s.setTimer(p.timeout) // between two jobs
	}
	p.idle.Broadcast()
}

// getStuck takes the spawner out of the count and puts another in its place.
// p.mu is held.
func (s *spawner) getStuck(path string) {
	p := s.p
	s.stuck = path
	p.stick(path)
	p.live--
	if len(p.spawners)-p.live <= maxStuck {
		p.addSpawner()
	}
	if p.live == 0 {
		for !p.queue.empty() {
			p.emit(failed(p.queue.pop().token, &StartError{Op: "clone", Errno: syscall.EAGAIN}))
		}
	}
}

// stick notes that something waits for a path. p.mu is held.
func (p *Pool) stick(path string) {
	p.stuck[path]++
	p.hung.Store(int32(len(p.stuck)))
}

// unstick notes that it does no more. p.mu is held.
func (p *Pool) unstick(path string) {
	if p.stuck[path]--; p.stuck[path] == 0 {
		delete(p.stuck, path)
	}
	p.hung.Store(int32(len(p.stuck)))
}

// comeBack reports whether a spawner that hung no more is needed. p.mu is held.
func (s *spawner) comeBack() bool {
	p := s.p
	p.unstick(s.stuck)
	if p.live >= p.want {
		return false
	}
	s.stuck = ""
	p.live++
	s.setTimer(p.timeout)
	return true
}

// Pause stops starting children, as is needed before execve(2), or before
// close-on-exec is cleared on a descriptor. When it returns no clone is in
// flight, and the event of every child that was started is in the queue. It
// returns the tokens of those starts that were queued and will not be done;
// they are forgotten.
//
// From then on no child is reaped and none is forgotten, until Resume: what
// ends now ends for the next image, which Adopt tells of it. An exit that was
// taken before is in the queue. So what Children lists stays true, and its
// descriptors stay open, up to the execve.
//
// Pause waits for clones, at most Options.TouchTimeout, for a look at the trees
// of those that have just ended, and for signals to trees that were asked for.
func (p *Pool) Pause() (unstarted []Token) {
	defer p.bury() // what is not reaped by us is reaped by nobody
	p.mu.Lock()
	defer p.mu.Unlock()
	p.paused = true
	for s := range p.spawners {
		if s.phase.CompareAndSwap(touching, abandoned) {
			unstarted = append(unstarted, s.job.token)
		}
	}
	p.idle.Broadcast() // a spawner may wait for a flight
	p.awaitSpawners()
	unstarted = append(unstarted, p.ground()...)
	for !p.queue.empty() {
		unstarted = append(unstarted, p.queue.pop().token)
	}
	p.frozen = true
	for !p.closed && p.reporting() {
		p.idle.Wait()
	}
	return unstarted
}

// reporting reports whether an exit was taken whose event is not in the queue
// yet: its tree is being looked at; or whether a tree is still to be signaled.
// p.mu is held.
func (p *Pool) reporting() bool {
	if p.walking || len(p.orders) > 0 {
		return true
	}
	for _, c := range p.children {
		if c.ended && !c.reported {
			return true
		}
	}
	return false
}

// cloning reports whether a spawner has a job that it will report, or make a flight of.
// p.mu is held.
func (p *Pool) cloning() bool {
	for s := range p.spawners {
		if s.busy && s.stuck == "" && s.phase.Load() != abandoned {
			return true
		}
	}
	return false
}

// Resume undoes Pause.
func (p *Pool) Resume() {
	defer p.bury()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.paused, p.frozen = false, false
	p.work.Broadcast()
	if p.closed {
		return
	}
	for _, c := range p.children {
		switch {
		case !c.ended:
			p.collect(c, false)
		case len(c.watched) == 0:
			p.lookAt(c)
		}
	}
}
