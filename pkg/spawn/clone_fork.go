package spawn

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// forkExec starts a child by the standard library, where clone3(2) can not be
// used: on another architecture, or where a seccomp filter forbids it. It
// cannot say which step failed, does not reset signals that the daemon
// ignores, and a child that hangs before execve cannot be reached.
func forkExec(t *target, fds *[3]int, cgroup int) (pid, pidfd int, err *StartError) {
	if what := t.beyondFork(); what != "" {
		return 0, -1, &StartError{Op: "clone3", Path: "for " + what, Errno: syscall.ENOSYS}
	}
	pidfd = -1
	attr := &syscall.ProcAttr{
		Dir:   t.dir,
		Env:   t.wholeEnv(),
		Files: []uintptr{uintptr(fds[0]), uintptr(fds[1]), uintptr(fds[2])},
		Sys:   &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd, UseCgroupFD: cgroup >= 0, CgroupFD: cgroup},
	}
	for _, fd := range t.passed {
		attr.Files = append(attr.Files, uintptr(fd))
	}
	if t.attr != nil && t.attr.Credential != nil {
		c := t.attr.Credential
		attr.Sys.Credential = &syscall.Credential{Uid: c.UID, Gid: c.GID, Groups: c.Groups, NoSetGroups: c.Groups == nil}
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
	if t.oom != nil {
		// The pid is ours until it is waited for. An error is of one that has ended.
		_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), strconv.AppendInt(nil, int64(*t.oom), 10), 0)
	}
	return pid, pidfd, nil
}

// wholeEnv is the environment in one.
func (t *target) wholeEnv() []string {
	if t.last == "" {
		return t.env
	}
	return append(slices.Clip(t.env), t.last)
}

// CanClone3 reports whether children are made by clone3(2). Where not, a Spec
// that asks for more than syscall.ForkExec can do fails with ENOSYS: any of
// Attributes but a Credential, and ListenNames.
func CanClone3() bool { return haveClone3() }

// beyondFork names what was asked for that syscall.ForkExec cannot do, or
// returns "". The capabilities of root go with its uid, those of another user
// have to be taken.
func (t *target) beyondFork() string {
	a := t.attr
	switch {
	case t.listen:
		return "LISTEN_PID"
	case a == nil:
		return ""
	case a.Umask != nil:
		return "umask"
	case a.Nice != nil:
		return "nice"
	case a.OOMScoreAdj != nil:
		return "oom_score_adj"
	case a.CPUs != nil:
		return "cpu_affinity"
	case a.Limits != nil:
		return "rlimits"
	case a.Capabilities != nil:
		return "capabilities"
	case a.NoNewPrivileges:
		return "no_new_privileges"
	case a.reduces() && unix.Geteuid() != 0:
		return "user"
	}
	return ""
}

// forkExecOp guesses the step that failed.
func forkExecOp(errno syscall.Errno) string {
	switch errno {
	case syscall.EAGAIN, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM:
		return "clone"
	}
	return "exec"
}
