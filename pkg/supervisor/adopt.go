package supervisor

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/pkg/config"
	"github.com/sentryd/sentryd/pkg/logs"
	"github.com/sentryd/sentryd/pkg/sockets"
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
}

// Adopt returns a supervisor that goes on where a daemon stopped that died. Its
// processes that live are taken over: none is ended or started by that. broken is
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
	a.snap.Stopping, a.snap.Killing, a.snap.Done = false, false, false
	a.complete(o.Config)
	now, wall := o.Clock.Now(), o.Clock.Wall().UnixNano()
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
	s.takeSurvivors(a)
	s.prepare(o.Config)
	s.retainSockets()
	for _, ev := range a.events {
		s.decide(ev)
	}
	restart := make(map[string]bool)
	for _, c := range config.Compare(applied, o.Config).Entries {
		restart[c.Name] = c.Action == config.Restart
		if slices.Contains(c.Keys, "resources") {
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

// settle goes through all slots that hold something, and says what became of it.
func (a *adoption) settle(now fsm.Instant, wall int64) {
	for i := range a.snap.Entries {
		e := &a.snap.Entries[i]
		for j := range e.Slots {
			slot := &e.Slots[j]
			id := a.idOf(e, slot)
			switch {
			case slot.Live:
				a.settleLive(id, now, wall)
			case slot.Tree:
				a.settleTree(id, now)
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
func (a *adoption) settleLive(id fsm.ID, now fsm.Instant, wall int64) {
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
	a.lost++
	left := populated(a.place(id).Cgroup)
	if left {
		a.trees = append(a.trees, id)
	}
	a.events = append(a.events, fsm.Exited{
		ID: id, At: now, Wall: wall, Status: fsm.Status{Reason: fsm.ReasonUnknown}, TreeEmpty: !left,
	})
}

// settleTree looks for what was left of a tree when the daemon died.
func (a *adoption) settleTree(id fsm.ID, now fsm.Instant) {
	if populated(a.place(id).Cgroup) {
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
		a.events = append(a.events, fsm.SpawnLost{ID: id, At: now, Wall: wall})
	}
}

// place is where the processes of an incarnation are.
func (a *adoption) place(id fsm.ID) spawn.Place {
	p := spawn.Place{Marks: marks(id), Cgroup: a.processes[id].Cgroup}
	if live := a.live[id]; live != nil && live.cgroup != "" {
		p.Cgroup = live.cgroup
	}
	return p
}

// takeSurvivors has the processes that live watched, and their output read.
func (s *Supervisor) takeSurvivors(a *adoption) {
	var list []spawn.Child
	slots := make(map[fsm.ID]*fsm.SlotSnapshot)
	for i := range a.snap.Entries {
		e := &a.snap.Entries[i]
		for j := range e.Slots {
			slots[a.idOf(e, &e.Slots[j])] = &e.Slots[j]
		}
	}
	add := func(id fsm.ID, pid, pidfd int) *child {
		s.lastToken++
		c := &child{id: id, token: s.lastToken, pid: pid, ended: pidfd < 0, survivor: true, cgroup: a.place(id).Cgroup, startedAt: slots[id].StartedAt}
		s.children[c.token], s.tokens[id] = c, c.token
		s.begin(c)
		list = append(list, spawn.Child{Token: c.token, PID: pid, PidFD: pidfd, Reaped: pidfd < 0, Survivor: true, Place: a.place(id)})
		return c
	}
	for _, id := range slices.SortedFunc(maps.Keys(a.live), compareIDs) {
		p := a.live[id]
		c := add(id, p.pid, p.pidfd)
		if c.startedAt == 0 {
			c.startedAt = p.started
		}
		s.identify(c, p.pidfd)
		s.Witness.track(c.pid, c.token, c.startedAt)
		s.readAgain(c)
	}
	for _, id := range a.trees {
		pid := slots[id].PID
		if pid == 0 && slots[id].Last != nil {
			pid = slots[id].Last.PID
		}
		add(id, pid, -1)
	}
	for i, err := range s.Processes.Adopt(list) {
		c := s.children[list[i].Token]
		if err != nil {
			if list[i].PidFD >= 0 {
				unix.Close(list[i].PidFD)
			}
			s.lose(c, slots[c.id], err)
			continue
		}
		at := c.startedAt
		if !c.ended {
			at = s.Clock.Now()
		}
		s.descendIn(c, at, list[i].Place.Cgroup)
		if !c.ended {
			s.counts.adopted.Add(1)
		}
	}
	// Ends that were told above come after what the machine is told of starts.
	a.events = append(a.events, s.local...)
	s.local = nil
	if len(a.live)+a.lost > 0 {
		s.Log.Info("took over from a daemon that died", "processes", len(a.live), "ended_meanwhile", a.lost)
	}
}

func compareIDs(a, b fsm.ID) int {
	switch {
	case a.Entry != b.Entry && a.Entry < b.Entry:
		return -1
	case a.Entry != b.Entry:
		return 1
	}
	return a.Slot - b.Slot
}

// readAgain opens the FIFO that a process writes to.
func (s *Supervisor) readAgain(c *child) {
	l := s.launchers[c.id.Entry]
	if l == nil {
		return
	}
	key := logs.Key{Entry: c.id.Entry, Slot: c.id.Slot}
	if err := s.Output.AddFor(key, l.uid); err != nil {
		s.Log.Error("the output of a process cannot be read", "entry", key.Entry, "slot", key.Slot, "pid", c.pid, "error", err)
		return
	}
	s.Output.Label(key, c.pid, c.id.Incarnation)
}

// takeBackSockets takes the sockets that living processes were started with back
// from one of them.
func (s *Supervisor) takeBackSockets(a *adoption) {
	if a.saved == nil {
		return
	}
	for _, x := range a.saved.Sockets {
		r := sockets.Record{
			Key:    sockets.Key{Network: x.Network, Address: x.Address, ReusePort: x.ReusePort, Index: x.Index},
			Cookie: x.Cookie, Dev: x.Dev, Ino: x.Ino,
		}
		err := fmt.Errorf("no process has it")
		for id, p := range a.live {
			l := s.launchers[id.Entry]
			if l == nil || !slices.ContainsFunc(l.sockets, func(q passedSocket) bool {
				return q.spec.Network == r.Network && q.spec.Address == r.Address && (!r.ReusePort || id.Slot == r.Index)
			}) {
				continue
			}
			if r.FD, err = sockets.Reclaim(p.pid, p.pidfd, &r); err == nil {
				err = s.Sockets.Inherit(r)
				break
			}
		}
		if err != nil {
			s.Log.Warn("a socket could not be taken back; it is opened anew for the next start", "socket", r.Key.String(), "error", err)
		}
	}
}
