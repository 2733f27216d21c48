package supervisor

import (
	"fmt"
	"slices"

	"github.com/sentryd/sentryd/pkg/config"
	"github.com/sentryd/sentryd/pkg/spawn"
	"github.com/sentryd/sentryd/pkg/state"
	"github.com/sentryd/sentryd/pkg/supervisor/fsm"
	"github.com/sentryd/sentryd/pkg/view"
)

// This file goes on with what a daemon left that died: Find says what there is.

// adoption is a state that is being put together from a journal and from what
// lives.
type adoption struct {
	Search
	*Remains
	snap   fsm.Snapshot
	live   map[fsm.ID]*remnant
	events []fsm.Event // what the dead daemon did not live to see
	trees  []fsm.ID    // of those whose main process ended meanwhile: something is left
	lost   int
	survey *spawn.Survey // of who lives, once it is needed
}

// Adopt returns a supervisor that goes on where a daemon stopped that died. Its
// processes that live are taken over: none is ended or started by that, unless the
// dead daemon was ending them all. broken is
// why the configuration could not be read, if Options.Config is the last good one.
// The Remains are used up.
func Adopt(o Options, in Search, r *Remains, broken error) (*Supervisor, error) {
	a := &adoption{Search: in, Remains: r, live: make(map[fsm.ID]*remnant)}
	applied := o.Config
	if r.saved != nil {
		var err error
		if applied, err = r.LastGood(); err != nil {
			applied = o.Config // of an older version's making
		}
		if a.snap, err = loadMachine(&r.saved.Machine); err != nil {
			return nil, err // Find has tried it
		}
	}
	fresh := r.saved == nil || a.snap.Stopping
	now, wall := o.Clock.Now(), o.Clock.Wall().UnixNano()
	a.snap.Killing, a.snap.Done = false, false
	a.complete(o.Config)
	if a.snap.Stopping {
		if err := a.endAll(now); err != nil {
			return nil, fmt.Errorf("journal: %w", err)
		}
	}
	a.snap.Stopping, a.snap.Done = false, false
	a.settle(now, wall)
	m, err := fsm.Restore(a.snap)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	s := newSupervisor(o, m)
	s.goOn(r)
	if broken != nil {
		last := &s.publisher.daemon.LastReload
		*last = view.Reload{At: last.At, Error: broken.Error()}
		if r.saved != nil {
			last.SuccessAt = state.Time(r.saved.Reload.SuccessWall)
		}
	}
	s.config = o.Config
	s.prepare(applied)
	s.takeBackSockets(a)
	s.readAgain(a)
	s.takeSurvivors(a)
	s.prepare(o.Config)
	s.retainSockets()
	s.decide(fsm.Retell{})
	for _, ev := range a.events {
		s.decide(ev)
	}
	restart := make(map[string]bool)
	for _, c := range config.Compare(applied, o.Config).Entries {
		restart[c.Name] = c.Action == config.Restart
		// Limits that have not changed may have been lifted for this start, see
		// spawn.LiftControllers.
		if l := s.launchers[c.Name]; slices.Contains(c.Keys, "resources") || l != nil && l.limits != nil {
			s.relimit(c.Name)
		}
	}
	s.decide(fsm.Configure{Entries: machineEntries(o.Config), Restart: restart})
	if fresh {
		s.beginAnew(r.saved != nil)
	}
	if r.saved != nil && r.saved.Settled {
		// All that is pending is asked for once, what Configure asked for included.
		s.actions = slices.DeleteFunc(s.actions, func(a fsm.Action) bool { _, is := a.(fsm.Spawn); return is })
		s.decide(fsm.Reissue{})
	}
	s.act()
	s.keepAll(&a.snap)
	s.publishFirst()
	return s, nil
}

// goOn takes over what is the daemon's own: counters, and numbers that do not
// fall.
func (s *Supervisor) goOn(r *Remains) {
	seq := r.marks.Seq
	s.publisher.version = r.marks.Version
	if d := r.saved; d != nil {
		seq = max(seq, d.Seq)
		s.publisher.version = max(r.marks.Version, d.Version)
		s.loadCounters(&d.Counters)
		s.descent.load(&d.Machine)
		s.publisher.daemon.Reexecs, s.publisher.daemon.ReexecedAt = d.Reexecs, state.Time(d.ReexecedWall)
	}
	s.history.restore(seq, nil)
}

// beginAnew has everything up that is to be up by itself, as in a first start: a
// stop of the daemon, which the dead one had begun, forgets what was scaled or
// stopped, and where the journal is of no use nobody knows of such a thing.
func (s *Supervisor) beginAnew(rescale bool) {
	for _, e := range s.config.Entries {
		if rescale {
			s.decide(fsm.Scale{Entry: e.Name, Count: e.Count})
		}
		if e.Autostart {
			s.decide(fsm.Start{Entry: e.Name, Slot: fsm.AllSlots})
		}
	}
}
