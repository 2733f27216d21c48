package spawn

import (
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// siginfo is siginfo_t as waitid(2) fills it in. The fields after code begin
// at the alignment of a pointer.
type siginfo struct {
	signo, errno, code int32
	_                  [unsafe.Sizeof(uintptr(0))/4 - 1]int32
	pid                int32
	uid                uint32
	status             int32
	_                  [128 - 24 - 4*(unsafe.Sizeof(uintptr(0))/4-1)]byte
}

// Values of si_code for SIGCHLD, from include/uapi/asm-generic/siginfo.h.
const (
	cldExited = 1
	cldKilled = 2
	cldDumped = 3
)

// waitNow asks how the process of pidfd ended, without waiting for it. It
// reports false if the process lives, and errno ECHILD if it is not ours to
// wait for. With the flag WNOWAIT it leaves the process unreaped. Since Linux 5.4.
//
// The fifth argument of the system call, which the C library hides, is the
// resource usage of exactly this process: that of getrusage(RUSAGE_CHILDREN) is of all.
func waitNow(pidfd, flags int) (st Status, ended bool, errno syscall.Errno) {
	var info siginfo
	var ru unix.Rusage
	// Raw: it does not block, and so need not tell the scheduler.
	_, _, errno = syscall.RawSyscall6(unix.SYS_WAITID, unix.P_PIDFD, uintptr(pidfd),
		uintptr(unsafe.Pointer(&info)), uintptr(unix.WEXITED|unix.WNOHANG|flags), uintptr(unsafe.Pointer(&ru)), 0)
	if errno != 0 || info.pid == 0 {
		return Status{}, false, errno
	}
	return status(&info, &ru), true, 0
}

func status(info *siginfo, ru *unix.Rusage) Status {
	st := Status{
		Known:      true,
		UserTime:   time.Duration(ru.Utime.Nano()),
		SystemTime: time.Duration(ru.Stime.Nano()),
		MaxRSS:     ru.Maxrss * 1024, // the kernel counts KiB
	}
	switch info.code {
	case cldExited:
		st.Code = int(info.status)
	case cldKilled:
		st.Signal = int(info.status)
	case cldDumped:
		st.Signal, st.Core = int(info.status), true
	}
	return st
}

// peak is the largest resident set of this process, in bytes, when it was last
// asked for.
type peak struct{ size int64 }

// discount forgets the resident set of a process that used no more than this one
// ever did: it may be that of the image before execve(2), which was ours. Since
// ours only grows, a process that stayed below what it was earlier needs no
// system call.
func (p *peak) discount(st *Status) {
	if st.MaxRSS > p.size {
		var own unix.Rusage
		if unix.Getrusage(unix.RUSAGE_SELF, &own) == nil {
			p.size = own.Maxrss * 1024
		}
	}
	if st.MaxRSS <= p.size {
		st.MaxRSS = 0
	}
}

// waitDying reaps a child that is certain to die at once.
func waitDying(pidfd int) (st Status, errno syscall.Errno) {
	var info siginfo
	var ru unix.Rusage
	for {
		_, _, errno = syscall.Syscall6(unix.SYS_WAITID, unix.P_PIDFD, uintptr(pidfd),
			uintptr(unsafe.Pointer(&info)), unix.WEXITED, uintptr(unsafe.Pointer(&ru)), 0)
		if errno != syscall.EINTR {
			return status(&info, &ru), errno
		}
	}
}

// endNow ends and reaps a child of which nobody is to learn, and closes its pidfd.
func endNow(pidfd int) {
	_ = sendSignal(pidfd, int(unix.SIGKILL)) // fails if it is dead
	_, _ = waitDying(pidfd)
	unix.Close(pidfd)
}

// dead reports whether the whole process of pidfd has ended; it may be a
// zombie still. Since Linux 5.3. Its first thread may have ended before: /proc
// shows a zombie then, the pidfd does not.
func dead(pidfd int) bool {
	fds := [1]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds[:], 0)
	return err == nil && n > 0
}
