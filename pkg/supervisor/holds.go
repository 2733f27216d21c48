package supervisor

import (
	"cmp"
	"slices"
	"time"

	"github.com/sentryd/sentryd/pkg/spawn"
	"github.com/sentryd/sentryd/pkg/supervisor/fsm"
)

// The proc connector tells of an exit after everybody else was told of it. So the
// end of a survivor of which it alone will tell is held, until it did, or cannot
// any more, or heldFor has passed.

// heldFor is how long an end is held at most.
const heldFor = time.Second

// hold is an end of a survivor that the machine was not told of yet.
type hold struct {
	child  *child
	events []spawn.Event // its Exited, and what came after
	until  fsm.Instant
}

// attendAll has the connector asked for the ends of the survivors of whom nobody
// else will tell, from now on or anew after a gap.
func (s *Supervisor) attendAll() {
	for _, t := range s.Processes.Untold() {
		c := s.children[t]
		if c == nil {
			continue
		}
		era, ok := s.Witness.attend(c.pid, t)
		if !ok {
			continue
		}
		if n, at, ok := s.Processes.Threads(t); ok {
			s.Witness.counted(c.pid, t, era, n, at)
		}
	}
}

// take gives the machine what there is to decide in news from pkg/spawn, unless
// it is about a survivor's end that is held. News of a token that is not known any
// more is none.
func (s *Supervisor) take(e *spawn.Event) {
	c := s.children[e.Token]
	if c == nil {
		return
	}
	if c.held != nil {
		c.held.events = append(c.held.events, *e)
		return
	}
	why := ""
	if e.Kind == spawn.Exited && !e.Status.Known {
		var v verdict
		if v, why = s.consult(c, e); v == pending {
			c.held = &hold{child: c, events: []spawn.Event{*e}, until: s.Clock.Now() + heldFor}
			s.holds = append(s.holds, c.held)
			return
		}
	}
	s.pass(c, e, why)
}

// consult asks the witness how c ended, and has e say so if that is known.
func (s *Supervisor) consult(c *child, e *spawn.Event) (v verdict, why string) {
	v, st, why := s.Witness.verdict(c.pid, c.token, e.At)
	if v == known {
		e.Status = st
	}
	return v, why
}

func (s *Supervisor) pass(c *child, e *spawn.Event, why string) {
	if ev := s.translate(c, e, why); ev != nil {
		s.decide(ev)
	}
}

// releaseHolds tells the machine of the ends that need not be held any more.
func (s *Supervisor) releaseHolds() {
	if len(s.holds) == 0 {
		return
	}
	now := s.Clock.Now()
	s.holds = slices.DeleteFunc(s.holds, func(h *hold) bool {
		v, why := s.consult(h.child, &h.events[0])
		if v == pending && now < h.until {
			return false
		}
		c := h.child
		c.held = nil
		for i := range h.events {
			if s.children[c.token] == c { // else it was given up meanwhile
				s.pass(c, &h.events[i], cmp.Or(why, whyNotTold))
			}
		}
		return true
	})
	s.act()
	s.dropHeirs()
}

// settleHolds waits until no end is held: who goes away cannot come back to it.
// No further one is seen meanwhile, so it takes no longer than heldFor.
func (s *Supervisor) settleHolds() {
	if len(s.holds) == 0 {
		return
	}
	patience := time.NewTimer(s.holds[len(s.holds)-1].until - s.Clock.Now())
	defer patience.Stop()
	for len(s.holds) > 0 {
		select {
		case <-s.Witness.ready:
			s.takeTestimony()
		case <-patience.C:
			s.releaseHolds()
		}
	}
}
