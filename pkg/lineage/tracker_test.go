package lineage

import (
	"syscall"
	"testing"
	"time"

	"github.com/sentryd/sentryd/pkg/procevents"
)

const ms = time.Millisecond

func fork(at time.Duration, parent, pid int32) procevents.Event {
	return procevents.Event{Kind: procevents.Fork, Timestamp: at, PID: pid, TGID: pid, ParentPID: parent, ParentTGID: parent}
}

func thread(at time.Duration, pid, tid int32) procevents.Event {
	return procevents.Event{Kind: procevents.Fork, Timestamp: at, PID: tid, TGID: pid, ParentPID: 1, ParentTGID: 1}
}

func execve(at time.Duration, pid int32) procevents.Event {
	return procevents.Event{Kind: procevents.Exec, Timestamp: at, PID: pid, TGID: pid}
}

// exit is of a task; only a leader that is not reaped yet has a parent.
func exit(at time.Duration, pid, tid, parent int32, code uint32) procevents.Event {
	return procevents.Event{Kind: procevents.Exit, Timestamp: at, PID: tid, TGID: pid, ParentPID: parent, ParentTGID: parent, ExitCode: code}
}

// heard is a tracker that has heard everything since the time 0.
func heard(t *testing.T, events ...procevents.Event) *Tracker[string] {
	t.Helper()
	tr := New[string](64)
	tr.Lost(0)
	tr.Apply(events)
	return tr
}

func pids(tr *Tracker[string], key string) (out []int32) {
	for _, p := range tr.Tree(key) {
		out = append(out, p.PID)
	}
	return out
}

func wantPIDs(t *testing.T, tr *Tracker[string], want ...int32) {
	t.Helper()
	got := pids(tr, "a")
	if len(got) != len(want) {
		t.Fatalf("members %v, want %v", got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("members %v, want %v", got, want)
		}
	}
}

// Added late, after children were made and some ended; and early.
func TestAddInAnyOrder(t *testing.T) {
	events := []procevents.Event{
		fork(1*ms, 5, 100), execve(2*ms, 100), fork(4*ms, 100, 101), fork(5*ms, 101, 102),
		exit(6*ms, 101, 101, 100, 0), fork(7*ms, 5, 200), fork(8*ms, 200, 201),
	}
	for n := range len(events) + 1 {
		tr := heard(t, events[:n]...)
		if !tr.Add("a", 100, 3*ms) || tr.Add("a", 100, 3*ms) {
			t.Fatal("added not once")
		}
		tr.Apply(events[n:])
		wantPIDs(t, tr, 100, 102)
		c, _ := tr.Counts("a")
		want := Counts{Descendants: 1, Forks: 2, Execs: 1}
		want.Exits[Success] = 1
		if c != want {
			t.Errorf("added after %d events: %+v, want %+v", n, c, want)
		}
		if news := tr.Take(); news.Listing || len(news.Looks)+len(news.Crashes) != 0 {
			t.Errorf("added after %d events: %+v", n, news)
		}
	}
}

// A root that is older than the history wants a listing.
func TestAddTooLate(t *testing.T) {
	tr := heard(t, fork(1*ms, 5, 100), fork(2*ms, 100, 101))
	for i := range int32(64) {
		tr.Apply([]procevents.Event{fork(time.Duration(10+i)*ms, 5, 300+i)})
	}
	tr.Add("a", 100, 3*ms)
	if !tr.Take().Listing {
		t.Fatal("no listing is wanted")
	}
	at := func(pid, ppid, sid int32) Proc {
		return Proc{PID: pid, PPID: ppid, SID: sid, State: 'S', Threads: 1, Read: 201 * ms}
	}
	l := Listing[string]{Begin: 1 * ms, All: true, Procs: []Proc{at(5, 1, 5), at(100, 5, 100), at(101, 100, 100), at(102, 1, 100), at(103, 1, 5)}}
	if tr.Rebuild(l) {
		t.Error("a listing was taken that is older than what is left of the history")
	}
	l.Begin = 200 * ms
	if !tr.Rebuild(l) {
		t.Fatal("refused")
	}
	wantPIDs(t, tr, 100, 101, 102)
	if c, _ := tr.Counts("a"); c.Found != 2 || c.Descendants != 2 || tr.Take().Listing {
		t.Errorf("%+v", c)
	}
}

func TestLeaderEndsFirst(t *testing.T) {
	tr := heard(t, fork(1*ms, 5, 100), fork(3*ms, 100, 101), thread(4*ms, 101, 102))
	tr.Add("a", 100, 2*ms)
	tr.Apply([]procevents.Event{exit(200*ms, 101, 101, 100, 0)})
	wantPIDs(t, tr, 100, 101)
	if p := tr.Tree("a")[1]; !p.LeaderGone || p.Threads != 1 {
		t.Errorf("%+v", p)
	}
	if tr.Apply([]procevents.Event{exit(201*ms, 101, 102, 0, 3<<8)}) != true {
		t.Error("no news of a crash")
	}
	wantPIDs(t, tr, 100)
	crashes := tr.Take().Crashes
	want := Crash[string]{Key: "a", PID: 101, Started: 3 * ms, At: 201 * ms, Status: 3 << 8}
	if len(crashes) != 1 || crashes[0] != want {
		t.Errorf("%+v, want %+v", crashes, want)
	}
}

// A thread executes: the leader ends, and its Exit may go by the thread's number
// and come after the Exec.
func TestExecFromThread(t *testing.T) {
	for name, late := range map[string]procevents.Event{
		"by its pid":           exit(5*ms, 101, 101, 100, 0),
		"by the thread's":      exit(9*ms, 101, 102, 0, 0),
		"by the thread's, old": exit(5*ms, 101, 102, 0, 0),
	} {
		tr := heard(t, fork(1*ms, 5, 100), fork(3*ms, 100, 101), thread(4*ms, 101, 102))
		tr.Add("a", 100, 2*ms)
		tr.Apply([]procevents.Event{execve(6*ms, 101), late})
		wantPIDs(t, tr, 100, 101)
		if p := tr.Tree("a")[1]; p.LeaderGone || p.Threads != 1 || !p.Execed {
			t.Errorf("%s: %+v", name, p)
		}
		tr.Apply([]procevents.Event{exit(200*ms, 101, 101, 100, 0)})
		wantPIDs(t, tr, 100)
	}
}

// The late Exit of an earlier process is not the end of the pid's new owner.
func TestPIDReused(t *testing.T) {
	tr := heard(t, fork(1*ms, 5, 100), fork(3*ms, 100, 101))
	tr.Add("a", 100, 2*ms)
	tr.Apply([]procevents.Event{fork(5*ms, 100, 101), exit(6*ms, 101, 101, 0, 9)})
	wantPIDs(t, tr, 100, 101)
	if p := tr.Tree("a")[1]; p.Started != 5*ms {
		t.Errorf("%+v", p)
	}
	if c, _ := tr.Counts("a"); c.Forks != 2 || c.Exited() != 1 {
		t.Errorf("%+v", c)
	}
	// The same of a stranger's pid: only a look tells.
	tr.Apply([]procevents.Event{fork(7*ms, 100, 102), exit(8*ms, 102, 102, 0, 9)})
	looks := tr.Take().Looks // 101 too: the Exit may have been the second one's
	if len(looks) != 2 || looks[0].PID != 101 || looks[1].PID != 102 {
		t.Fatalf("looks %+v", looks)
	}
	for _, l := range looks {
		tr.Answer(l, true, Proc{PID: l.PID, State: 'S', Threads: 1, Read: 9 * ms})
	}
	wantPIDs(t, tr, 100, 101, 102)
	tr.Apply([]procevents.Event{exit(300*ms, 102, 102, 100, 11)})
	wantPIDs(t, tr, 100, 101)
	if crashes := tr.Take().Crashes; len(crashes) != 1 || crashes[0].Status.Signal() != syscall.SIGSEGV {
		t.Errorf("%+v", crashes)
	}
}

// Two processes of one pid have both been reaped before their Exits were sent:
// nobody knows which had which status, and none is told.
func TestTwoExitsWithoutParent(t *testing.T) {
	tr := heard(t, fork(1*ms, 5, 100), fork(3*ms, 100, 101))
	tr.Add("a", 100, 2*ms)
	tr.Apply([]procevents.Event{fork(5*ms, 100, 101), exit(6*ms, 101, 101, 0, 9), exit(7*ms, 101, 101, 0, 3<<8)})
	news := tr.Take()
	if len(news.Looks) != 1 || len(news.Crashes) != 0 {
		t.Fatalf("%+v", news)
	}
	tr.Answer(news.Looks[0], false, Proc{Read: 8 * ms})
	wantPIDs(t, tr, 100)
	if c, _ := tr.Counts("a"); c.Forks != 2 || c.Exits[Unknown] != 2 || c.Exited() != 2 {
		t.Errorf("%+v", c)
	}
	if news := tr.Take(); len(news.Crashes) != 0 {
		t.Errorf("%+v", news)
	}
	// One from before the pid was given on is the earlier process's.
	tr.Apply([]procevents.Event{fork(10*ms, 100, 102), fork(12*ms, 100, 102), exit(11*ms, 102, 102, 0, 3<<8)})
	wantPIDs(t, tr, 100, 102)
	if c, _ := tr.Counts("a"); c.Exits[Failure] != 1 || c.Exited() != 3 {
		t.Errorf("%+v", c)
	}
	// One that does not come is not waited for for ever.
	tr.Apply([]procevents.Event{fork(20*ms, 100, 102)})
	if c, _ := tr.Counts("a"); c.Exited() != 3 || len(tr.owed) != 1 {
		t.Errorf("%+v, %d are owed", c, len(tr.owed))
	}
	tr.Apply([]procevents.Event{execve(500*ms, 5)})
	if c, _ := tr.Counts("a"); c.Exits[Unknown] != 3 || len(tr.owed) != 0 {
		t.Errorf("%+v, %d are owed", c, len(tr.owed))
	}
}

// A stranger's Exit that is still to come may be taken for that of a member which
// has its pid: if that has ended, nobody knows how.
func TestStrangersExit(t *testing.T) {
	for name, tc := range map[string]struct {
		before []procevents.Event
		want   Reason
	}{
		"owed":                {[]procevents.Event{fork(2*ms, 5, 101)}, Unknown},
		"came":                {[]procevents.Event{fork(2*ms, 5, 101), exit(3*ms, 101, 101, 0, 0)}, Signaled},
		"a former leader's":   {[]procevents.Event{fork(2*ms, 5, 101), exit(3*ms, 101, 101, 0, 0), execve(4*ms, 101)}, Unknown},
		"executed, not ended": {[]procevents.Event{execve(4*ms, 101)}, Unknown},
		"not heard of":        {nil, Signaled},
	} {
		tr := heard(t, append([]procevents.Event{fork(1*ms, 5, 100)}, tc.before...)...)
		tr.Add("a", 100, 1*ms)
		tr.Apply([]procevents.Event{fork(5*ms, 100, 101), exit(6*ms, 101, 101, 0, 9)})
		for _, l := range tr.Take().Looks {
			tr.Answer(l, false, Proc{Read: 8 * ms})
		}
		if c, _ := tr.Counts("a"); c.Exits[tc.want] != 1 || c.Exited() != 1 {
			t.Errorf("%s: %+v", name, c)
		}
	}
}

// The number of a process that has ended is given to a thread.
func TestPIDGivenToAThread(t *testing.T) {
	tr := heard(t, fork(1*ms, 5, 100), fork(3*ms, 100, 101))
	tr.Add("a", 100, 2*ms)
	tr.Apply([]procevents.Event{thread(5*ms, 5, 101)})
	wantPIDs(t, tr, 100)
	tr.Apply([]procevents.Event{exit(4*ms, 101, 101, 0, 9), exit(300*ms, 5, 101, 0, 0)})
	if c, _ := tr.Counts("a"); c.Exits[Signaled] != 1 || c.Exited() != 1 {
		t.Errorf("%+v", c)
	}
}

// The last task of a process ends after it was listed without a leader, and
// before the listing is taken.
func TestListedWithoutALeader(t *testing.T) {
	tr := heard(t, fork(1*ms, 5, 100), fork(3*ms, 100, 101), thread(4*ms, 101, 102))
	tr.Add("a", 100, 2*ms)
	tr.Lost(10 * ms)
	tr.Apply([]procevents.Event{exit(13*ms, 101, 102, 0, 0)})
	at := func(pid, ppid int32, state byte, threads int) Proc {
		return Proc{PID: pid, PPID: ppid, SID: 100, State: state, Threads: threads, Read: 12 * ms}
	}
	if !tr.Rebuild(Listing[string]{Begin: 11 * ms, All: true, Procs: []Proc{at(100, 5, 'S', 1), at(101, 100, 'Z', 2)}}) {
		t.Fatal("refused")
	}
	for _, l := range tr.Take().Looks {
		tr.Answer(l, false, Proc{Read: 14 * ms})
	}
	wantPIDs(t, tr, 100)
}

// A session that a member made unheard of, by what is in it.
func TestSessionNotHeardOf(t *testing.T) {
	tr := heard(t, fork(1*ms, 5, 100), procevents.Event{Kind: procevents.SID, Timestamp: 2 * ms, PID: 100, TGID: 100}, fork(3*ms, 100, 101))
	tr.Add("a", 100, 2*ms)
	at := func(pid, ppid, sid int32) Proc {
		return Proc{PID: pid, PPID: ppid, SID: sid, State: 'S', Threads: 1}
	}
	for i, procs := range [][]Proc{
		{at(100, 5, 100), at(101, 1, 70)}, // 70 made the session and ended
		{at(100, 5, 100), at(101, 1, 70), at(102, 1, 70), at(103, 1, 5)},
		{at(100, 5, 100), at(102, 1, 70), at(104, 1, 70), at(103, 1, 5)},
	} {
		begin := time.Duration(10*i+10) * ms
		tr.Lost(begin)
		for j := range procs {
			procs[j].Read = begin + ms
		}
		if !tr.Rebuild(Listing[string]{Begin: begin, All: true, Procs: procs}) {
			t.Fatal("refused")
		}
	}
	wantPIDs(t, tr, 100, 102, 104)
}

// A look may be ahead of the events: a Fork that is still queued counts.
func TestLookAhead(t *testing.T) {
	tr := heard(t, fork(1*ms, 5, 100), fork(3*ms, 100, 101))
	tr.Add("a", 100, 2*ms)
	tr.Apply([]procevents.Event{exit(6*ms, 101, 101, 0, 0)})
	tr.Answer(tr.Take().Looks[0], false, Proc{Read: 20 * ms})
	wantPIDs(t, tr, 100)
	tr.Apply([]procevents.Event{fork(5*ms, 101, 102)})
	wantPIDs(t, tr, 100, 102)
	tr.Apply([]procevents.Event{execve(21*ms, 5), fork(22*ms, 101, 103)})
	wantPIDs(t, tr, 100, 102)
	if len(tr.ghosts) != 0 {
		t.Error("what ended is remembered for ever")
	}
}

func TestPromote(t *testing.T) {
	tr := heard(t, fork(1*ms, 5, 100), fork(3*ms, 100, 101))
	tr.Add("a", 100, 2*ms)
	if tr.Promote("a", 999) || tr.Promote("b", 101) || tr.Promote("a", 100) || !tr.Promote("a", 101) {
		t.Fatal("promoted another")
	}
	tr.Apply([]procevents.Event{exit(200*ms, 100, 100, 5, 0), fork(201*ms, 101, 103)})
	wantPIDs(t, tr, 101, 103)
	if c, _ := tr.Counts("a"); c.Descendants != 1 || c.Exits[Success] != 1 {
		t.Errorf("%+v", c)
	}
	tr.Apply([]procevents.Event{exit(400*ms, 101, 101, 5, 9)})
	if c, _ := tr.Counts("a"); c.Exited() != 1 || len(tr.Take().Crashes) != 0 {
		t.Errorf("the end of a main process counts as a descendant's: %+v", c)
	}
}

func TestRemove(t *testing.T) {
	tr := heard(t, fork(1*ms, 5, 100), fork(3*ms, 100, 101))
	tr.Add("a", 100, 2*ms)
	if key, ok := tr.Owner(101); !ok || key != "a" {
		t.Errorf("owner %q %v", key, ok)
	}
	if c, ok := tr.Remove("a"); !ok || c.Forks != 1 {
		t.Errorf("%+v %v", c, ok)
	}
	if _, ok := tr.Remove("a"); ok {
		t.Error("removed twice")
	}
	tr.Apply([]procevents.Event{fork(5*ms, 101, 102)})
	if len(tr.procs) != 0 || tr.Tree("a") != nil {
		t.Error("it is still there")
	}
	if _, ok := tr.Owner(101); ok {
		t.Error("it still has an owner")
	}
}

// strangers is what a host does that runs nothing of ours.
func strangers() []procevents.Event {
	var events []procevents.Event
	for i := range int32(32) {
		at := time.Duration(i) * ms
		events = append(events, fork(at, 5, 1000+i), execve(at+1, 1000+i), thread(at+2, 1000+i, 5000+i), exit(at+3, 1000+i, 1000+i, 5, 0))
	}
	return events
}

func TestStrangersCostNoMemory(t *testing.T) {
	events := strangers()
	tr := heard(t, fork(1*ms, 5, 100))
	tr.Add("a", 100, 2*ms)
	if n := testing.AllocsPerRun(100, func() { tr.Apply(events) }); n != 0 {
		t.Errorf("%v allocations for %d events", n, len(events))
	}
	wantPIDs(t, tr, 100)
}

func BenchmarkApplyStrangers(b *testing.B) {
	events := strangers()
	tr := New[string](0)
	tr.Lost(0)
	for i := range int32(1000) {
		tr.Apply([]procevents.Event{fork(ms, 5, 10000+i)})
		tr.Add(string(rune(i)), 10000+i, 2*ms)
	}
	b.ReportAllocs()
	for b.Loop() {
		tr.Apply(events)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(events)), "ns/event")
}

func BenchmarkApplyMembers(b *testing.B) {
	tr := New[string](0)
	tr.Lost(0)
	tr.Apply([]procevents.Event{fork(ms, 5, 100)})
	tr.Add("a", 100, ms)
	at := time.Second
	events := make([]procevents.Event, 0, 96)
	b.ReportAllocs()
	for b.Loop() {
		events = events[:0]
		for i := range int32(32) {
			at += ms
			events = append(events, fork(at, 100, 1000+i), execve(at+1, 1000+i), exit(at+2, 1000+i, 1000+i, 100, 0))
		}
		tr.Apply(events)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*cap(events)), "ns/event")
}
