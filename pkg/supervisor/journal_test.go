package supervisor

import (
	"errors"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sentryd/sentryd/pkg/config"
	"github.com/sentryd/sentryd/pkg/spawn"
	"github.com/sentryd/sentryd/pkg/state"
)

// tornJournal is a journal that cannot be written while torn. While it is large a
// compaction is due, and fails.
type tornJournal struct {
	*state.Journal
	torn, large atomic.Bool
	tries       atomic.Int64
}

var errTorn = errors.New("no space left on device")

func (j *tornJournal) Append(b *state.Batch) error {
	if j.torn.Load() {
		return errTorn
	}
	return j.Journal.Append(b)
}

func (j *tornJournal) Compact(b *state.Batch) error {
	j.tries.Add(1)
	if j.torn.Load() || j.large.Load() {
		return errTorn
	}
	return j.Journal.Compact(b)
}

func (j *tornJournal) Stale() bool { return j.torn.Load() || j.Journal.Stale() }
func (j *tornJournal) Due() bool   { return j.torn.Load() || j.large.Load() || j.Journal.Due() }

// readingEdge looks into the journal at each start and signal.
type readingEdge struct {
	*edge
	dir     string
	starts  int
	pending int           // starts that stood in the journal when they were asked for
	saved   *state.Daemon // what stood there when the first signals were sent
}

func (e *readingEdge) Signal(list []spawn.Signal) []error {
	if e.saved == nil {
		r, err := state.ReadJournal(e.dir)
		if err != nil {
			e.t.Error(err)
		} else {
			e.saved = r.Daemon
		}
	}
	return e.edge.Signal(list)
}

func (e *readingEdge) Start(t spawn.Token, s *spawn.Spec) {
	e.starts++
	for _, slot := range journaledSlots(e.t, e.dir) {
		if slot.Pending && s.EnvLast == config.Incarnation(slot.Incarnation) {
			e.pending++
		}
	}
	e.edge.Start(t, s)
}

func journaledSlots(t *testing.T, dir string) []state.Slot {
	t.Helper()
	r, err := state.ReadJournal(dir)
	if err != nil || r == nil || r.Daemon == nil || !r.Report.Complete() {
		t.Fatalf("the journal: %+v, %v", r, err)
	}
	var slots []state.Slot
	for _, e := range r.Daemon.Machine.Entries {
		slots = append(slots, e.Slots...)
	}
	return slots
}

// journaled runs a supervisor with a journal.
func journaled(t *testing.T, yaml string, test func(b *bed, j *tornJournal, e *readingEdge)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		real, err := state.NewJournal(dir, "test")
		if err != nil {
			t.Fatal(err)
		}
		b := &bed{edge: newEdge(t), path: filepath.Join(dir, "test.yaml")}
		b.write(yaml)
		e, j := &readingEdge{edge: b.edge, dir: dir}, &tornJournal{Journal: real}
		o := b.options(b.path)
		o.Processes, o.Journal = e, j
		b.s = New(o)
		b.run()
		test(b, j, e)
		b.s.Shutdown(t.Context(), false)
		<-b.done
		if r, err := state.ReadJournal(dir); r != nil || err != nil {
			t.Errorf("after a stop: %+v, %v", r, err)
		}
	})
}

func TestAStartIsWrittenDownFirst(t *testing.T) {
	journaled(t, "entries: {a: {command: /bin/a, delay: 1s}}", func(b *bed, _ *tornJournal, e *readingEdge) {
		for range 3 {
			b.end(b.byPath("/bin/a")[0], 1)
			synctest.Wait()
			if s := journaledSlots(b.t, e.dir); s[0].State != "backoff" || s[0].Last == nil {
				b.t.Errorf("after an exit: %+v", s[0])
			}
			b.pass(time.Second)
			if s := journaledSlots(b.t, e.dir); !s[0].Live || s[0].PID != b.byPath("/bin/a")[0].pid {
				b.t.Errorf("after a start: %+v", s[0])
			}
		}
		if e.starts != 4 || e.pending != e.starts {
			b.t.Errorf("%d starts, %d stood in the journal", e.starts, e.pending)
		}
	})
}

// TestAnExitThatNoTotalsCount: until the start that follows on it has happened, the
// record of a slot's exit is what it is counted by, however often that is read.
func TestAnExitThatNoTotalsCount(t *testing.T) {
	journaled(t, "entries: {a: {command: /bin/a, count: 3, delay: 0}}", func(b *bed, _ *tornJournal, e *readingEdge) {
		b.end(b.byPath("/bin/a")[0], 0) // so that there are totals
		b.pass(time.Minute)
		e.mu.Lock()
		e.slow = true
		e.mu.Unlock()
		for n, p := range b.byPath("/bin/a") {
			b.pass(time.Duration(n) * time.Hour)
			b.end(p, n)
			synctest.Wait()
			r, err := state.ReadJournal(e.dir)
			if err != nil {
				b.t.Fatal(err)
			}
			if saved := r.Daemon.Machine.Entries[0]; saved.Totals.Exits != 1 || len(saved.Uncounted) != n+1 {
				b.t.Errorf("after %d more exits: %d in the totals, %d not counted", n+1, saved.Totals.Exits, len(saved.Uncounted))
			}
			for range 2 {
				snap, err := loadMachine(&r.Daemon.Machine)
				if err != nil {
					b.t.Fatal(err)
				}
				if diff := cmp.Diff(b.s.machine.Snapshot().Entries[0].Counters, snap.Entries[0].Counters); diff != "" {
					b.t.Errorf("what the machine counts, and what the journal gives:\n%s", diff)
				}
			}
		}
		e.answer()
		b.pass(time.Second)
		r, err := state.ReadJournal(e.dir)
		if err != nil {
			b.t.Fatal(err)
		}
		if saved := r.Daemon.Machine.Entries[0]; saved.Totals.Exits != 4 || len(saved.Uncounted) != 0 {
			b.t.Errorf("after the starts: %d in the totals, %d not counted", saved.Totals.Exits, len(saved.Uncounted))
		}
	})
}

// TestAStopIsWrittenDownFirst: before anybody is told to end, and then that they were.
func TestAStopIsWrittenDownFirst(t *testing.T) {
	for _, c := range []struct {
		what  string
		stop  func(*bed) (uint64, error)
		large bool
	}{
		{"a stop", func(b *bed) (uint64, error) { return b.s.Stop(b.t.Context(), "a", -1) }, false},
		{"a stop, and no compaction", func(b *bed) (uint64, error) { return b.s.Stop(b.t.Context(), "a", -1) }, true},
		{"a shutdown", func(b *bed) (uint64, error) { return b.s.Shutdown(b.t.Context(), false) }, false},
		{"a shutdown, and no compaction", func(b *bed) (uint64, error) { return b.s.Shutdown(b.t.Context(), false) }, true},
	} {
		journaled(t, "entries: {a: {command: /bin/a, count: 3}}", func(b *bed, j *tornJournal, e *readingEdge) {
			e.stubborn = true
			j.large.Store(c.large)
			if _, err := c.stop(b); err != nil {
				b.t.Fatal(err)
			}
			if d := e.saved; d == nil || !d.Machine.Stopping && !d.Machine.Entries[0].Held {
				b.t.Errorf("%s: when the signals were sent the journal said nothing of it", c.what)
			}
			for _, slot := range e.saved.Machine.Entries[0].Slots {
				if slot.Told {
					b.t.Errorf("%s: told before it was: %+v", c.what, slot)
				}
			}
			for _, slot := range journaledSlots(b.t, e.dir) {
				if slot.State != "stopping" || !slot.Told {
					b.t.Errorf("%s: after it had begun: %+v", c.what, slot)
				}
			}
			if c.large && j.tries.Load() < 2 { // the first was at the start
				b.t.Errorf("%s: no compaction was tried", c.what)
			}
			e.stubborn = false
			b.s.Kill(b.t.Context())
		})
	}
}

// TestWhoIsLeftIsToldLater: what a main process left is told by who goes through the tree, and is
// written down as told when that was done.
func TestWhoIsLeftIsToldLater(t *testing.T) {
	journaled(t, "entries: {a: {command: /bin/a, delay: 0}}", func(b *bed, _ *tornJournal, e *readingEdge) {
		e.stubborn = true
		p := b.byPath("/bin/a")[0]
		b.endLeaving(p, 0)
		for _, signal := range []int{0, kill, term} {
			if signal > 0 {
				b.mu.Lock()
				b.emit(spawn.Event{Kind: spawn.TreeSignaled, Token: p.token, PID: p.pid, Signal: signal})
				b.mu.Unlock()
			}
			synctest.Wait()
			if slot := journaledSlots(b.t, e.dir)[0]; slot.State != "stopping" || slot.Told != (signal == term) {
				b.t.Errorf("after signal %d to the tree: %+v", signal, slot)
			}
		}
		b.endGroup(p)
		e.stubborn = false
	})
}

// TestAJournalThatCannotBeMadeAnew: is written on, and nothing is missing.
func TestAJournalThatCannotBeMadeAnew(t *testing.T) {
	journaled(t, "entries: {a: {command: /bin/a, delay: 0}}", func(b *bed, j *tornJournal, e *readingEdge) {
		j.large.Store(true)
		b.end(b.byPath("/bin/a")[0], 3)
		b.pass(time.Second)
		if _, err := b.s.Scale(b.t.Context(), "a", 3); err != nil {
			b.t.Fatal(err)
		}
		b.pass(time.Second)
		r, err := state.ReadJournal(e.dir)
		if err != nil {
			b.t.Fatal(err)
		}
		if x := r.Daemon.Machine.Entries[0]; x.Count != 3 || len(x.Slots) != 3 || x.Totals.Exits != 1 || x.Totals.Starts != 4 || len(r.Processes) != 3 {
			b.t.Errorf("%+v, %d processes", x, len(r.Processes))
		}
		if r.Marks.Version < b.s.State().Version {
			b.t.Errorf("marks %+v at version %d", r.Marks, b.s.State().Version)
		}
		if missing := b.s.State().Daemon.Missing; len(missing) > 0 {
			b.t.Errorf("it is said that %q", missing)
		}
		j.large.Store(false)
	})
}

func TestACommandIsWrittenDownBeforeItsReply(t *testing.T) {
	journaled(t, "entries: {a: {command: /bin/a}}", func(b *bed, _ *tornJournal, e *readingEdge) {
		if _, err := b.s.Scale(b.t.Context(), "a", 3); err != nil {
			b.t.Fatal(err)
		}
		if n := len(journaledSlots(b.t, e.dir)); n != 3 {
			b.t.Errorf("%d slots stand in the journal", n)
		}
	})
}

func TestAJournalThatCannotBeWritten(t *testing.T) {
	journaled(t, "entries: {a: {command: /bin/a, delay: 0}}", func(b *bed, j *tornJournal, e *readingEdge) {
		j.torn.Store(true)
		before := j.tries.Load()
		b.end(b.byPath("/bin/a")[0], 1)
		b.pass(10 * time.Second)
		if p := b.slot("a", 0); p.State != "running" || p.Incarnation != 2 {
			b.t.Errorf("without a journal: %+v", p)
		}
		if !slices.Contains(b.s.State().Daemon.Missing, journalMissing) {
			b.t.Errorf("nothing is said: %v", b.s.State().Daemon.Missing)
		}
		if n := j.tries.Load() - before; n < 5 || n > 15 {
			b.t.Errorf("tried %d times in 10 s", n)
		}
		j.torn.Store(false)
		b.pass(2 * time.Second)
		if s := journaledSlots(b.t, e.dir); s[0].Incarnation != 2 || !s[0].Live {
			b.t.Errorf("once it can be written: %+v", s[0])
		}
		if slices.Contains(b.s.State().Daemon.Missing, journalMissing) {
			b.t.Error("it is still said to be missing")
		}
	})
}
