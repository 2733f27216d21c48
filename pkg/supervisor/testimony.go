package supervisor

import (
	"github.com/sentryd/sentryd/pkg/supervisor/fsm"
	"github.com/sentryd/sentryd/pkg/view"
)

// takeTestimony acts on news of the connector: after a loss everything tracked
// is looked at again.
func (s *Supervisor) takeTestimony() {
	for _, c := range s.descent.takeCrashes() {
		s.step(fsm.DescendantCrashed{ID: c.Key, At: c.At})
	}
	resync, status, failure := s.Witness.take()
	if resync {
		s.Witness.resyncs.Add(1)
		for t, c := range s.children {
			if c.pid != 0 {
				s.Processes.Look(t)
			}
		}
	}
	if resync || status != nil && status.Up {
		s.attendAll()
	}
	s.releaseHolds()
	if status == nil {
		return
	}
	s.publisher.daemon.ProcConnector = *status
	s.significant = true
	if !status.Up {
		s.tellDaemon(view.EventConnectorDown, status.Reason)
		s.Log.Warn("the proc connector is not heard; exits are still seen by pidfd", "reason", status.Reason)
		return
	}
	s.tellDaemon(view.EventConnectorUp, "")
	s.Log.Info("the proc connector is heard again", "after", failure)
	for t, c := range s.children {
		if c.pid != 0 && !c.ended {
			s.Witness.track(c.pid, t, c.startedAt)
		}
	}
}
