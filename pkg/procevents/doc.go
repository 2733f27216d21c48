// Package procevents reads the kernel's process events: every fork, exec, exit
// and change of identity on the host, as it happens, from the netlink proc
// connector (drivers/connector/cn_proc.c; Linux 2.6.15 and later, written for
// and tried on 5.10 and later).
//
//	l, err := procevents.Dial(procevents.Config{Buffer: 8 << 20})
//	if err != nil {
//		return err // says why this host or user cannot have events
//	}
//	defer l.Close()
//	events := make([]procevents.Event, 256)
//	for {
//		n, err := l.Receive(events)
//		switch {
//		case errors.Is(err, procevents.ErrLost):
//			// some events are lost: read again all that you track
//		case err != nil:
//			return err // perhaps ErrSilent: dial anew, and read again
//		}
//		for _, e := range events[:n] {
//			fmt.Println(e)
//		}
//	}
//
// [Listener.Receive] takes many datagrams with one system call, waits in Go's
// poller rather than in a thread, and allocates nothing. [Decode] is a
// pure function for those who have datagrams from elsewhere. [Config].Kinds says
// which events are wanted; the kernel is kept from sending others where it can
// be: by the connector's own filter from Linux 6.6 on, by a socket filter
// before, and not at all where a kernel takes a filtered event for the end of
// all listening (6.6 before 6.6.18, 6.7 before 6.7.6). [Listener.SetKinds] changes
// what comes while it does.
//
// The package knows the connector's socket and its messages. It knows nothing
// of what they mean to a program: it keeps no table of processes, reads no
// process's files and decides nothing.
//
// # What to know before relying on it
//
// Events are hints. They can be lost when the reader is slow, they can stop
// without an error on the socket, and they do not come at all in many places
// where a program may run. Use them to learn at once what else would be learnt
// late or never, and have something exact, a pidfd or a cgroup, for what must
// not be missed.
//
//   - Where: only the initial PID and user namespaces are answered, which rules
//     out most containers; in a network namespace of one's own the connector is
//     not there. Before Linux 6.6 CAP_NET_ADMIN is needed. [Supported] and
//     [Dial] find out by trying, and return errors that say what is in the way.
//   - Loss: an event costs 832 bytes of the socket's buffer, so the usual
//     default holds 256 of them. After an overrun the kernel adds nothing until
//     the socket has been emptied. Receive first returns all that was queued
//     before the loss and then a [LostError], once, at the moment when the
//     socket takes events again: what is read from /proc after that is newer
//     than the gap. It says how many, as far as the kernel has counted.
//   - Silence: another program's unsubscribing, or one of some kernels' bugs,
//     can stop the events of everybody, without an error. When nothing was heard
//     for ten seconds Receive has its thread cause a harmless event (it takes the
//     name that it has), and when that does not arrive returns [ErrSilent].
//     Where there is always something to hear this never happens. A program
//     that receives too seldom to notice by itself learns it at its next Receive.
//   - Subscribing: the kernel's answer to a request may be filtered, and comes
//     to everybody. Dial waits for an event of its own instead.
//   - Order: a task queues its event before it goes on, and a fork's before the
//     child first runs (kernel/fork.c: copy_process sends it, wake_up_new_task
//     follows). So events that depend on each other arrive in that order, whatever
//     CPU they come from: a child's exec after its fork. Others may arrive in
//     another order than their timestamps, which are CLOCK_MONOTONIC and taken a
//     little before the event is queued. Exit is the exception, see below.
//   - Exit is per task, not per process. A leader thread that ends first gives
//     an Exit whose PID equals its TGID while the process lives on, and so does
//     an execve from another thread. Take it as "look at this process now".
//   - A fork event of a thread (see [Event.IsThread]) names the parent of its
//     process as parent, not the thread that made it.
//   - An Exit is sent after the parent was told (do_exit in kernel/exit.c). A
//     fast wait can return before the event is made: then its timestamp is later
//     than the wait and its parent is zero. Its pid may have a new owner by then,
//     whose Fork has arrived: with a parent, the last process of the pid that was
//     forked before the timestamp ended, and without one nothing in the event tells which.
//   - The parent in a Coredump may be zero too.
//   - A failed exec shows as an exit of a process that still has its parent's
//     name.
//   - Sequence numbers count per CPU, hidden events too: a gap is a loss only
//     where nothing is filtered. Receive looks at them then.
//   - A subscription has a price for others: a fork storm runs a quarter to a
//     half slower while somebody listens. The kernel makes each message before it
//     asks whether anybody wants that kind, so a filter spares the reader, not those
//     who fork.
//   - A reader's own price is mostly that of being woken. One that can wait a few
//     milliseconds between calls of Receive has the events of that time in one
//     batch, and nothing of it is woken meanwhile.
package procevents
