package supervisor

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/pkg/procevents"
	"github.com/sentryd/sentryd/pkg/spawn"
	"github.com/sentryd/sentryd/pkg/supervisor/fsm"
)

// A survivor is not our child, and before Linux 6.15 the kernel forgets how it
// ended once its parent has reaped it. The proc connector tells, but of tasks: an
// exit has the code of that thread. wait(2) tells what ended the process, and
// else the code of its first thread (wait_task_zombie in kernel/exit.c, which
// goes by SIGNAL_GROUP_EXIT). The two are the same
//
//   - if the process had that one thread. Its threads are counted after the
//     connector is subscribed to, and each further one is heard of before it
//     runs (copy_process sends the event, wake_up_new_task follows). execve
//     ends all others, and its event comes before the program can make new ones.
//   - whatever threads there were, if the first was ended by a signal: that is
//     always the end of all (do_group_exit), where exit(2), the one call that ends
//     a thread alone, gives a code. Not so SIGSYS, by which seccomp may end a
//     thread alone; and who dumps core for all is another thread perhaps, which
//     alone says whether there is one.
//
// Everything else is not known, and so is what happens in a gap: after a loss the
// threads are counted anew. What makes no gap that anybody notices is left: another
// program that turns the connector off for all and on again within ten seconds
// (before Linux 6.6). And in the few instructions between exit(2), in earlier kernels
// exit_group(2) too, and the moment in which the code is settled, a deadly signal makes
// wait(2) tell of that instead: both were its end.

// obituaries are what is known of survivors whose status nobody else will tell,
// by pid. They know no clock and no lock: events and counts come in, in whatever
// order.
type obituaries map[int32]*obituary

type obituary struct {
	token   spawn.Token
	why     string      // nothing is known, because of that; "" once its threads were counted
	counted fsm.Instant // an instant before that
	threads int
	execed  fsm.Instant // when it last called execve
	forked  fsm.Instant // when it last got a further thread, after that
	exited  fsm.Instant // when its first thread ended, after all that
	status  unix.WaitStatus
	taken   fsm.Instant // when its pid became another's
	awaited bool        // it is dead, and somebody waits for this
}

// attend has what is heard of a process noted from now on.
func (os obituaries) attend(pid int32, t spawn.Token) *obituary {
	o := os[pid]
	if o == nil || o.token != t {
		o = &obituary{token: t, why: whyNotCounted}
		os[pid] = o
	}
	return o
}

// count takes in that the process had so many threads. It lived then, and at is
// before that: what is older is contained in it.
func (os obituaries) count(pid int32, t spawn.Token, threads int, at fsm.Instant) {
	o := os[pid]
	if o == nil || o.token != t {
		return
	}
	o.why, o.threads, o.counted = "", threads, at
	if o.exited <= at {
		o.exited = 0
	}
	if o.taken < at {
		o.taken = 0
	}
}

// lose forgets what may not be so any more.
func (os obituaries) lose(why string) {
	for _, o := range os {
		if !o.settled() {
			*o = obituary{token: o.token, awaited: o.awaited, why: why}
		}
	}
}

// apply takes in an event, in the order of arrival. It reports whether somebody
// waits for what it tells.
func (os obituaries) apply(e *procevents.Event) (awaited bool) {
	o := os[e.TGID]
	if o == nil || o.counted != 0 && o.taken != 0 {
		return false
	}
	switch at := e.Timestamp; {
	case e.Kind == procevents.Fork && e.IsThread():
		o.forked = at + 1 // not in the same grain of the clock as what it follows
	case e.Kind == procevents.Fork:
		if at >= o.counted {
			o.taken = at
			return o.awaited
		}
	case e.Kind == procevents.Exec && at > o.counted:
		// An exit before it was that of the thread that led until then.
		o.execed, o.forked, o.exited = at, 0, 0
	case e.Kind == procevents.Exit && !e.IsThread() && at > o.base() && (o.exited == 0 || o.counted == 0):
		o.exited, o.status = at, unix.WaitStatus(e.ExitCode)
		return o.awaited
	}
	return false
}

// base is since when it is known how many threads there are.
func (o *obituary) base() fsm.Instant { return max(o.counted, o.execed) }

// alone reports whether the process has had one thread since base.
func (o *obituary) alone() bool {
	return (o.execed > o.counted || o.threads == 1) && o.forked <= o.base()
}

// settled reports whether it is known how the process ended.
func (o *obituary) settled() bool {
	return o.why == "" && o.exited != 0 && (o.alone() || endsAll(o.status))
}

// endsAll reports whether a thread with that status ended with its whole process,
// and in the same way.
func endsAll(s unix.WaitStatus) bool {
	if !s.Signaled() {
		return false
	}
	switch s.Signal() {
	case unix.SIGQUIT, unix.SIGILL, unix.SIGTRAP, unix.SIGABRT, unix.SIGBUS, unix.SIGFPE, unix.SIGSEGV, unix.SIGXCPU, unix.SIGXFSZ, unix.SIGSYS:
		return s.CoreDump()
	}
	return true
}

// A verdict says what may be said of how a process ended.
type verdict uint8

const (
	unknown verdict = iota // nobody knows
	pending                // it may be told yet
	known
)

// verdict tells of a process that was seen to be dead at an instant. why is the
// reason if it is unknown, "" if the process is not attended to.
func (os obituaries) verdict(pid int32, t spawn.Token, at fsm.Instant) (v verdict, st spawn.Status, why string) {
	o := os[pid]
	switch {
	case o == nil || o.token != t:
		return unknown, st, ""
	case o.why != "":
		return unknown, st, o.why
	case o.exited == 0 && o.taken != 0:
		// An exit may be heard after its pid was given away. Whose would it be?
		return unknown, st, whyNotTold
	case o.exited == 0:
		return pending, st, ""
	case !o.settled(), !o.alone() && at > o.exited+togetherWithin:
		return unknown, st, whySeveral
	}
	st = spawn.Status{Known: true, NoUsage: true}
	if o.status.Signaled() {
		st.Signal, st.Core = int(o.status.Signal()), o.status.CoreDump()
	} else {
		st.Code = o.status.ExitStatus()
	}
	return known, st, ""
}

// togetherWithin is how long after its first thread a process may end that a
// signal ended. A kernel that met a fault of its own ends a thread as if by a
// signal, and the others go on.
const togetherWithin = 10 * time.Second

// Why the connector does not tell how a survivor ended, after whyReaped.
const (
	whyNotCounted = "it ended before its threads were counted"
	whySeveral    = "it had several threads, and what the proc connector tells is about one of them"
	whyLostEvents = "the proc connector lost events"
	whyNotHeard   = "the proc connector is not heard"
	whyNotTold    = "the proc connector did not tell of it"
)
