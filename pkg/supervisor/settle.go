package supervisor

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/pkg/config"
	"github.com/sentryd/sentryd/pkg/spawn"
	"github.com/sentryd/sentryd/pkg/supervisor/fsm"
)

// This file says what became of what a dead daemon had: it turns what is known of it
// into a state of the machine and events. It asks nobody but /proc and the cgroups.

// complete puts into the snapshot what lives and is not in it: the journal is
// missing, or does not say all.
func (a *adoption) complete(cfg *config.Config) {
	if a.saved == nil {
		for _, e := range machineEntries(cfg) {
			a.snap.Entries = append(a.snap.Entries, fsm.EntrySnapshot{Entry: e, WantedCount: e.Count, CountBy: fsm.ByReload, Held: !e.Autostart})
		}
	}
	for _, p := range a.marked {
		a.include(p)
	}
	for i := range a.snap.Entries {
		e := &a.snap.Entries[i]
		for n := range e.WantedCount {
			if at, found := findSlot(e, n); !found && !e.Removed {
				old := e.Retired[n]
				e.Slots = slices.Insert(e.Slots, at, fsm.SlotSnapshot{Slot: n, Incarnation: old.Incarnation, Held: e.Held || old.Held})
			}
		}
	}
	slices.SortFunc(a.snap.Entries, func(x, y fsm.EntrySnapshot) int {
		switch {
		case x.Name < y.Name:
			return -1
		case x.Name > y.Name:
			return 1
		}
		return 0
	})
}

func findSlot(e *fsm.EntrySnapshot, n int) (int, bool) {
	return slices.BinarySearchFunc(e.Slots, n, func(s fsm.SlotSnapshot, n int) int { return s.Slot - n })
}

// defaultStop is how a process is stopped of which no configuration is known.
var defaultStop = fsm.Entry{StopSignal: int(unix.SIGTERM), StopTimeout: 10 * time.Second, StopMode: fsm.StopTree}

// include notes a process that was found by its environment, unless the journal
// says that its slot is in a later incarnation, or in the same one.
func (a *adoption) include(p *remnant) {
	i := slices.IndexFunc(a.snap.Entries, func(e fsm.EntrySnapshot) bool { return e.Name == p.id.Entry })
	if i < 0 {
		gone := defaultStop
		gone.Name = p.id.Entry
		a.snap.Entries = append(a.snap.Entries, fsm.EntrySnapshot{Entry: gone, Removed: true})
		i = len(a.snap.Entries) - 1
	}
	e := &a.snap.Entries[i]
	at, found := findSlot(e, p.id.Slot)
	if !found {
		e.Slots = slices.Insert(e.Slots, at, fsm.SlotSnapshot{Slot: p.id.Slot})
		delete(e.Retired, p.id.Slot)
		if !e.Removed {
			// It was scaled since; how far nobody knows.
			if p.id.Slot >= e.WantedCount {
				e.WantedCount, e.CountBy = p.id.Slot+1, fsm.ByScale
			}
		}
	}
	slot := &e.Slots[at]
	if found && slot.Incarnation >= p.id.Incarnation || a.known[a.idOf(e, slot)] != nil {
		return
	}
	if slot.Live {
		e.Counters.Exits++ // of which nobody knows when and how
		e.Counters.ByStatus = addUnknown(e.Counters.ByStatus)
	}
	// Nothing but a start can have made it: as if that had been told.
	*slot = fsm.SlotSnapshot{
		Slot: slot.Slot, Incarnation: p.id.Incarnation, State: fsm.Starting, Pending: true,
		Last: slot.Last, Gen: e.Roll.Gen,
	}
}

func addUnknown(list []fsm.ExitCount) []fsm.ExitCount {
	for i := range list {
		if list[i].Reason == fsm.ReasonUnknown {
			list[i].N++
			return list
		}
	}
	return append(list, fsm.ExitCount{Reason: fsm.ReasonUnknown, N: 1}) // the last reason there is
}

func (a *adoption) idOf(e *fsm.EntrySnapshot, s *fsm.SlotSnapshot) fsm.ID {
	return fsm.ID{Entry: e.Name, Slot: s.Slot, Incarnation: s.Incarnation}
}

// endAll makes of the slots what a shutdown makes of them. Its record is written
// before their processes are told to end, and those of the slots only then: the
// dead daemon may not have come to the one or the other, and to be told twice, by
// fsm.Retell, is better than to be killed untold.
func (a *adoption) endAll(now fsm.Instant) error {
	m, err := fsm.Restore(a.snap)
	if err != nil {
		return err
	}
	m.Step(now, fsm.Shutdown{})
	a.snap = m.Snapshot()
	return nil
}

// settle goes through all slots that hold something, and says what became of it.
func (a *adoption) settle(now fsm.Instant, wall int64) {
	for i := range a.snap.Entries {
		e := &a.snap.Entries[i]
		for j := range e.Slots {
			slot := &e.Slots[j]
			id := a.idOf(e, slot)
			switch {
			case slot.Live:
				a.settleLive(id, slot.PID, now, wall)
			case slot.Tree:
				a.settleTree(id, slot, now)
			case slot.Pending:
				a.settlePending(id, slot, now, wall)
			}
		}
	}
	for _, p := range a.known {
		if a.live[p.id] != p {
			unix.Close(p.pidfd) // of an incarnation that is over
		}
	}
	for _, p := range a.marked {
		if a.live[p.id] != p {
			unix.Close(p.pidfd)
		}
	}
}

// settleLive looks for a process that lived when the daemon died.
func (a *adoption) settleLive(id fsm.ID, pid int, now fsm.Instant, wall int64) {
	if st, ended := a.ended[id]; ended {
		a.settleEnded(id, pid, status(st), "", now, wall)
		return
	}
	p := a.known[id]
	// With an identity that is gone, who has its environment is a descendant.
	written := a.processes[id]
	if p == nil && written.Inode == 0 && written.Start == 0 {
		if m := a.marked[slotKey{id.Entry, id.Slot}]; m != nil && m.id == id {
			p = m
		}
	}
	if p != nil {
		a.live[id] = p
		return
	}
	a.settleEnded(id, pid, fsm.Status{Reason: fsm.ReasonUnknown}, whyAbsent, now, wall)
}

// settleEnded says that a process ended while no daemon was there.
func (a *adoption) settleEnded(id fsm.ID, pid int, how fsm.Status, why string, now fsm.Instant, wall int64) {
	a.lost++
	left := a.left(id, pid)
	if left {
		a.trees = append(a.trees, id)
	}
	a.events = append(a.events, fsm.Exited{ID: id, At: now, Wall: wall, Status: how, Why: why, TreeEmpty: !left})
}

// settleTree looks for what was left of a tree when the daemon died.
func (a *adoption) settleTree(id fsm.ID, slot *fsm.SlotSnapshot, now fsm.Instant) {
	pid := 0
	if slot.Last != nil {
		pid = slot.Last.PID
	}
	if a.left(id, pid) {
		a.trees = append(a.trees, id)
		return
	}
	a.events = append(a.events, fsm.TreeEmpty{ID: id, At: now})
}

// settlePending looks for the process of a start that was asked for when the
// daemon died.
func (a *adoption) settlePending(id fsm.ID, slot *fsm.SlotSnapshot, now fsm.Instant, wall int64) {
	p := a.known[id]
	if m := a.marked[slotKey{id.Entry, id.Slot}]; p == nil && m != nil && m.id == id {
		p = m
	}
	settled := a.saved != nil && a.saved.Settled
	if p == nil && !settled {
		p = unmarked(a.Search, id, slot.ExitedAt)
	}
	switch {
	case p != nil:
		a.live[id] = p
		at := min(p.started, now)
		a.events = append(a.events, fsm.Spawned{ID: id, PID: p.pid, At: at, Wall: wall - int64(now-at)})
	case !settled:
		a.lost++
		a.events = append(a.events, fsm.SpawnLost{ID: id, At: now, Wall: wall, Why: whyStart})
	}
}

// left reports whether something lives of an incarnation whose main process, pid, has ended.
func (a *adoption) left(id fsm.ID, pid int) bool {
	place := a.place(id)
	if place.Cgroup != "" {
		return populated(place.Cgroup)
	}
	if a.survey == nil {
		var err error
		if a.survey, err = spawn.TakeSurvey(); err != nil {
			return true // who is to watch it looks again
		}
	}
	return a.survey.Left(pid, &place)
}

// place is where the processes of an incarnation are.
func (a *adoption) place(id fsm.ID) spawn.Place {
	p := spawn.Place{Marks: marks(id), Cgroup: a.processes[id].Cgroup, Output: outputOf(a.Output, id)}
	if live := a.live[id]; live != nil && live.cgroup != "" {
		p.Cgroup = live.cgroup
	}
	return p
}
