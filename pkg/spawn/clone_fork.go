package spawn

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// forkExec starts a child by the standard library, where clone3(2) can not be
// used: on another architecture, or where a seccomp filter forbids it. It
// cannot say which step failed, does not reset signals that the daemon
// ignores, and a child that hangs before execve cannot be reached.
func forkExec(t *target, fds *[3]int, cgroup int) (pid, pidfd int, err *StartError) {
	pidfd = -1
	attr := &syscall.ProcAttr{
		Dir:   t.dir,
		Env:   t.env,
		Files: []uintptr{uintptr(fds[0]), uintptr(fds[1]), uintptr(fds[2])},
		Sys:   &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd, UseCgroupFD: cgroup >= 0, CgroupFD: cgroup},
	}
	pid, e := syscall.ForkExec(t.path, t.args, attr)
	if e != nil {
		errno, _ := e.(syscall.Errno)
		return 0, -1, t.explain(&StartError{Op: forkExecOp(errno), Path: t.path, Errno: errno})
	}
	if pidfd < 0 {
		// The kernel gave none (Linux < 5.4). The pid is ours until it is waited for.
		if pidfd, e = unix.PidfdOpen(pid, 0); e != nil {
			errno, _ := e.(syscall.Errno)
			return 0, -1, &StartError{Op: "pidfd_open", Errno: errno}
		}
	}
	return pid, pidfd, nil
}

// forkExecOp guesses the step that failed.
func forkExecOp(errno syscall.Errno) string {
	switch errno {
	case syscall.EAGAIN, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM:
		return "clone"
	}
	return "exec"
}
