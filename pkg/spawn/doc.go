// Package spawn starts child processes, signals them, and reports each exit
// exactly once, for any number of children in a fixed number of goroutines.
//
// It knows processes, the trees that descend from them, and what the kernel says
// of both. It does not know why a process is started, what its exit means, or when to start the
// next: those are the caller's. The caller names each start by a Token, and
// gets Events.
//
//	pool, err := spawn.New(spawn.Options{})
//	pool.Start(1, &spawn.Spec{Path: "sleep", Args: []string{"sleep", "4"}, Env: os.Environ()})
//	for {
//		pool.Wait(-1)
//		for _, e := range pool.Events(nil) {
//			fmt.Println(e.Kind, e.Token, e.PID, e.Status.Code)
//		}
//	}
//
// # What holds
//
// A child leads its own session and process group. It has the descriptors 0, 1
// and 2, those of Spec.Files and no other, no signal blocked, ignored or caught,
// the limit on descriptors that this process was started with, and an
// oom_score_adj that is not below 0, unless its Attributes say otherwise.
//
// For each token there is one Started or StartFailed; after Started one
// Exited; after an Exited whose tree was not empty one TreeEmpty. A child
// that dies before its program is called with execve(2) is a StartFailed. One
// that is killed while the kernel executes that call counts as started, and ended by the signal.
//
// Signals go through pidfds only, so none reaches a process that got the pid
// of a dead one. Only children of the Pool are waited for, each by its pidfd;
// other code in the process, os/exec say, may have its own.
//
// A file system that hangs costs the starts that need it, which fail with
// ETIMEDOUT, and nobody else.
//
// # After the death of a parent
//
// A child goes on when the process that started it dies. Its Identity, which
// comes with Started where Options.Identify is set, can be written down: the
// next process opens a pidfd by it (Identity.Open) and has Adopt watch it, as a
// Survivor.
// A child whose identity could not be written down any more is found by
// FindLeaders, after EndUnexeced has ended what had not come to execve.
//
// # How a child is made
//
// On amd64 and arm64 by clone3(2) with CLONE_VM, CLONE_FILES, CLONE_PIDFD,
// CLONE_CHILD_CLEARTID and CLONE_CLEAR_SIGHAND. Between clone and execve the child runs
// a list of system calls that was prepared beforehand (see program), from a
// few lines of assembly and no Go at all, and nobody waits for it (see flight).
// Compared with syscall.ForkExec, measured on Linux 6.18 with two CPUs:
//
//   - 35 % more starts a second of a small static program, since there are no
//     57 calls of rt_sigaction and no status pipe.
//   - With 10,000 descriptors open a start takes 0.2 ms of CPU time instead of
//     1.1 ms: the table of descriptors is shared and its lowest part copied by
//     close_range(2) with CLOSE_RANGE_UNSHARE, rather than copied whole and closed
//     again. No child holds a copy of another's pidfd.
//   - A child that hangs before execve keeps nobody waiting, neither the next
//     start nor the garbage collector, holds no lock, and can be killed.
//   - An error names the step that failed.
//   - Signals that this process ignored when the Pool was made are not ignored in
//     the child.
//
// Elsewhere, and where a seccomp filter forbids clone3, it is
// syscall.ForkExec, for which these five do not hold.
//
// # Kernels
//
// An Identity that needs no second opinion: 6.9. The status of an orphan that was
// reaped by another: 6.15; before it Untold says who needs another witness.
//
// Linux 5.10 or later (CLONE_CLEAR_SIGHAND 5.5, CLONE_INTO_CGROUP 5.7,
// close_range 5.9). Before 5.14 there is no cgroup.kill: then the cgroup is
// frozen, each process in it signaled, and thawed. Before 6.9 there is no
// PIDFD_SIGNAL_PROCESS_GROUP: then /proc is read for the members of a group.
//
// # Trees
//
// What descends from a child is its tree, and it is followed beyond the end of
// the child: see Place. In a cgroup (Cgroups) it is exact, and an exit
// costs one look at a file. Without one the process becomes a child subreaper,
// so that orphans stay below it, and an exit costs a look at the lists of our
// children (CONFIG_PROC_CHILDREN, else /proc is read); an orphan that has both a session and an
// environment of its own can not be told whose it is.
// Orphans are reaped by their own pids. For that, other code in the process must
// not start children in sessions of their own.
package spawn
