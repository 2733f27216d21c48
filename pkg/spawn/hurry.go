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
// whose policy is not the usual one. What happens meanwhile has to be short and
// start no process, which would inherit it; Go starts its threads elsewhere while
// a thread is locked.
func hurry() (done func()) {
	runtime.LockOSThread()
	was, err := unix.SchedGetAttr(0, 0)
	hurried := err == nil && was.Policy == unix.SCHED_NORMAL &&
		setPolicy(unix.SchedAttr{Policy: unix.SCHED_FIFO, Priority: 1, Flags: was.Flags}) == nil
	return func() {
		if hurried {
			// Which takes no privilege.
			_ = setPolicy(unix.SchedAttr{Policy: unix.SCHED_NORMAL, Nice: was.Nice, Flags: was.Flags})
		}
		runtime.UnlockOSThread()
	}
}

// setPolicy is sched_setattr(2) for the calling thread.
func setPolicy(a unix.SchedAttr) error {
	a.Size = uint32(unsafe.Sizeof(a))
	return unix.SchedSetAttr(0, &a, 0)
}
