//go:build linux && (amd64 || arm64)

package spawn

import (
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// clone makes a child that shares our memory and lets it run the n system calls
// of steps, the last of them execve(2). With CLONE_VFORK the thread sleeps until the
// child has left our memory, without they go on side by side: the child uses no
// stack. It returns the pid, or a negative errno.
//
//go:noescape
func clone(args *cloneArgs, size uintptr, steps *step, n uintptr, res *result) (pid uintptr)

// The scheduler is told of a wait, as of any system call that may block: so
// another goroutine can run meanwhile, and a child that hangs before execve
// stops neither the garbage collector nor anybody else. Stacks of goroutines
// in a system call are not moved. These names are kept for other packages,
// see go.dev/issue/67401; package syscall uses them in the same way.

//go:linkname entersyscall runtime.entersyscall
func entersyscall()

//go:linkname exitsyscall runtime.exitsyscall
func exitsyscall()

// cloneSyscall is clone, known to the scheduler.
//
//go:nosplit
//go:norace
func cloneSyscall(args *cloneArgs, steps *step, n uintptr, res *result) (pid uintptr) {
	entersyscall()
	pid = clone(args, unsafe.Sizeof(*args), steps, n, res)
	exitsyscall()
	return pid
}

// rawCloneSyscall is clone without CLONE_VFORK, which the scheduler is not told of: it blocks
// for no longer than the kernel moves processes between cgroups. It runs no Go, so the
// race detector has nothing to see.
//
//go:nosplit
//go:norace
func rawCloneSyscall(args *cloneArgs, steps *step, n uintptr, res *result) (pid uintptr) {
	return clone(args, unsafe.Sizeof(*args), steps, n, res)
}

// haveClone3 reports whether clone3(2) with all that we ask of it, and
// close_range(2), work here. Containers have been known to forbid the first.
var haveClone3 = sync.OnceValue(func() bool {
	// A size that no kernel takes: EINVAL if there is the system call at all.
	_, _, errno := syscall.RawSyscall(unix.SYS_CLONE3, 0, 0, 0)
	if errno != syscall.EINVAL {
		return false
	}
	// An empty range that is the wrong way round; since Linux 5.9.
	_, _, errno = syscall.RawSyscall(unix.SYS_CLOSE_RANGE, 2, 1, unix.CLOSE_RANGE_UNSHARE)
	return errno == syscall.EINVAL
})
