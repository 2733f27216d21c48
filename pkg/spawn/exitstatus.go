package spawn

import (
	"os"

	"golang.org/x/sys/unix"
)

// ExitStatus returns how a process ended that is not this one's child, and
// false if it lives. What nobody can know any more has Known == false.
//
// After the reap the kernel tells everybody who holds a pidfd from before
// (PIDFD_GET_INFO with PIDFD_INFO_EXIT, Linux 6.15), but not what the process
// used up. Before it, the zombie's /proc/PID/stat tells those who may trace the
// process.
func ExitStatus(pidfd int) (st Status, ended bool) {
	if !dead(pidfd) {
		return Status{}, false
	}
	return exitStatus(pidfd), true
}

func exitStatus(pidfd int) Status {
	for range 2 { // it may be reaped between the two
		if st, ok := keptStatus(pidfd); ok {
			return st
		}
		if st, ok := zombieStatus(pidfd); ok {
			return st
		}
	}
	return Status{}
}

// keptStatus asks pidfs, which keeps the status of a process that was reaped
// while somebody held a pidfd.
func keptStatus(pidfd int) (Status, bool) {
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	if unix.IoctlPidfdInfo(pidfd, &info) != nil || info.Mask&unix.PIDFD_INFO_EXIT == 0 {
		return Status{}, false
	}
	st := waitStatus(int(info.Exit_code))
	st.NoUsage = true
	return st, true
}

// zombieStatus reads /proc of a process that is dead and not reaped.
func zombieStatus(pidfd int) (Status, bool) {
	pid, err := pidOf(pidfd)
	if err != nil {
		return Status{}, false
	}
	zombie, err := readStat(pid)
	if err != nil || zombie.state != 'Z' && zombie.state != 'X' {
		return Status{}, false
	}
	// To those who may not trace it the status reads 0. The same right is needed
	// to read this link, and a zombie has it (of all namespaces this one alone).
	if _, err := os.Readlink(procPath(pid, "ns/user")); err != nil {
		return Status{}, false
	}
	if now, err := pidOf(pidfd); err != nil || now != pid {
		return Status{}, false // reaped meanwhile; that was perhaps another's
	}
	st := waitStatus(zombie.exit)
	st.UserTime, st.SystemTime = zombie.user, zombie.system
	return st, true
}

// waitStatus takes a status apart as wait(2) gives it.
func waitStatus(status int) Status {
	w := unix.WaitStatus(status)
	st := Status{Known: true}
	if w.Signaled() {
		st.Signal, st.Core = int(w.Signal()), w.CoreDump()
	} else {
		st.Code = w.ExitStatus()
	}
	return st
}
