package fsm

// roll is a restart of an entry's slots, some at a time: the next one goes when
// the one before it runs. A slot that starts for another reason meanwhile is
// new already and is passed over; one that does not come up again holds the
// roll, so that a bad change takes down one batch and not the entry.
type roll struct {
	gen      uint64 // generation that every slot ought to have
	next     int    // first slot not yet looked at
	batch    int
	inflight int
	by       Initiator // who asked for it
	active   bool
}

// newGeneration makes every present incarnation of the entry an old one and
// ends the roll under way, if there is one.
func (m *Machine) newGeneration(e *entry) {
	m.noted.entry(e)
	for _, s := range e.slots {
		if s != nil && s.rolling {
			s.rolling = false
			m.noted.slot(s)
		}
	}
	e.roll = roll{gen: e.roll.gen + 1}
}

// startRoll replaces the incarnations that are not of the present generation.
func (m *Machine) startRoll(e *entry, batch int, by Initiator) {
	if batch <= 0 {
		batch = MaxCount
	}
	r := &e.roll
	r.batch, r.by, r.active = batch, by, true
	for _, s := range e.slots {
		if s != nil && s.state == Stopped {
			m.settle(s) // nothing to protect: it need not wait for its turn
		}
	}
	m.advanceRoll(e)
}

func (m *Machine) advanceRoll(e *entry) {
	m.noted.entry(e)
	r := &e.roll
	for r.active && r.inflight < r.batch {
		if r.next >= len(e.slots) {
			r.active = r.inflight > 0
			break
		}
		s := e.slots[r.next]
		r.next++
		if s == nil || s.gen == r.gen || !m.up(s) {
			continue
		}
		s.rolling = true
		r.inflight++
		m.replace(s, r.by)
	}
}

// missed reports whether the slot's incarnation is an old one and no roll will
// come to it: its start was under way when it was passed over as not wanted.
func (s *slot) missed() bool {
	r := &s.e.roll
	return s.gen != r.gen && (!r.active || s.n < r.next)
}

// leaveRoll takes a slot out of the batch under way and lets the next one go.
func (m *Machine) leaveRoll(s *slot) {
	if !s.rolling {
		return
	}
	s.rolling = false
	s.e.roll.inflight--
	m.noted.slot(s)
	m.advanceRoll(s.e)
}

// replace ends the slot's process, if it has one, and starts the next at once.
func (m *Machine) replace(s *slot, by Initiator) {
	s.restartBy = by
	switch s.state {
	case Stopped, Backoff, Finished, Failed:
		s.startFails = 0
		m.spawn(s)
	case Starting, Stopping:
		s.restart = true
		m.touch(s)
	case Running:
		s.restart = true
		m.beginStop(s, by)
		m.touch(s)
	}
}
