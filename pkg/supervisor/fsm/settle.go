package fsm

import "time"

const (
	sigKill = 9
	sigCont = 18
	// killRetry is the wait between one SIGKILL to a tree and the next, for
	// those of its processes that were forked meanwhile.
	killRetry = time.Second
)

// up reports whether the slot ought to have a process, policy aside.
func (m *Machine) up(s *slot) bool {
	return !m.stopping && !s.held && m.exists(s)
}

// exists reports whether the slot ought to exist.
func (m *Machine) exists(s *slot) bool {
	return !s.e.removed && s.n < s.e.count
}

// settle is the level pass: given what the slot ought to be and what it is,
// what next? It is called for every slot that an event touched, and does
// nothing when nothing is to be done.
func (m *Machine) settle(s *slot) {
	if s.gone {
		return
	}
	up := m.up(s)
	switch s.state {
	case Stopped:
		switch {
		case !m.exists(s):
			m.dropSlot(s)
			return
		case up:
			m.spawn(s)
		}
	case Backoff, Finished, Failed:
		if !up {
			m.rest(s)
			return
		}
	case Starting:
		// The answer to the start decides.
	case Running:
		if !up {
			s.restart = false
			m.beginStop(s, m.unwantedBy(s))
		}
	case Stopping:
		if !up {
			// Whatever was to follow is off: wanted again, it starts.
			s.restart, s.outcome = false, Stopped
		}
		if !s.live && !s.tree {
			m.endStop(s)
			return
		}
	}
	m.touch(s)
}

// rest puts a slot that holds nothing to rest.
func (m *Machine) rest(s *slot) {
	m.disarm(s)
	m.enter(s, Stopped)
	s.err = ""
	s.startFails = 0
	s.restart = false
	m.leaveRoll(s)
	m.settle(s)
}

// spawn asks for the next incarnation.
func (m *Machine) spawn(s *slot) {
	s.dueSet = s.state == Backoff && s.deadline <= m.now && s.startFails == 0
	s.due = s.deadline
	m.disarm(s)
	if s.restart || s.gen != s.e.roll.gen {
		s.startFails = 0 // asked for anew
	}
	s.restart = false
	s.inc++
	s.gen = s.e.roll.gen
	s.pending = true
	m.enter(s, Starting)
	m.act(Spawn{ID: s.id()})
	m.touch(s)
}

// unwantedBy says who asked that a slot that is not up be down.
func (m *Machine) unwantedBy(s *slot) Initiator {
	switch {
	case m.stopping:
		return ByShutdown
	case s.e.removed:
		return ByReload
	case s.n >= s.e.count:
		return s.e.countBy
	}
	return ByCommand
}

// beginStop sends the stop signal and sets the deadline for SIGKILL.
func (m *Machine) beginStop(s *slot, by Initiator) {
	s.stopBy = by
	s.outcome = Stopped
	m.terminate(s)
}

// terminate asks what lives of the slot's tree to end.
func (m *Machine) terminate(s *slot) {
	s.kills = 0
	m.enter(s, Stopping)
	if m.killing {
		m.kill(s)
		return
	}
	m.ask(s, m.scope(s))
	m.arm(s, m.now+s.e.StopTimeout)
}

// scope is whom the stop signal is for.
func (m *Machine) scope(s *slot) Scope {
	switch {
	case !s.live || s.e.StopSignal == sigKill:
		return ScopeTree
	case s.e.StopMode == StopGroup:
		return ScopeGroup
	}
	return ScopeMain
}

// ask sends the stop signal.
func (m *Machine) ask(s *slot, scope Scope) {
	s.told = false
	m.act(Send{ID: s.id(), Signal: s.e.StopSignal, Scope: scope, Wake: s.e.StopSignal != sigKill})
}

// kill sends SIGKILL to all that is left, and will again.
func (m *Machine) kill(s *slot) {
	s.kills++
	if s.kills > 1 {
		s.err = "does not end: SIGKILL was sent and something of it lives on"
	}
	m.act(Send{ID: s.id(), Signal: sigKill, Scope: ScopeTree})
	m.arm(s, m.now+killRetry)
}

// endStop follows the end of the last process of a stopped tree.
func (m *Machine) endStop(s *slot) {
	m.disarm(s)
	s.err = ""
	s.members, s.told = nil, false
	switch {
	case !m.up(s):
		m.rest(s)
	case s.restart || s.outcome == Stopped:
		m.spawn(s)
	default:
		m.conclude(s, s.outcome)
	}
}

// conclude settles a slot whose process ended by itself and left nothing.
func (m *Machine) conclude(s *slot, outcome State) {
	if outcome != Backoff {
		m.enter(s, outcome)
		m.leaveRoll(s)
		m.touch(s)
		return
	}
	due := s.exitedAt + s.e.Delay
	if due <= m.now {
		s.deadline = due // which nobody has to wait for
		m.enter(s, Backoff)
		m.spawn(s)
		return
	}
	m.arm(s, due)
	m.enter(s, Backoff)
}

// enter changes the slot's state. What the state waits for is set before.
func (m *Machine) enter(s *slot, to State) {
	s.e.states[s.state]--
	s.e.states[to]++
	s.state = to
	report := Entered{ID: s.id(), State: to}
	switch {
	case to == Backoff:
		report.Next = s.deadline
	case to == Stopping && s.live:
		report.By = s.stopBy
	}
	m.act(report)
}

// touch notes that a slot changed and keeps the sums over slots.
func (m *Machine) touch(s *slot) {
	e := s.e
	if busy := !s.gone && (s.pending || s.live || s.tree); busy != s.counted {
		s.counted = busy
		m.busy += toInt(busy) - toInt(!busy)
	}
	if wanted := !s.gone && m.up(s) && !s.over(); wanted != s.wanted {
		s.wanted = wanted
		e.desired += toInt(wanted) - toInt(!wanted)
	}
	if !s.dirty {
		s.dirty = true
		e.dirtySlots = append(e.dirtySlots, s)
	}
	m.noted.slot(s)
	m.noted.tally(e)
	m.show(e)
}

// over reports whether the slot's process ended for good by itself, what it
// left still being stopped or not.
func (s *slot) over() bool {
	return s.state == Finished || s.state == Stopping && s.outcome == Finished && !s.restart
}

func (m *Machine) touchEntry(e *entry) {
	m.noted.entry(e)
	m.show(e)
}

// show has an entry among the next changes.
func (m *Machine) show(e *entry) {
	if !e.dirty {
		e.dirty = true
		m.dirty = append(m.dirty, e)
	}
}

func toInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
