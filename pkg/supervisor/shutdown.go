package supervisor

import (
	"runtime/debug"
	"slices"

	"github.com/sentryd/sentryd/pkg/supervisor/fsm"
)

// This file is where the daemon's own end begins.

// gcWhileEnding is the least GOGC of a daemon that ends: what a thousand exits
// leave behind is not worth a collection in their midst.
const gcWhileEnding = 500

// shutDown begins a shutdown, or does nothing more when one has begun. All are told
// to end before what becomes of each is written down: one record says that there
// was a shutdown, and the rest follows from it, see adoption.endAll.
func (s *Supervisor) shutDown() {
	begun := s.machine.Stopping()
	s.decide(fsm.Shutdown{})
	if !begun {
		if was := debug.SetGCPercent(gcWhileEnding); was < 0 || was > gcWhileEnding {
			debug.SetGCPercent(was)
		}
		s.writeIntent()
		s.sendAll(s.actions)
		s.actions = slices.DeleteFunc(s.actions, isSend)
	}
	s.act()
}

func isSend(a fsm.Action) bool { _, is := a.(fsm.Send); return is }
