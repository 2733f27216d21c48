package spawn

import (
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// cgroupTree is the tree of a child that was cloned into a cgroup. What it makes
// is born there and can not leave, unless something with the right to do so
// moves it.
type cgroupTree struct {
	path   string
	events int  // its cgroup.events, or -1
	old    bool // do as on a kernel without cgroup.kill
}

func (t *cgroupTree) gone() (gone, vacant bool) {
	var st cgroupState
	var err error
	if t.events >= 0 {
		st, err = readEvents(t.events)
	} else {
		st, err = readCgroup(unix.AT_FDCWD, t.path+"/cgroup.events")
	}
	if err != nil {
		return err == unix.ENOENT || err == unix.ENODEV, false
	}
	return !st.populated, !st.populated && !st.frozen
}

// pids reads cgroup.procs of the cgroup and of those that the child made below
// it. The kernel leaves zombies out.
func (t *cgroupTree) pids() []int { return appendPids(nil, t.path) }

func appendPids(pids []int, path string) []int {
	// EOPNOTSUPP: a threaded cgroup, whose processes are listed above it.
	b, err := os.ReadFile(path + "/cgroup.procs")
	if err == nil {
		for line := range strings.Lines(string(b)) {
			if pid, err := strconv.Atoi(strings.TrimSuffix(line, "\n")); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	for _, sub := range subCgroups(path) {
		pids = appendPids(pids, sub)
	}
	return pids
}

func (t *cgroupTree) kill() error {
	if !t.old {
		if err := writeFile(t.path+"/cgroup.kill", "1"); err != unix.ENOENT {
			return gentle(err)
		}
	}
	// Before Linux 5.14. Who is frozen does not fork, and dies of SIGKILL all the same.
	if err := writeFile(t.path+"/cgroup.freeze", "1"); err != nil {
		return gentle(err)
	}
	err := signalEach(t.pids, int(unix.SIGKILL))
	if e := writeFile(t.path+"/cgroup.freeze", "0"); e != nil && err == nil {
		err = gentle(e)
	}
	return err
}

// gentle has a cgroup that is gone look as a process that is gone.
func gentle(err error) error {
	if err == unix.ENOENT || err == unix.ENODEV {
		return syscall.ESRCH
	}
	return err
}

// watch opens cgroup.events, which tells of a change by EPOLLPRI: unlike
// inotify(7) it has no limits of its own, and it takes the place of the pidfd
// of the main process, so a child never costs more than one descriptor. What
// changed between the read here and the arming shows as an event.
func (t *cgroupTree) watch() (fds []int, events uint32, settled bool) {
	fd, err := unix.Open(t.path+"/cgroup.events", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, 0, true
	}
	if t.stirred(fd) {
		unix.Close(fd)
		return nil, 0, true
	}
	return []int{fd}, unix.EPOLLPRI | unix.EPOLLET, true
}

// stirred reports whether nothing lives in the cgroup any more.
func (t *cgroupTree) stirred(fd int) bool {
	st, err := readEvents(fd)
	return err != nil || !st.populated
}
