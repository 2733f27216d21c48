package supervisor

import (
	"runtime/debug"
	"slices"
	"time"

	"github.com/sentryd/sentryd/pkg/supervisor/fsm"
)

// This file is where the daemon's own end begins.

// gcWhileEnding is the least GOGC of a daemon that ends: what a thousand exits
// leave behind is not worth a collection in their midst.
const gcWhileEnding = 500

// gatherFor is how long ends are let gather in the shutdown of many.
const gatherFor = 25 * time.Millisecond

// shutDown begins a shutdown, or does nothing more when one has begun. All are told
// to end before what becomes of each is written down: one record says that there
// was a shutdown, and the rest follows from it, see adoption.endAll. Where more is due to be
// written, that is done first.
func (s *Supervisor) shutDown() {
	begun := s.machine.Stopping()
	s.decide(fsm.Shutdown{})
	if !begun {
		if was := debug.SetGCPercent(gcWhileEnding); was < 0 || was > gcWhileEnding {
			debug.SetGCPercent(was)
		}
		s.writeIntent()
		s.sends = slices.Grow(s.sends, len(s.children))
		s.sendAll(s.actions)
		s.actions = slices.DeleteFunc(s.actions, isSend)
		s.gathering = true
	}
	s.act()
}

// gather waits a moment when many were told to end, or some of them have: those that
// are about to end go first, and what they leave is taken together. Nothing follows
// from an end in a shutdown but that of the last, and who asks for something is
// answered at once. due is when there is something to tell, 0 if there is nothing.
func (s *Supervisor) gather(due fsm.Instant) {
	if !s.gathering || len(s.children) < many {
		return
	}
	s.gathering = false // until one has ended
	d := s.patience(due)
	if d < 0 || d > gatherFor {
		d = gatherFor
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case r := <-s.requests:
		s.untold = true
		s.answer(r)
	case <-timer.C:
	}
}

func isSend(a fsm.Action) bool { _, is := a.(fsm.Send); return is }
