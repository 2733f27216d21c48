package spawn

import (
	"os"

	"golang.org/x/sys/unix"
)

// A child leads its own session, and so its own process group.

// haveGroupSignal reports whether the kernel knows PIDFD_SIGNAL_PROCESS_GROUP
// (Linux 6.9), which signals the group of the process behind a pidfd.
func haveGroupSignal() bool {
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return false
	}
	defer unix.Close(self)
	// ESRCH: we lead no group. An older kernel says EINVAL.
	err = unix.PidfdSendSignal(self, 0, nil, unix.PIDFD_SIGNAL_PROCESS_GROUP)
	return err == nil || err == unix.ESRCH
}

// groupOf reads /proc for the group that c leads. Once its main process is
// reaped the number may be a stranger's: then there is none.
func (p *Pool) groupOf(c *child) (pids []int) {
	all, err := listPIDs("")
	if err != nil {
		return nil
	}
	for _, pid := range all {
		if pgid, err := unix.Getpgid(pid); err == nil && pgid == c.pid {
			pids = append(pids, pid)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.ended {
		return nil
	}
	return pids
}

// reserve are descriptors that are given up while processes are looked for, so
// that these can be watched and signalled although the process has none left.
type reserve [4]int

// spend gives the reserve up, to one who reads /proc at a time, until the
// function that it returns is called.
func (p *Pool) spend() (restore func()) {
	p.spending.Lock()
	p.reserve.give()
	return func() {
		p.reserve.take()
		p.spending.Unlock()
	}
}

func (r *reserve) take() {
	for i, fd := range r {
		if fd <= 0 {
			r[i], _ = openAbove2(unix.AT_FDCWD, "/dev/null", unix.O_RDONLY, 0) // if not now, then after the next look
		}
	}
}

func (r *reserve) give() {
	for i, fd := range r {
		if fd > 0 {
			unix.Close(fd)
		}
		r[i] = 0
	}
}
