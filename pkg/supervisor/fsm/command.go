package fsm

import "slices"

// Commands: what people and the configuration ask for.

func (m *Machine) configure(ev Configure) {
	if m.stopping {
		return
	}
	listed := make(map[string]bool, len(ev.Entries))
	for _, spec := range ev.Entries {
		listed[spec.Name] = true
		e := m.entries[spec.Name]
		if e == nil {
			m.act(EntryAdded{Entry: spec.Name})
			m.setCount(m.addEntry(spec), spec.Count, ByReload)
			continue
		}
		m.reconfigure(e, spec, ev.Restart[spec.Name])
	}
	var gone []*entry
	for _, e := range m.order {
		if !listed[e.Name] {
			gone = append(gone, e)
		}
	}
	for _, e := range gone {
		e.removed = true
		m.touchEntry(e)
		if e.present == 0 {
			m.dropEntry(e)
			continue
		}
		for n := len(e.slots) - 1; n >= 0; n-- {
			if s := e.at(n); s != nil {
				m.settle(s)
			}
		}
	}
}

// reconfigure changes in place what can be. The number of slots set by a scale
// stays until the configured one changes.
func (m *Machine) reconfigure(e *entry, spec Entry, restart bool) {
	count := e.count
	if spec.Count != e.Entry.Count || e.removed {
		count = spec.Count
	}
	if e.removed {
		// Configured again while the last of it was being stopped: as new.
		m.act(EntryAdded{Entry: e.Name})
		e.removed, e.held, e.count = false, !spec.Autostart, 0
		for _, s := range e.slots {
			if s != nil {
				s.held = e.held
				m.noted.slot(s)
			}
		}
		for n, r := range e.retired {
			e.retired[n] = Retired{Incarnation: r.Incarnation}
		}
		e.notedRetired = true
	}
	delay := e.Delay
	if e.Crashes != spec.Crashes {
		m.forgetCrashes(e)
	}
	e.Entry = spec
	if delay != spec.Delay {
		for _, s := range e.slots {
			if s != nil && s.state == Backoff && s.startFails == 0 {
				m.arm(s, s.exitedAt+spec.Delay)
				m.enter(s, Backoff) // anew: it ends at another time
			}
		}
	}
	if !restart {
		m.setCount(e, count, ByReload)
		return
	}
	m.newGeneration(e) // of which the slots that come now are already
	m.setCount(e, count, ByReload)
	m.startRoll(e, 1, ByReload)
}

func (m *Machine) start(ev Start) {
	e, slots, ok := m.command(ev.Entry, ev.Slot)
	if !ok {
		return
	}
	m.noted.entry(e)
	if ev.Slot == AllSlots {
		e.unhold()
	}
	for _, s := range slots {
		if s == nil {
			continue
		}
		s.held = false
		m.noted.slot(s)
		if !m.exists(s) {
			continue // on its way out; if it is wanted again before, it starts
		}
		switch s.state {
		case Stopped, Backoff, Finished, Failed:
			s.startFails = 0
			m.spawn(s)
		case Stopping:
			s.restart = true
			m.touch(s)
		default:
			m.touch(s)
		}
	}
}

func (m *Machine) stop(ev Stop) {
	e, slots, ok := m.command(ev.Entry, ev.Slot)
	if !ok {
		return
	}
	m.noted.entry(e)
	if ev.Slot == AllSlots {
		e.held = true
		e.roll.active = false
	}
	for _, s := range slots {
		if s != nil {
			s.held = true
			m.settle(s)
		}
	}
}

func (m *Machine) restart(ev Restart) {
	if ev.Batch < 0 {
		m.refuse(Invalid, "batch must not be negative")
		return
	}
	e, slots, ok := m.command(ev.Entry, ev.Slot)
	if !ok {
		return
	}
	m.noted.entry(e)
	if ev.Slot == AllSlots {
		e.unhold()
	}
	for _, s := range slots {
		if s != nil {
			s.held = false
			m.touch(s)
		}
	}
	if ev.Slot == AllSlots {
		m.newGeneration(e)
		m.startRoll(e, ev.Batch, ByCommand)
		return
	}
	m.replace(slots[0], ByCommand)
}

func (m *Machine) scale(ev Scale) {
	if ev.Count < 0 || ev.Count > MaxCount {
		m.refuse(Invalid, "count must be from 0 to 10000")
		return
	}
	e, _, ok := m.command(ev.Entry, AllSlots)
	if !ok {
		return
	}
	m.setCount(e, ev.Count, ByScale)
}

func (m *Machine) signal(ev Signal) {
	_, slots, ok := m.targets(ev.Entry, ev.Slot)
	if !ok {
		return
	}
	sent := false
	for _, s := range slots {
		if s != nil && s.live {
			m.act(Send{ID: s.id(), Signal: ev.Signal, Scope: ScopeMain})
			sent = true
		}
	}
	if !sent {
		name := ev.Entry
		if ev.Slot != AllSlots {
			name = slotName(ev.Entry, ev.Slot)
		}
		m.refuse(Conflict, "no process to signal: "+name+" is not running")
	}
}

// unhold lets slots that come be up, those that had been stopped included.
func (e *entry) unhold() {
	e.held = false
	for n, r := range e.retired {
		r.Held = false
		e.retired[n] = r
	}
	e.notedRetired = true
}

// command is targets for commands that a daemon which is stopping refuses.
func (m *Machine) command(name string, n int) (*entry, []*slot, bool) {
	if m.stopping {
		m.refuse(Unavailable, "the daemon is stopping")
		return nil, nil, false
	}
	return m.targets(name, n)
}

func (m *Machine) shutdown() {
	m.stopping, m.noted.whole = true, true
	m.actions = slices.Grow(m.actions, 2*m.busy) // all of these are told, and say so
	for _, e := range m.order {
		e.roll.active = false
		m.noted.entry(e)
		for _, s := range e.slots {
			if s != nil {
				m.settle(s)
			}
		}
	}
}

func (m *Machine) killAll() {
	if !m.stopping {
		return
	}
	m.killing, m.noted.whole = true, true
	for _, e := range m.order {
		for _, s := range e.slots {
			if s != nil && s.state == Stopping {
				m.kill(s)
			}
		}
	}
}
