package fsm

// Events about processes: what became of a start, an end, the rest of a tree,
// and the passing of time.

func (m *Machine) spawned(ev Spawned) {
	s := m.find(ev.ID)
	if s == nil || !s.pending {
		m.ignored++
		return
	}
	e := s.e
	s.pending, s.live, s.tree = false, true, true
	s.pid = ev.PID
	s.startedAt, s.startedWall = ev.At, ev.Wall
	s.startFails, s.err, s.crashes = 0, "", nil
	e.counters.Starts++
	if s.dueSet {
		s.dueSet = false
		e.counters.RestartLatency.observe(LatencyBounds, ev.At-s.due)
	}
	m.enter(s, Running)
	m.act(Started{ID: ev.ID, PID: ev.PID, Wall: ev.Wall})
	switch {
	case !m.up(s):
		m.leaveRoll(s)
	case s.restart:
		m.beginStop(s, s.restartBy)
	case s.missed():
		m.beginStop(s, e.roll.by)
	default:
		m.leaveRoll(s)
	}
	m.settle(s)
}

func (m *Machine) spawnFailed(ev SpawnFailed) {
	s := m.find(ev.ID)
	if s == nil || !s.pending {
		m.ignored++
		return
	}
	s.pending, s.dueSet = false, false
	s.startFails++
	s.err = ev.Message
	s.last = &Exit{
		Status: Status{Reason: ReasonStartFailed}, At: ev.At, Wall: ev.Wall,
		Incarnation: s.inc, Error: ev.Message,
	}
	s.e.counters.failedStart(ev.Errno)
	m.act(Ended{ID: ev.ID, Exit: s.last})
	if s.restart && m.up(s) {
		m.spawn(s)
		return
	}
	m.arm(s, ev.At+s.e.startRetry(s.startFails))
	m.enter(s, Backoff)
	m.settle(s)
}

// spawnLost does not ask for the start again: it may have happened, and the
// process have done what it was there for.
func (m *Machine) spawnLost(ev SpawnLost) {
	s := m.find(ev.ID)
	if s == nil || !s.pending {
		m.ignored++
		return
	}
	s.pending, s.dueSet = false, false
	s.startFails, s.err = 0, ""
	s.exitedAt = ev.At
	s.last = &Exit{Status: Status{Reason: ReasonUnknown}, At: ev.At, Wall: ev.Wall, Incarnation: s.inc, Error: ev.Why}
	s.e.counters.Starts++
	s.e.counters.Count(s.last)
	m.act(Ended{ID: ev.ID, Exit: s.last})
	switch {
	case !m.up(s):
		m.rest(s)
	case s.restart:
		m.spawn(s)
	default:
		m.conclude(s, s.e.after(s.last))
		m.settle(s)
	}
}

func (m *Machine) withdrawn(ev Withdrawn) {
	s := m.find(ev.ID)
	if s == nil || !s.pending || m.up(s) {
		m.ignored++
		return
	}
	s.pending, s.dueSet = false, false
	m.rest(s)
}

func (m *Machine) exited(ev Exited) {
	s := m.find(ev.ID)
	if s == nil || !s.live {
		m.ignored++
		return
	}
	e := s.e
	asked := s.state == Stopping
	if m.succeeds(s, &ev) {
		return
	}
	x := &Exit{
		Status: ev.Status, At: ev.At, Wall: ev.Wall, PID: s.pid,
		Incarnation: s.inc, Uptime: ev.At - s.startedAt, Error: ev.Why,
	}
	switch {
	case asked:
		x.Initiator = s.stopBy
	case x.OOM:
		x.Initiator = ByOOM
	}
	s.live, s.pid, s.last = false, 0, x
	s.tree = !ev.TreeEmpty
	s.members = ev.Members
	s.exitedAt = ev.At
	e.counters.Count(x)
	e.counters.OOMKills += ev.OOMKills
	m.act(Ended{ID: ev.ID, Exit: x})
	if asked {
		if s.tree && e.StopMode == StopTree && s.kills == 0 {
			m.ask(s, ScopeTree) // the deadline stays that of the first signal
		}
		m.settle(s)
		return
	}
	if s.tree && e.StopMode == StopProcess {
		s.tree, s.members = false, nil
		m.act(Release{ID: ev.ID})
	}
	s.outcome = e.after(x)
	if s.tree {
		// What is left is stopped in the same way before the slot goes on.
		m.terminate(s)
		m.settle(s)
		return
	}
	tallied := e.tallied
	m.conclude(s, s.outcome)
	m.settle(s)
	if s.pending && ev.OOMKills == 0 {
		// A start is waited for, and when it has happened there is another tally.
		// Until then the slot's Last tells of this exit.
		e.tallied = tallied
	}
}

func (m *Machine) treeEmpty(ev TreeEmpty) {
	s := m.find(ev.ID)
	if s == nil || s.live || !s.tree {
		m.ignored++
		return
	}
	s.tree = false
	m.settle(s)
}

// stragglers takes in who holds up a stop. While the main process lives it is
// that, and needs no naming.
func (m *Machine) stragglers(ev Stragglers) {
	s := m.find(ev.ID)
	switch {
	case s == nil || !s.tree:
		m.ignored++
	case !s.live:
		s.members = ev.Members
		m.touch(s)
	}
}

func (m *Machine) tick() {
	for len(m.deadlines) > 0 && m.deadlines[0].deadline <= m.now {
		s := m.deadlines[0]
		switch s.state {
		case Backoff:
			m.spawn(s)
		case Stopping:
			m.kill(s)
		default:
			m.disarm(s)
		}
	}
}

func (m *Machine) told(ev Told) {
	s := m.find(ev.ID)
	if s == nil || s.state != Stopping {
		m.ignored++
		return
	}
	s.told = true
	m.noted.slot(s)
}

// retell has those told that were told once woken up again: nobody knows whether they were.
func (m *Machine) retell() {
	for _, e := range m.order {
		for _, s := range e.slots {
			switch {
			case s == nil || s.state != Stopping || s.kills > 0:
			case s.told:
				m.act(Send{ID: s.id(), Signal: sigCont, Scope: m.scope(s)})
			default:
				m.ask(s, m.scope(s))
				m.arm(s, m.now+s.e.StopTimeout)
			}
		}
	}
}

func (m *Machine) reissue() {
	// All of them first: to give one up may start another, or end an entry.
	var lost []*slot
	for _, e := range m.order {
		for _, s := range e.slots {
			if s != nil && s.pending {
				lost = append(lost, s)
			}
		}
	}
	for _, s := range lost {
		if !m.up(s) {
			m.withdrawn(Withdrawn{ID: s.id()})
			continue
		}
		s.restart = false
		s.gen = s.e.roll.gen
		m.noted.slot(s)
		m.act(Spawn{ID: s.id()})
	}
}
