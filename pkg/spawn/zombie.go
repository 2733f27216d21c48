package spawn

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// zombie returns the pid of a child of this process that is to be reaped, 0 if there is
// none, and leaves it there. Since Linux 2.6.9.
func zombie() int {
	var info siginfo
	_, _, errno := unix.RawSyscall6(unix.SYS_WAITID, unix.P_ALL, 0,
		uintptr(unsafe.Pointer(&info)), unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(info.pid)
}
