// Package lineage keeps who descends from which program: it is given the
// kernel's process events (package procevents) and the main processes of the
// programs, and knows at any time which processes each of them has left behind
// it, how many it forked, and how they ended.
//
//	t := lineage.New[string](0)
//	t.Lost(now)                       // events are heard from now on
//	t.Add("web:0", pid, startedAt)    // the owner: a main process was started
//	t.Apply(events)                   // the reader: what Receive returned
//	news := t.Take()                  // the owner: crashes, and what to look at
//
// A program is a root. Its members are its main process and all that was forked
// below that, however deep; a process that forks twice, leads a session of its
// own or is handed to init stays a member. The members other than the main
// process are called descendants. Threads are no members.
//
// The package knows events, pids and the moments of forks. It must not know
// what a root is for, when to restart it, or what a crash means: it tells, and
// somebody else decides. All of it is values in, values out, but for the file
// that reads /proc and cgroup.procs, whose results go in as values too: so it is
// tested against a simulated kernel.
//
// # Who calls what
//
// A [Tracker] is safe for concurrent use: one mutex guards it. It is meant for
// one goroutine that reads the connector and calls [Tracker.Apply] and
// [Tracker.Lost], and one that owns the roots and calls everything else. No
// method waits for anything but that mutex; the longest hold is that of
// [Tracker.Rebuild], in proportion to the processes listed.
// The events of one connector go in by one goroutine, in the order of their
// arrival. [Tracker.Apply] says when there is something to [Tracker.Take].
//
// # What it rests on
//
//   - A task sends its events itself, before it goes on: a fork is in the
//     socket's queue before the child first runs (proc_fork_connector precedes
//     wake_up_new_task in kernel/fork.c). So the events that depend on each
//     other arrive in order, also from different CPUs, whatever their
//     timestamps. An event with a timestamp of T arrives after all that were
//     queued before T.
//
//   - The one exception is Exit: the parent is told first, and the event is sent
//     later. The pid may be another's by then, and that one's Fork have arrived.
//     Identity is the pid and the timestamp of its Fork. An Exit that has a parent,
//     or is from before the next Fork, is told as it was. One that has none, where
//     two processes of the pid may have ended, is nobody's for certain: both are
//     counted as [Unknown], and neither is told as a crash (owed.go says why nothing
//     in the event helps). Who lives is found out by a look, and is right even where
//     pids are reused within microseconds. Two things are assumed:
//     an Exit comes within 100 ms after its pid was given on, and not from a process
//     of which the whole history has nothing.
//
//   - Exit is per task. A process has ended when its last task has, so its
//     threads are counted, by their tgid. An execve from any thread ends all
//     others, and what is left is the leader. Where threads may have been made
//     before anybody listened, no count is to be relied on, and the tracker asks
//     for a look at the process instead ([News.Looks]).
//
//   - The Fork of a thread names the parent of its process as parent.
//
//   - The exit status of a process is that of its leader, or, if that is zero,
//     of its last task. A thread that ended alone and failed is not told apart.
//
//   - Where a main process leads a session of its own, every session that a
//     descendant is in was made by a member, heard of or not.
//
//   - A root may be added before or after the events about it arrived. Events
//     about processes that are no members are kept for a while (see [New]), and
//     those of a new root are found among them.
//
//   - A Fork with CLONE_PARENT names the forker's parent. Such a child of a main
//     process is not seen as a member, unless a listing of its cgroup has it.
//
//   - Events can be lost. [Tracker.Lost] says so, and the tracker then wants a
//     listing of processes ([News.Listing], [Tracker.Rebuild]). What was already a
//     member stays one if it is still there; others are found by their cgroup,
//     parents and sessions. Without a cgroup a process that was forked, left its
//     session and lost its parent, all within the gap, is not found.
//
//   - The start time in /proc has a resolution of 10 ms. A pid that is reused
//     within that, in a gap between events, is taken for the process it was;
//     outside a gap its Fork puts that right.
//
//   - A look or listing may be ahead of the events that are still queued. Then an end is
//     known by it, and what the process did last is not counted.
//
// The cost is bounded by the members that live and by the history. An event
// about anything else costs one or two lookups in a map and allocates nothing.
package lineage
