package spawn

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// crowd is how many signals are worth a hurry.
const crowd = 64

// hurry has the calling goroutine's thread run before all that is not real-time
// (SCHED_FIFO, sched(7)), until the function that it returns is called. Whoever is
// told to end has much to do: where it is a thousand, the one who tells would wait
// for a CPU behind those that know already, and the last be told ten times as
// late. Without CAP_SYS_NICE or RLIMIT_RTPRIO nothing changes, nor for a thread
// whose policy is not the usual one. What happens meanwhile has to be short, wait
// for no other thread and start no process, which would inherit it; Go starts its
// threads elsewhere while a thread is locked.
func hurry() (done func()) {
	runtime.LockOSThread()
	was, errno := policy()
	hurried := errno == 0 && was.Policy == unix.SCHED_NORMAL &&
		setPolicy(unix.SchedAttr{Policy: unix.SCHED_FIFO, Priority: 1, Flags: was.Flags}) == 0
	return func() {
		if hurried {
			// Which takes no privilege, the nice value being the one that it has.
			_ = setPolicy(unix.SchedAttr{Policy: unix.SCHED_NORMAL, Nice: was.Nice, Flags: was.Flags})
		}
		runtime.UnlockOSThread()
	}
}

// policy is sched_getattr(2) of the calling thread. Like setPolicy it tells Go's
// scheduler nothing: to come back from a system call can mean to wait for a thread
// that a real-time one does not let run.
func policy() (a unix.SchedAttr, errno unix.Errno) {
	_, _, errno = unix.RawSyscall6(unix.SYS_SCHED_GETATTR, 0, uintptr(unsafe.Pointer(&a)), unsafe.Sizeof(a), 0, 0, 0)
	return a, errno
}

// setPolicy is sched_setattr(2) for the calling thread.
func setPolicy(a unix.SchedAttr) unix.Errno {
	a.Size = uint32(unsafe.Sizeof(a))
	_, _, errno := unix.RawSyscall(unix.SYS_SCHED_SETATTR, 0, uintptr(unsafe.Pointer(&a)), 0)
	return errno
}
