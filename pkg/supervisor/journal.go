package supervisor

import (
	"slices"
	"time"

	"github.com/sentryd/sentryd/pkg/spawn"
	"github.com/sentryd/sentryd/pkg/state"
	"github.com/sentryd/sentryd/pkg/supervisor/fsm"
)

// This file is where what was decided is written down before it is done: a start
// before it is asked for, an exit before the start that follows, a command before
// its reply, a shutdown before its first signal. A daemon that dies by SIGKILL
// leaves the state of its last turn.

// Journal is what the supervisor needs of pkg/state to write its state down.
type Journal interface {
	Append(*state.Batch) error
	Compact(*state.Batch) error
	Due() bool
	Stale() bool
	Remove() error
	Close()
}

// scribe is what the owner keeps for the journal.
type scribe struct {
	touched fsm.Touched
	batch   state.Batch
	marks   state.Marks
	started []*child    // whose identity is not written yet
	own     bool        // something of the daemon itself changed
	settled bool        // no start that is pending happens
	failing bool        // the last attempt to write did
	retryAt fsm.Instant // when a journal that cannot be written is tried again; 0: it can
	// What descended from entries, and when that was added up: it is more than one
	// entry's record is worth.
	descendants map[string]descendants
	addedUpAt   fsm.Instant
	told        map[string]bool // the entries whose record says so since
}

const (
	// markBlock is how many versions and events are taken at a time, so that their
	// numbers need not be written each.
	markBlock = 10_000
	// markSlack is more than what is told between two looks at the marks, besides
	// the actions of a turn.
	markSlack = 1000
	// journalRetry is the wait before a journal that could not be written is
	// tried anew: each time is the whole state.
	journalRetry = time.Second
	// descendantsEvery is how old the numbers of descendants in a record may be.
	descendantsEvery = 10 * time.Second
)

const journalMissing = "The journal cannot be written: a daemon that is started after the death of this one may not know all of its processes."

// writeDown appends what was touched since the last time, in one write. When that
// fails supervision goes on, and it is tried again.
func (s *Supervisor) writeDown() {
	if s.Journal == nil {
		return
	}
	w := &s.scribe
	marked := s.takeMarks(len(s.actions) + len(s.happenings))
	switch {
	case w.retryAt > s.Clock.Now():
		s.machine.ForgetTouched()
		w.started = w.started[:0]
		return // all of it is in the next compaction
	case w.retryAt != 0 || s.Journal.Due():
		if s.compact() {
			return
		}
	}
	s.machine.TakeTouched(&w.touched)
	w.own = w.own || w.touched.Whole
	b := &w.batch
	b.Reset()
	if marked {
		b.Marks(w.marks)
	}
	var err error
	if w.own {
		err = s.writeOwn(b)
	}
	s.writeTouched(b)
	if b.Empty() {
		return
	}
	state.Failpoint("append")
	if err == nil {
		err = s.Journal.Append(b)
	}
	state.Failpoint("appended")
	s.written(err)
}

// writeIntent appends that a shutdown was asked for, or writes all down where more
// than that is due.
func (s *Supervisor) writeIntent() {
	w := &s.scribe
	switch {
	case s.Journal == nil:
		return
	case w.retryAt != 0 || s.Journal.Due():
		s.writeDown()
		return
	}
	w.batch.Reset()
	w.batch.Shutdown()
	s.written(s.Journal.Append(&w.batch))
}

// writeTouched puts entries, slots and processes into a batch.
func (s *Supervisor) writeTouched(b *state.Batch) {
	w := &s.scribe
	for _, name := range w.touched.Removed {
		b.EntryGone(name)
	}
	if len(w.touched.Entries)+len(w.touched.Tallies) > 0 {
		s.addUp()
	}
	for i := range w.touched.Entries {
		e := saveEntry(&w.touched.Entries[i])
		s.addDescendants(e.Name, &e.Totals)
		b.Entry(&e)
	}
	for i := range w.touched.Tallies {
		name := w.touched.Tallies[i].Entry
		t := saveTotals(&w.touched.Tallies[i].Counters)
		if !w.told[name] {
			s.addDescendants(name, &t)
		}
		b.Totals(name, &t)
	}
	for i := range w.touched.Slots {
		t := &w.touched.Slots[i]
		if t.Gone {
			b.Retired(t.Entry, t.Slot, state.Retired{Incarnation: t.Left.Incarnation, Held: t.Left.Held})
			continue
		}
		slot := saveSlot(&t.SlotSnapshot)
		slot.Survivor = s.adopted(fsm.ID{Entry: t.Entry, Slot: t.Slot, Incarnation: t.Incarnation})
		b.Slot(t.Entry, &slot)
	}
	if len(w.started) > 0 {
		s.forgetDeparted() // of those there is no process to be told of
	}
	for i, c := range w.started {
		if s.children[c.token] == c { // else it has ended meanwhile
			p := savedProcess(c)
			b.Process(&p)
		}
		w.started[i] = nil
	}
	w.started = w.started[:0]
}

// addUp adds up what descended from entries, unless that was done lately.
func (s *Supervisor) addUp() {
	w := &s.scribe
	now := s.Clock.Now()
	if w.descendants == nil || now-w.addedUpAt >= descendantsEvery {
		w.descendants, w.addedUpAt, w.told = s.descent.totals(), now, make(map[string]bool)
	}
}

// addDescendants adds those of an entry to its totals.
func (s *Supervisor) addDescendants(entry string, t *state.Totals) {
	w := &s.scribe
	if d, ok := w.descendants[entry]; ok {
		d.save(t)
	}
	w.told[entry] = true
}

func (s *Supervisor) writeOwn(b *state.Batch) error {
	s.scribe.own = false
	d := s.journaled(s.savedOwn(s.config))
	if err := b.Daemon(d); err != nil {
		return err
	}
	return b.Sources(d)
}

// journaled adds to a saved state what a re-exec hands over in another way.
func (s *Supervisor) journaled(d *state.Daemon) *state.Daemon {
	d.Sockets, _ = s.saveSockets()
	d.Settled = s.scribe.settled
	return d
}

func savedProcess(c *child) state.Process {
	p := state.Process{Entry: c.id.Entry, Slot: c.id.Slot, Incarnation: c.id.Incarnation, PID: c.pid, Cgroup: c.cgroup}
	if c.identity != nil {
		p.Inode, p.Handle, p.Start = c.identity.Inode, c.identity.Handle, c.identity.Start
	}
	return p
}

// compact begins a new journal with the whole state. It reports false if it could not and
// the old one is written on.
func (s *Supervisor) compact() bool {
	w := &s.scribe
	s.forgetDeparted()
	var processes []state.Process
	for _, c := range s.children {
		if c.pid > 0 {
			processes = append(processes, savedProcess(c))
		}
	}
	var all state.Batch
	err := all.All(s.journaled(s.saved(s.config)), processes, w.marks)
	if err == nil {
		state.Failpoint("compact")
		err = s.Journal.Compact(&all)
	}
	if err != nil && !s.Journal.Stale() {
		s.counts.failure("journal")
		s.Log.Warn("the journal could not be made anew; the old one is written on", "error", err)
		return false
	}
	s.machine.ForgetTouched() // it is there, or will be in the next that can be made
	clear(w.started)
	w.descendants = nil // the next record must not say less
	w.started, w.own = w.started[:0], false
	w.touched = fsm.Touched{} // that of a storm is large, those of most turns are not
	s.written(err)
	return true
}

// written notes what came of an attempt to write.
func (s *Supervisor) written(err error) {
	w := &s.scribe
	d := &s.publisher.daemon
	w.retryAt = 0
	switch {
	case err != nil:
		s.counts.failure("journal")
		if s.Journal.Stale() {
			w.retryAt = s.Clock.Now() + journalRetry
		}
		if !w.failing {
			s.Log.Error("the journal could not be written; supervision goes on", "error", err)
			d.Missing = append(slices.Clone(d.Missing), journalMissing)
			s.significant = true
		}
	case w.failing:
		s.Log.Info("the journal is written again")
		d.Missing = slices.DeleteFunc(slices.Clone(d.Missing), func(m string) bool { return m == journalMissing })
		s.significant = true
	}
	w.failing = err != nil
}

// takeMarks takes numbers of versions and events for what the next turn may use
// up, and reports whether that has to be written.
func (s *Supervisor) takeMarks(actions int) bool {
	w := &s.scribe
	marked := false
	if v := s.publisher.version + markSlack; v > w.marks.Version {
		w.marks.Version, marked = v+markBlock, true
	}
	if seq := s.LastEvent() + uint64(actions) + markSlack; seq > w.marks.Seq {
		w.marks.Seq, marked = seq+markBlock, true
	}
	return marked
}

// ensureMarks writes marks before a picture is published that needs them.
func (s *Supervisor) ensureMarks() {
	if s.Journal != nil && s.takeMarks(0) {
		s.writeMarks()
	}
}

func (s *Supervisor) writeMarks() {
	w := &s.scribe
	if s.Journal.Stale() {
		return // they are in the next compaction
	}
	w.batch.Reset()
	w.batch.Marks(w.marks)
	s.written(s.Journal.Append(&w.batch))
}

// settleJournal says in the journal whether the starts that are pending will
// happen.
func (s *Supervisor) settleJournal(settled bool) {
	s.scribe.settled, s.scribe.own = settled, true
	s.writeDown()
}

// closeJournal leaves the journal to the next daemon.
func (s *Supervisor) closeJournal() {
	if s.Journal == nil {
		return
	}
	s.scribe.settled = true
	if !s.compact() {
		s.settleJournal(true)
	}
	s.Journal.Close()
	s.Journal = nil
}

// removeJournal leaves none: nothing runs any more.
func (s *Supervisor) removeJournal() {
	if s.Journal == nil {
		return
	}
	if err := s.Journal.Remove(); err != nil {
		s.Log.Warn("the journal is left behind", "error", err)
	}
	s.Journal.Close()
	s.Journal = nil
}

// identify has a process that was taken over known to the journal. One without
// an identity is found again by its environment, if at all.
func (s *Supervisor) identify(c *child, pidfd int) {
	if s.Journal == nil {
		return
	}
	if id, err := spawn.Identify(pidfd); err == nil {
		c.identity = &id
	}
}
