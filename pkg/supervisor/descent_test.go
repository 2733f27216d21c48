package supervisor

import (
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/pkg/lineage"
	"github.com/sentryd/sentryd/pkg/procevents"
	"github.com/sentryd/sentryd/pkg/state"
	"github.com/sentryd/sentryd/pkg/supervisor/fsm"
	"github.com/sentryd/sentryd/pkg/view"
)

const ms = time.Millisecond

func forkOf(at time.Duration, parent, pid int32) procevents.Event {
	return procevents.Event{Kind: procevents.Fork, Timestamp: at, PID: pid, TGID: pid, ParentPID: parent, ParentTGID: parent}
}

func exitOf(at time.Duration, pid, parent int32, code uint32) procevents.Event {
	return procevents.Event{Kind: procevents.Exit, Timestamp: at, PID: pid, TGID: pid, ParentPID: parent, ParentTGID: parent, ExitCode: code}
}

// The last events about an incarnation come after it was removed, and count.
func TestDescentCounts(t *testing.T) {
	now, wakes := fsm.Instant(0), 0
	d := newDescent(func() fsm.Instant { return now }, true, func() { wakes++ })
	d.Lost()
	one, two := fsm.ID{Entry: "a", Incarnation: 1}, fsm.ID{Entry: "a", Incarnation: 2}
	now = 2 * ms
	d.add(one, ancestor{pid: 100, at: now, watch: true}, false)
	d.Observe([]procevents.Event{forkOf(1*ms, 5, 100), forkOf(300*ms, 100, 101)})
	if got := d.totals()["a"]; got.living != 1 || got.forks != 1 {
		t.Errorf("%+v", got)
	}
	now = 500 * ms
	d.remove(one)
	d.add(two, ancestor{pid: 200, at: now}, false)
	d.Observe([]procevents.Event{
		forkOf(400*ms, 100, 102), exitOf(450*ms, 101, 100, 9), exitOf(460*ms, 102, 100, 0), exitOf(470*ms, 100, 5, 0),
		forkOf(490*ms, 5, 200), forkOf(600*ms, 200, 201),
	})
	want := descendants{living: 1, forks: 3}
	want.exits[lineage.Signaled], want.exits[lineage.Success] = 1, 1
	if got := d.totals()["a"]; got != want || len(d.leaving) != 0 {
		t.Errorf("%+v, want %+v; %d leaving", got, want, len(d.leaving))
	}
	// Not heard they stay what they were, and over a re-exec.
	d.Silent()
	d.remove(two)
	want.living = 0
	saved := state.Daemon{Machine: state.Machine{Entries: []state.Entry{{Name: "a"}, {Name: "b"}}}}
	d.save(&saved)
	next := newDescent(func() fsm.Instant { return now }, false, nil)
	next.load(&saved.Machine)
	if got := next.totals()["a"]; got != want {
		t.Errorf("after a re-exec %+v, want %+v", got, want)
	}
	d.drop("a")
	if got := d.totals()["a"]; got != (descendants{}) {
		t.Errorf("of an entry that is gone %+v", got)
	}
}

// The number of descendants is put into a picture, and the same picture is
// given to all who ask while nothing changes.
func TestDecorate(t *testing.T) {
	now := fsm.Instant(0)
	d := newDescent(func() fsm.Instant { return now }, true, nil)
	d.Lost()
	base := &view.State{Version: 7, Entries: []*view.Entry{{Name: "a"}, {Name: "b"}}}
	if d.decorate(base) != base {
		t.Error("a picture without descendants is copied")
	}
	now = 2 * ms
	d.add(fsm.ID{Entry: "b"}, ancestor{pid: 100, at: now}, false)
	d.Observe([]procevents.Event{forkOf(1*ms, 5, 100), forkOf(3*ms, 100, 101)})
	now += heardAge
	shown := d.decorate(base)
	if shown.Version != 7 || shown.Entry("a").Descendants != 0 || shown.Entry("b").Descendants != 1 || base.Entry("b").Descendants != 0 {
		t.Errorf("%+v", shown.Entries)
	}
	now += heardAge
	if d.decorate(base) != shown {
		t.Error("a picture that is the same is made anew")
	}
}

// TestDecorateAfterAReexec shows what the former image knew for as long as it takes to
// know it anew.
func TestDecorateAfterAReexec(t *testing.T) {
	now := fsm.Instant(0)
	clock := func() fsm.Instant { return now }
	d := newDescent(clock, true, nil)
	var saved state.Daemon
	if d.save(&saved); saved.Descendants != nil {
		t.Errorf("unheard, and known: %v", saved.Descendants)
	}
	d.Lost()
	if d.save(&saved); saved.Descendants == nil {
		t.Error("that there are none is known, and not saved")
	}
	now = 2 * ms
	d.add(fsm.ID{Entry: "b"}, ancestor{pid: 100, at: now}, false)
	d.Observe([]procevents.Event{forkOf(1*ms, 5, 100), forkOf(3*ms, 100, 101)})
	d.save(&saved)
	next := newDescent(clock, true, nil)
	next.show(saved.Descendants)
	base := &view.State{Version: 7, Entries: []*view.Entry{{Name: "b"}}}
	if got := next.decorate(base).Entry("b").Descendants; got != 1 {
		t.Errorf("%d at first", got)
	}
	now += readAge
	if got := next.decorate(base).Entry("b").Descendants; got != 0 {
		t.Errorf("%d, which nobody knows of any more", got)
	}
}

func TestCrashLoopIsTold(t *testing.T) {
	inBubble(t, "entries: {a: {command: /bin/a, descendants: {failures: 1, within: 10s, action: restart}}}", func(t *testing.T, b *bed) {
		for range 2 {
			d := b.s.descent
			d.pass([]lineage.Crash[fsm.ID]{
				{Key: fsm.ID{Entry: "a", Incarnation: 1}, PID: 5, At: b.now()}, {Key: fsm.ID{Entry: "nope"}},
			})
			b.pass(ms)
		}
		if p := b.slot("a", 0); p.Incarnation != 2 || p.LastExit == nil || p.LastExit.Initiator != "health" {
			t.Errorf("%+v", p)
		}
		if got := told(b.s); !slices.Contains(got, "descendant_crashes a:0#1 to 2") {
			t.Errorf("%q", got)
		}
	})
}

func TestSuccessor(t *testing.T) {
	self := os.Getpid()
	const nobody = 1<<22 + 1 // above the largest pid_max
	pid, fd := successor([]int32{nobody, int32(self), int32(os.Getppid())}, program(self))
	if pid != self {
		t.Fatalf("%d follows, not %d", pid, self)
	}
	unix.Close(fd)
	for _, exe := range []string{"/nope", ""} {
		if pid, fd := successor([]int32{int32(self)}, exe); pid != 0 || fd != -1 {
			t.Errorf("%d follows what ran %q", pid, exe)
		}
	}
}

func TestArrange(t *testing.T) {
	at := func(pid, parent, sid int32, ticks uint64) lineage.Proc {
		return lineage.Proc{PID: pid, PPID: parent, SID: sid, Ticks: ticks, State: 'S', Threads: 1}
	}
	all := []lineage.Proc{
		at(1, 0, 1, 1), at(40, 1, 40, 2), // strangers
		at(12, 10, 10, 9), at(11, 1, 10, 8), at(13, 11, 13, 8), at(10, 1, 10, 5), at(14, 13, 14, 9),
	}
	var got [][3]int
	for _, p := range arrange(descending(all, 10), 10) {
		got = append(got, [3]int{int(p.PID), int(p.Parent), p.Depth})
	}
	want := [][3]int{{10, 0, 0}, {12, 10, 1}, {11, 0, 0}, {13, 11, 1}, {14, 13, 2}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
