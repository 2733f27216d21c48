package fsm

import "fmt"

// What becomes of a slot by what happens below its main process.

// succeeds makes a descendant the main process in place of the one that exited,
// and reports whether it did: not when an end was asked for, which is then
// for the whole tree.
func (m *Machine) succeeds(s *slot, ev *Exited) bool {
	clean := ev.Status.Reason == ReasonExited && ev.Status.Code == 0
	if !s.e.Handover || s.state != Running || !clean || ev.TreeEmpty || ev.Successor <= 0 {
		return false
	}
	m.act(HandedOver{ID: ev.ID, From: s.pid, PID: ev.Successor, Wall: ev.Wall})
	s.pid = ev.Successor
	m.touch(s)
	return true
}

// descendantCrashed notes a crash below a main process. While that is being
// stopped, or has ended, crashes say nothing.
func (m *Machine) descendantCrashed(ev DescendantCrashed) {
	s := m.find(ev.ID)
	if s == nil || !s.live && !s.tree {
		m.ignored++
		return
	}
	limit := s.e.Crashes
	if limit.Within == 0 || s.state != Running {
		return
	}
	old := 0
	for old < len(s.crashes) && s.crashes[old] <= ev.At-limit.Within {
		old++
	}
	s.crashes = append(s.crashes[old:], ev.At)
	n := len(s.crashes)
	if n <= limit.Failures {
		m.touch(s)
		return
	}
	s.crashes = nil
	s.err = fmt.Sprintf("what it started crashes: %d times within %v", n, limit.Within)
	m.act(CrashLoop{ID: ev.ID, Count: n, Within: limit.Within, Restart: limit.Restart})
	if limit.Restart {
		m.replace(s, ByHealth)
		return
	}
	m.touch(s)
}

// forgetCrashes is for another limit: those under the old one say nothing of it.
func (m *Machine) forgetCrashes(e *entry) {
	for _, s := range e.slots {
		if s == nil {
			continue
		}
		s.crashes = nil
		if s.state == Running {
			s.err = "" // which can only be about crashes
		}
		m.touch(s)
	}
}
