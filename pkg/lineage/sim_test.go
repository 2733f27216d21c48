package lineage

import (
	"slices"
	"syscall"
	"time"

	"github.com/sentryd/sentryd/pkg/procevents"
)

// kernel is a simulated kernel: tasks that fork, execute and end, a pid table
// that reuses numbers, and the queue of a connector's socket. It keeps to what
// the real one promises and to nothing else: a task queues its event before it
// goes on, some time after the timestamp was taken, and an exiting task does so
// after its process may have been reaped and its pid reused.
type kernel struct {
	choose chooser
	now    time.Duration
	pidMax int32
	cyclic bool // pids are given out in turn, else at random
	last   int32
	procs  []*simProc // all that have a pid, zombies too, oldest first
	inUse  map[int32]bool
	flight []*inFlight
	queue  []procevents.Event
	deaf   bool // the socket takes nothing
	daemon *simProc

	noSessions bool // nobody calls setsid at present
	ended      map[string]*truth
}

// chooser makes the choices of a run.
type chooser interface{ intN(n int) int }

type truth struct {
	counts  Counts
	crashes []Crash[string]
}

type simProc struct {
	pid, sid   int32
	key        string // the root, "" for strangers
	main       bool
	forked     time.Duration // timestamp of the Fork
	booted     time.Duration // start time as /proc would have it, uncut
	creator    *simProc      // nil once it ended
	tasks      []*simTask
	leaderGone bool
	status     uint32 // of a group exit
	dead       bool   // all tasks have ended
	released   bool
	execed     bool
	core       bool
}

type simTask struct {
	tid  int32
	busy bool // its event is not queued yet
}

// inFlight is an event that a task is about to queue.
type inFlight struct {
	e       procevents.Event
	task    *simTask
	of      *simProc
	stamped bool
	then    func() // what the task does next
}

func newKernel(c chooser, pidMax int32, cyclic bool) *kernel {
	k := &kernel{choose: c, now: time.Hour, pidMax: pidMax, cyclic: cyclic, inUse: map[int32]bool{}, ended: map[string]*truth{}}
	k.daemon = k.newProc(nil)
	k.newProc(nil)
	return k
}

func (k *kernel) truth(key string) *truth {
	if k.ended[key] == nil {
		k.ended[key] = &truth{}
	}
	return k.ended[key]
}

func (k *kernel) tick() { k.now += time.Duration(1 + k.choose.intN(20000)) }

// number gives out a pid or tid, 0 if there is none.
func (k *kernel) number() int32 {
	free := func(n int32) bool {
		if k.inUse[n] {
			return false
		}
		for _, p := range k.procs { // the number of a session with members
			if p.sid == n {
				return false
			}
		}
		return true
	}
	n := k.last
	if !k.cyclic {
		n = int32(k.choose.intN(int(k.pidMax)))
	}
	for range k.pidMax {
		n = n%k.pidMax + 1
		if free(n) {
			k.last = n
			k.inUse[n] = true
			return n
		}
	}
	return 0
}

func (k *kernel) newProc(parent *simProc) *simProc {
	pid := k.number()
	if pid == 0 {
		return nil
	}
	p := &simProc{pid: pid, sid: pid, creator: parent, booted: k.now}
	if parent != nil {
		p.sid, p.key = parent.sid, parent.key
	}
	p.tasks = []*simTask{{tid: pid}}
	k.procs = append(k.procs, p)
	return p
}

// send has a task send an event: its timestamp is taken now or soon.
func (k *kernel) send(p *simProc, t *simTask, e procevents.Event, then func()) *inFlight {
	f := &inFlight{e: e, task: t, of: p, then: then}
	t.busy = true
	k.flight = append(k.flight, f)
	return f
}

func (k *kernel) stamp(f *inFlight) {
	k.tick()
	f.stamped = true
	f.e.Timestamp = k.now
	if f.e.Kind == procevents.Exit {
		f.e.PID = f.task.tid                       // as it is by now, an execve may have changed it
		if f.e.PID == f.e.TGID && !f.of.released { // threads are released at once
			f.e.ParentPID, f.e.ParentTGID = 1, 1
		}
	}
}

// land moves an event that is in flight on: it is stamped, or queued.
func (k *kernel) land(i int) {
	f := k.flight[i]
	if !f.stamped {
		k.stamp(f)
		return
	}
	k.flight = slices.Delete(k.flight, i, i+1)
	if !k.deaf {
		k.queue = append(k.queue, f.e)
	}
	f.task.busy = false
	if f.then != nil {
		f.then()
	}
}

// settle lands everything.
func (k *kernel) settle() {
	for len(k.flight) > 0 {
		k.land(k.choose.intN(len(k.flight)))
	}
}

// fork makes a process. It runs once its Fork is queued.
func (k *kernel) fork(p *simProc, t *simTask) *simProc {
	child := k.newProc(p)
	if child == nil {
		return nil
	}
	k.tick()
	child.tasks[0].busy = true
	f := k.send(p, t, procevents.Event{Kind: procevents.Fork, PID: child.pid, TGID: child.pid, ParentPID: t.tid, ParentTGID: p.pid},
		func() { child.tasks[0].busy = false })
	k.stamp(f)
	child.forked = f.e.Timestamp
	if child.key != "" {
		k.truth(child.key).counts.Forks++
	}
	return child
}

func (k *kernel) clone(p *simProc, t *simTask) {
	tid := k.number()
	if tid == 0 {
		return
	}
	if slices.ContainsFunc(k.flight, func(f *inFlight) bool { return f.e.Kind == procevents.Exit && f.task.tid == tid }) {
		// A thread's number that is given to another thread before the Exit of the
		// first is sent tells nobody which of them has ended.
		delete(k.inUse, tid)
		return
	}
	n := &simTask{tid: tid, busy: true}
	p.tasks = append(p.tasks, n)
	f := k.send(p, t, procevents.Event{Kind: procevents.Fork, PID: tid, TGID: p.pid, ParentPID: 1, ParentTGID: 1}, func() { n.busy = false })
	k.stamp(f)
}

func (k *kernel) simple(p *simProc, t *simTask, kind procevents.Kind, then func()) {
	k.stamp(k.send(p, t, procevents.Event{Kind: kind, PID: t.tid, TGID: p.pid}, then))
}

func (k *kernel) setsid(p *simProc, t *simTask) {
	if p.sid == p.pid || k.noSessions {
		return
	}
	p.sid = p.pid
	k.simple(p, t, procevents.SID, nil)
}

// exitTask is exit_notify of one task, and then its Exit event.
func (k *kernel) exitTask(p *simProc, t *simTask, code uint32) *inFlight {
	p.tasks = slices.DeleteFunc(p.tasks, func(o *simTask) bool { return o == t })
	if t.tid == p.pid {
		p.leaderGone = true
	} else {
		delete(k.inUse, t.tid)
	}
	if len(p.tasks) == 0 {
		k.died(p)
	}
	return k.send(p, t, procevents.Event{Kind: procevents.Exit, TGID: p.pid, ExitCode: code}, nil)
}

func (k *kernel) died(p *simProc) {
	p.dead = true
	for _, c := range k.procs {
		if c.creator == p {
			c.creator = nil
		}
	}
	if p.key == "" || p.main {
		return
	}
	ws := syscall.WaitStatus(p.status)
	tr := k.truth(p.key)
	tr.counts.Exits[reasonOf(ws)]++
	if reasonOf(ws) != Success {
		tr.crashes = append(tr.crashes, Crash[string]{Key: p.key, PID: p.pid, Started: p.forked, Status: ws, Execed: p.execed, Coredump: p.core})
	}
}

func (k *kernel) exitGroup(p *simProc, code uint32) {
	p.status = code
	for len(p.tasks) > 0 {
		k.exitTask(p, p.tasks[k.choose.intN(len(p.tasks))], code)
	}
}

// exec replaces the program from any thread, which becomes the leader.
func (k *kernel) exec(p *simProc, t *simTask) {
	for _, o := range slices.Clone(p.tasks) {
		if o == t {
			continue
		}
		f := k.exitTask(p, o, 0)
		if o.tid == p.pid && k.choose.intN(2) == 0 {
			k.stamp(f)
		}
	}
	for _, f := range k.flight {
		if f.of == p && f.e.Kind == procevents.Exit && f.task.tid == p.pid {
			f.task.tid = t.tid // the former leader's, and of its Exit unless that is stamped
		}
	}
	if t.tid != p.pid {
		delete(k.inUse, t.tid)
	}
	t.tid = p.pid
	p.leaderGone = false
	p.execed = true
	k.tick()
	k.simple(p, t, procevents.Exec, nil)
	if p.key != "" {
		k.truth(p.key).counts.Execs++
	}
}

// reap releases a zombie.
func (k *kernel) reap(p *simProc) {
	p.released = true
	k.procs = slices.DeleteFunc(k.procs, func(o *simProc) bool { return o == p })
	delete(k.inUse, p.pid)
}

// busy says whether a task of the process is between an event and the next thing
// that it does.
func (p *simProc) busy() bool {
	return slices.ContainsFunc(p.tasks, func(t *simTask) bool { return t.busy })
}

// act has some task do something.
func (k *kernel) act() {
	k.tick()
	p := k.procs[k.choose.intN(len(k.procs))]
	if p.dead {
		if !p.main {
			k.reap(p)
		}
		return
	}
	t := p.tasks[k.choose.intN(len(p.tasks))]
	if t.busy || p == k.daemon {
		return
	}
	live := len(k.procs)
	switch what := k.choose.intN(20); {
	case what < 6 && live < int(k.pidMax)/2 && live < 300:
		k.fork(p, t)
	case what < 8 && len(p.tasks) < 5:
		k.clone(p, t)
	case what < 10 && len(p.tasks) > 1 && !p.busy():
		k.exitTask(p, t, 0) // alone, the leader perhaps
	case what < 12 && !p.busy():
		k.exec(p, t)
	case what == 12:
		k.setsid(p, t)
	case what < 16 && live > 8 && !p.busy() && !k.exiting(p):
		codes := []uint32{0, 3 << 8, uint32(syscall.SIGKILL)}
		k.exitGroup(p, codes[k.choose.intN(len(codes))])
	case what == 16 && !p.busy() && live > 8 && !k.exiting(p):
		p.core = true
		if p.key != "" {
			k.truth(p.key).counts.Coredumps++
		}
		k.simple(p, t, procevents.Coredump, nil)
		k.land(len(k.flight) - 1)
		k.exitGroup(p, uint32(syscall.SIGSEGV)|0x80)
	}
}

// exiting says whether a task's exit by itself is not queued yet, after which a
// group exit of the rest would have a status that no listener can know.
func (k *kernel) exiting(p *simProc) bool {
	return slices.ContainsFunc(k.flight, func(f *inFlight) bool { return f.of == p && f.e.Kind == procevents.Exit })
}

// members are a root's living processes.
func (k *kernel) members(key string) (out []*simProc) {
	for _, p := range k.procs {
		if p.key == key && !p.dead {
			out = append(out, p)
		}
	}
	return out
}

// stat is what /proc shows of a process.
func (k *kernel) stat(pid int32) (Proc, bool) {
	for _, p := range k.procs {
		if p.pid != pid {
			continue
		}
		at := Proc{Read: k.now, PID: p.pid, PPID: 1, SID: p.sid, State: 'S', Threads: len(p.tasks), Ticks: uint64(p.booted / (10 * time.Millisecond))}
		at.Started = time.Duration(at.Ticks) * 10 * time.Millisecond
		if p.creator != nil {
			at.PPID = p.creator.pid
		}
		if p.leaderGone {
			at.State = 'Z'
			at.Threads++
		}
		if p.dead {
			at.State, at.Threads = 'Z', 1
			at.Status, at.StatusKnown = syscall.WaitStatus(p.status), true
		}
		return at, true
	}
	return Proc{Read: k.now}, false
}
